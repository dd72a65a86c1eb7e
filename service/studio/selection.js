// The selection: the picked images, in order, each with a letter.

import { letter, limit } from "./models.js";
import { paintKnown } from "./pixels.js";
import { change, MAX_PICKS, seedFrom, state } from "./state.js";
import { announce } from "./notifications.js";

const $ = id => document.getElementById(id);
const most = () => Math.min(MAX_PICKS, limit("max_keyframes"));

/** Return the letter of a picked seed, else "". */
export const letterOf = seed => (state.picks.includes(seed) ? letter(state.picks.indexOf(seed)) : "");

/** Pick a seed, or remove it. */
export function toggle(seed) {
  const i = state.picks.indexOf(seed);
  if (i < 0 && state.picks.length >= most()) return announce(`${most()} images can be picked at most`, true);
  if (i < 0) change({ picks: [...state.picks, seed], weights: [...state.weights, 1] });
  else change({ picks: state.picks.filter((_, k) => k !== i), weights: state.weights.filter((_, k) => k !== i) });
  announce(i < 0 ? `Seed ${seed} picked as ${letterOf(seed)}` : `Seed ${seed} removed`);
}

/** Show the state's picks. */
export function showSelection() {
  const items = [...$("picks").children], same = items.map(item => item.dataset.seed).join() === state.picks.join();
  if (!same) $("picks").replaceChildren(...state.picks.map(entry));
  for (const item of $("picks").children) paintKnown(item.querySelector("canvas"), +item.dataset.seed);
  const count = state.picks.length;
  $("selection-hint").textContent = ["Click images to pick them.", "Pick one more.", ""][Math.min(count, 2)];
  $("selection-hint").hidden = count >= 2;
  $("to-morph").disabled = $("to-mix").disabled = count < 2;
  $("to-morph").hidden = state.tab === "morph";
  $("to-mix").hidden = state.tab === "mix";
  $("clear").disabled = !count;
  document.body.classList.toggle("picked", count >= 2);
}

function entry(seed, i) {
  const item = $("selection-item").content.firstElementChild.cloneNode(true);
  item.dataset.seed = seed;
  item.querySelector("b").textContent = letter(i);
  item.querySelector("span").textContent = seed;
  const remove = item.querySelector("button");
  remove.ariaLabel = remove.title = `Remove ${letter(i)}, seed ${seed}`;
  remove.onclick = () => {
    toggle(seed);
    ($("picks").children[Math.min(i, state.picks.length - 1)]?.querySelector("button") ?? $("add-seed")).focus();
  };
  return item;
}

$("add").onsubmit = event => {
  event.preventDefault();
  const seed = seedFrom($("add-seed").value.trim());
  if (seed === null) return announce("A seed is a whole number", true);
  if (!state.picks.includes(seed)) toggle(seed);
  $("add-seed").value = "";
};
$("clear").onclick = () => {
  change({ picks: [], weights: [] });
  announce("Selection cleared");
};
