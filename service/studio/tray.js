// The tray: the images that were picked, in order, each with its letter.

import { letter, limit } from "./models.js";
import { paintSeen } from "./pixels.js";
import { change, MOST_PICKS, seedFrom, state } from "./state.js";
import { say } from "./trouble.js";

const $ = id => document.getElementById(id);
const most = () => Math.min(MOST_PICKS, limit("max_keyframes"));

/** The letter of a picked seed, else "". */
export const isPicked = seed => (state.picks.includes(seed) ? letter(state.picks.indexOf(seed)) : "");

/** Pick a seed, or put it back. */
export function toggle(seed) {
  const i = state.picks.indexOf(seed);
  if (i < 0 && state.picks.length >= most()) return say(`${most()} images are the most that can be picked`, true);
  if (i < 0) change({ picks: [...state.picks, seed], weights: [...state.weights, 1] });
  else change({ picks: state.picks.filter((_, k) => k !== i), weights: state.weights.filter((_, k) => k !== i) });
  say(i < 0 ? `Seed ${seed} picked as ${isPicked(seed)}` : `Seed ${seed} put back`);
}

/** Draw the tray as the state has it. */
export function showTray() {
  const items = [...$("picks").children], same = items.map(item => item.dataset.seed).join() === state.picks.join();
  if (!same) $("picks").replaceChildren(...state.picks.map(entry));
  for (const item of $("picks").children) paintSeen(item.querySelector("canvas"), +item.dataset.seed);
  const count = state.picks.length;
  $("tray-hint").textContent = ["Click images to pick them.", "Pick one more.", ""][Math.min(count, 2)];
  $("tray-hint").hidden = count >= 2;
  $("to-morph").disabled = $("to-mix").disabled = count < 2;
  $("to-morph").hidden = state.tab === "morph";
  $("to-mix").hidden = state.tab === "mix";
  $("clear").disabled = !count;
  document.body.classList.toggle("picked", count >= 2);
}

function entry(seed, i) {
  const item = $("pick-of-tray").content.firstElementChild.cloneNode(true);
  item.dataset.seed = seed;
  item.querySelector("b").textContent = letter(i);
  item.querySelector("span").textContent = seed;
  const remove = item.querySelector("button");
  remove.ariaLabel = remove.title = `Put ${letter(i)}, seed ${seed}, back`;
  remove.onclick = () => {
    toggle(seed);
    ($("picks").children[Math.min(i, state.picks.length - 1)]?.querySelector("button") ?? $("add-seed")).focus();
  };
  return item;
}

$("add").onsubmit = event => {
  event.preventDefault();
  const seed = seedFrom($("add-seed").value.trim());
  if (seed === null) return say("A seed is a whole number", true);
  if (!state.picks.includes(seed)) toggle(seed);
  $("add-seed").value = "";
};
$("clear").onclick = () => {
  change({ picks: [], weights: [] });
  say("All put back");
};
