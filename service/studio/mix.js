// The mix: the weighted sum of the picked images' latents, and its image.

import { letter, model, request } from "./models.js";
import { paint, paintKnown, remember, reserve } from "./pixels.js";
import { save } from "./share.js";
import { createUpdater, fetchImages } from "./image-loader.js";
import { change, state } from "./state.js";
import { announce } from "./notifications.js";

const $ = id => document.getElementById(id);

export const showMix = createUpdater(
  () => {
    if (!model() || state.picks.length < 2) return null;
    showTerms();
    reserve($("mixed"), model());
    return sum();
  },
  (body, signal) => fetchImages("v1/mix", body, signal),
  (body, images) => {
    paint($("mixed"), images, 0); // the first is the sum; the terms follow
    body.terms.forEach(({ seed }, i) => remember(seed, images, i + 1));
    document.dispatchEvent(new Event("seen"));
    const name = model().class_names[images.labels[0]];
    $("formula").textContent = formula() + (name ? `, class ${name}` : "");
    $("mixed").ariaLabel = `The mix ${$("formula").textContent}`;
    $("mixed").dataset.weights = state.weights.join();
    $("save-mix").disabled = false;
    announce(`Mix drawn: ${$("formula").textContent}`);
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
  return parts.filter(Boolean).join(" ").replace(/^\+ /, "") || "0";
}

/** Show one slider per term, with its weight. */
function showTerms() {
  const items = [...$("terms").children];
  if (items.map(item => item.dataset.seed).join() !== state.picks.join()) $("terms").replaceChildren(...state.picks.map(term));
  [...$("terms").children].forEach((item, i) => {
    const weight = state.weights[i], slider = item.querySelector("input");
    paintKnown(item.querySelector("canvas"), state.picks[i]);
    if (+slider.value !== weight) slider.value = weight;
    item.querySelector("output").textContent = String(weight).replace("-", "−");
  });
  $("normalize").checked = state.normalize;
  $("arithmetic").disabled = state.picks.length !== 3;
}

function term(seed, i) {
  const item = $("mix-term").content.firstElementChild.cloneNode(true), slider = item.querySelector("input");
  item.dataset.seed = seed;
  item.querySelector("span").textContent = `${letter(i)} · seed ${seed}`;
  slider.value = state.weights[i];
  slider.ariaLabel = `Weight of ${letter(i)}, seed ${seed}`;
  slider.oninput = () => change({ weights: state.weights.map((weight, k) => (k === i ? +slider.value : weight)) });
  return item;
}

/** Repaint the terms' small images. */
export function repaintTerms() {
  for (const item of $("terms").children) paintKnown(item.querySelector("canvas"), +item.dataset.seed);
}

$("even").onclick = () => change({ weights: state.picks.map(() => 1) });
$("arithmetic").onclick = () => change({ weights: [1, -1, 1] });
$("normalize").onchange = ({ target }) => change({ normalize: target.checked });
$("save-mix").onclick = () => save("v1/mix", sum(), `mix-${state.picks.join("-")}`, "png");
