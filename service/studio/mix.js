// The mix: the picked images' latents, weighted and added, and the image of the sum.

import { letter, model, request } from "./models.js";
import { paint, paintSeen, remember, reserve } from "./pixels.js";
import { save } from "./share.js";
import { keepUp, stack } from "./stacks.js";
import { change, state } from "./state.js";
import { say } from "./trouble.js";

const $ = id => document.getElementById(id);

export const showMix = keepUp(
  () => {
    if (!model() || state.picks.length < 2) return null;
    showTerms();
    reserve($("mixed"), model());
    return sum();
  },
  (body, signal) => stack("v1/mix", body, signal),
  (body, images) => {
    paint($("mixed"), images, 0); // the sum is the first, the terms follow
    body.terms.forEach(({ seed }, i) => remember(seed, images, i + 1));
    document.dispatchEvent(new Event("seen"));
    const name = model().class_names[images.labels[0]];
    $("formula").textContent = formula() + (name ? `, class ${name}` : "");
    $("mixed").ariaLabel = `The mix ${$("formula").textContent}`;
    $("mixed").dataset.weights = state.weights.join();
    $("save-mix").disabled = false;
    say(`Mix drawn: ${$("formula").textContent}`);
  },
  () => {
    const canvas = $("mixed");
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    $("formula").textContent = canvas.ariaLabel = "No image of these weights";
    delete canvas.dataset.weights;
    $("save-mix").disabled = true;
  },
);

function sum() {
  const { labels, ...body } = request({ normalize: state.normalize }), own = labels && { label: labels[0] };
  const terms = state.picks.map((seed, i) => ({ seed, weight: state.weights[i], ...own }));
  return { ...body, terms, ...(labels && { labels }) };
}

/** 1.5 A − B + 0.25 C */
function formula() {
  const parts = state.weights.map((weight, i) => {
    const size = Math.abs(weight), sign = weight < 0 ? "− " : "+ ";
    return weight ? `${sign}${size === 1 ? "" : `${size} `}${letter(i)}` : "";
  });
  return parts.filter(Boolean).join(" ").replace(/^\+ /, "") || "nothing";
}

/** The sliders, one a term; and where they stand. */
function showTerms() {
  const items = [...$("terms").children];
  if (items.map(item => item.dataset.seed).join() !== state.picks.join()) $("terms").replaceChildren(...state.picks.map(term));
  [...$("terms").children].forEach((item, i) => {
    const weight = state.weights[i], slider = item.querySelector("input");
    paintSeen(item.querySelector("canvas"), state.picks[i]);
    if (+slider.value !== weight) slider.value = weight;
    item.querySelector("output").textContent = String(weight).replace("-", "−");
  });
  $("normalize").checked = state.normalize;
  $("arithmetic").disabled = state.picks.length !== 3;
}

function term(seed, i) {
  const item = $("term-of-mix").content.firstElementChild.cloneNode(true), slider = item.querySelector("input");
  item.dataset.seed = seed;
  item.querySelector("span").textContent = `${letter(i)} · seed ${seed}`;
  slider.value = state.weights[i];
  slider.ariaLabel = `Weight of ${letter(i)}, seed ${seed}`;
  slider.oninput = () => change({ weights: state.weights.map((weight, k) => (k === i ? +slider.value : weight)) });
  return item;
}

/** Terms' small images, when newer ones came. */
export function repaintTerms() {
  for (const item of $("terms").children) paintSeen(item.querySelector("canvas"), +item.dataset.seed);
}

$("even").onclick = () => change({ weights: state.picks.map(() => 1) });
$("arithmetic").onclick = () => change({ weights: [1, -1, 1] });
$("normalize").onchange = ({ target }) => change({ normalize: target.checked });
$("save-mix").onclick = () => save("v1/mix", sum(), `mix-${state.picks.join("-")}`, "png");
