// The wall: images by seed, as on a contact sheet; and one of them by itself.

import { limit, model, request } from "./models.js";
import { paint, paintSeen, remember, reserve } from "./pixels.js";
import { copy, save } from "./share.js";
import { keepUp, stack } from "./stacks.js";
import { address, change, seedFrom, SEEDS, state } from "./state.js";
import { toggle, isPicked } from "./tray.js";
import { say } from "./trouble.js";

const $ = id => document.getElementById(id);
const MOST = 60, BYTES = 4e6; // a wall of large images has fewer
const MOST_KIN = 32;
const ANYWHERE = 1e5; // another wall begins below this: seeds that can be read and said
let at = 0; // the tile that the keyboard is on

const size = () => {
  const m = model(), fit = m ? Math.floor(BYTES / (m.width * m.height * m.channels)) : MOST;
  return Math.max(1, Math.min(MOST, limit("max_images") - state.picks.length, fit));
};
const firstSeed = () => Math.min(state.seed, SEEDS - size());
const seeds = () => (state.alone !== null ? [state.alone] : Array.from({ length: size() }, (_, i) => firstSeed() + i));

export const showWall = keepUp(
  () => {
    if (!model()) return null;
    prepare();
    // the picked ones come along, so that the tray is of the same truncation and class, by the same request
    return request({ seeds: [...new Set([...seeds(), ...state.picks])] });
  },
  (body, signal) => stack("v1/generate", body, signal),
  (body, images) => {
    body.seeds.forEach((seed, i) => remember(seed, images, i));
    document.dispatchEvent(new Event("seen"));
    if (state.alone !== null) drawAlone(images);
    else drawTiles(body.seeds, images);
  },
);

const showKin = keepUp(
  () => {
    const classes = model()?.class_names.length ?? 0;
    $("alone-classes").hidden = !classes || classes > MOST_KIN;
    if (state.alone === null || $("alone-classes").hidden) return null;
    const labels = Array.from({ length: Math.min(classes, limit("max_images")) }, (_, i) => i);
    return request({ seeds: labels.map(() => state.alone), labels });
  },
  (body, signal) => stack("v1/generate", body, signal),
  (body, images) => $("kin").replaceChildren(...body.labels.map((label, i) => {
    const item = $("kin-of-seed").content.cloneNode(true), name = model().class_names[label];
    paint(item.querySelector("canvas"), images, i);
    item.querySelector("span").textContent = name;
    item.querySelector("button").ariaLabel = `Class ${name}`;
    item.querySelector("button").onclick = () => change({ label }, { visit: true });
    return item;
  })),
);

/** Put up the frames that the images will be drawn into. */
function prepare() {
  $("alone").hidden = state.alone === null;
  $("wall").hidden = state.alone !== null;
  $("seed").value = state.alone ?? firstSeed();
  const range = `${firstSeed()} to ${firstSeed() + size() - 1}`;
  const caption = `Under each: seed (${range})${model().class_names.length ? ", class" : ""}`; // short, for phones
  $("seed-hint").textContent = state.alone === null ? `${size()} images. ${caption}` : "one image";
  if (state.alone !== null) {
    reserve($("alone-image"), model());
    return void showKin();
  }
  const wanted = seeds(), tiles = [...$("wall").children];
  if (tiles.length !== wanted.length || tiles[0].dataset.seed !== String(wanted[0])) {
    at = 0;
    $("wall").replaceChildren(...wanted.map(tile));
    roam(0, false);
  }
  mark();
}

function tile(seed) {
  const item = $("frame-of-wall").content.firstElementChild.cloneNode(true);
  const name = item.querySelector(".seed"), link = item.querySelector(".alone");
  item.dataset.seed = seed;
  reserve(item.querySelector("canvas"), model());
  paintSeen(item.querySelector("canvas"), seed);
  name.textContent = seed;
  name.title = name.ariaLabel = `Copy seed ${seed}`;
  link.title = link.ariaLabel = `Seed ${seed} by itself: a link that brings it back`;
  return item;
}

function drawTiles(drawn, images) {
  const names = model()?.class_names ?? [];
  [...$("wall").children].forEach((item, i) => {
    paint(item.querySelector("canvas"), images, i);
    const name = names[images.labels[i]];
    item.querySelector(".of-class").textContent = name ?? "";
    item.querySelector(".shot").ariaLabel = `Seed ${drawn[i]}${name ? `, class ${name}` : ""}`;
  });
  mark();
  $("wall").dataset.drawn = drawn[0];
  say(`Images of seeds ${drawn[0]} to ${drawn[0] + $("wall").children.length - 1}`);
}

function drawAlone(images) {
  const name = model().class_names[images.labels[0]], seed = state.alone;
  paint($("alone-image"), images, 0);
  $("alone-image").ariaLabel = `Seed ${seed}${name ? `, class ${name}` : ""}`;
  $("alone-name").textContent = `Seed ${seed}`;
  const told = [name && `class ${name}`, request({}).truncation && `truncation ${state.truncation}`, `from ${model().name}`];
  $("alone-told").textContent = told.filter(Boolean).join(" · ");
  mark();
  say(`Seed ${seed} by itself`);
}

/** What is picked, and links of what is shown. */
export function mark() {
  for (const item of $("wall").children) {
    const seed = +item.dataset.seed, letter = isPicked(seed);
    item.querySelector(".shot").ariaPressed = Boolean(letter);
    item.dataset.pick = letter;
    item.querySelector(".alone").href = address({ tab: "wall", alone: seed });
  }
  $("alone-pick").ariaPressed = Boolean(isPicked(state.alone));
  $("alone-pick").textContent = isPicked(state.alone) ? "Picked" : "Pick";
}

/** Only one tile is on the Tab key's way; the arrows choose which. */
function roam(to, focus = true) {
  const tiles = $("wall").children;
  at = Math.max(0, Math.min(to, tiles.length - 1));
  [...tiles].forEach((item, i) => {
    for (const part of item.querySelectorAll("button, a")) part.tabIndex = i === at ? 0 : -1;
  });
  if (focus) tiles[at].querySelector(".shot").focus();
}

$("wall").onkeydown = event => {
  const columns = getComputedStyle($("wall")).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: 1e6 }[event.key];
  if (!step && event.key !== "Home") return;
  event.preventDefault();
  if (at + step >= 0) roam(at + step);
};
$("wall").onfocusin = event => roam([...$("wall").children].indexOf(event.target.closest("li")), false);
$("wall").onclick = event => {
  const item = event.target.closest("li"), seed = +item?.dataset.seed;
  if (event.target.closest(".shot")) toggle(seed);
  if (event.target.closest(".seed")) copy(seed, `Seed ${seed} copied`);
};

const wall = seed => change({ seed: Math.max(0, Math.min(seed, SEEDS - size())), alone: null }, { visit: true });
$("wall-bar").onsubmit = event => event.preventDefault();
$("seed").onchange = () => {
  const seed = seedFrom($("seed").value.trim());
  $("seed").ariaInvalid = seed === null;
  if (seed === null) say(`A seed is a whole number from 0 to ${SEEDS - 1}`, true);
  else wall(seed);
};
const step = by => (state.alone === null ? wall(firstSeed() + by * size()) : change({ alone: Math.max(0, Math.min(state.alone + by, SEEDS - 1)) }, { visit: true }));
$("earlier").onclick = () => step(-1);
$("later").onclick = () => step(1);
$("another").onclick = () => wall(Math.floor(Math.random() * ANYWHERE));
$("alone-pick").onclick = () => toggle(state.alone);
$("alone-copy").onclick = () => copy(state.alone, `Seed ${state.alone} copied`);
$("alone-save").onclick = () => save("v1/generate", request({ seeds: [state.alone] }), `seed-${state.alone}`, "png");
$("alone-wall").onclick = () => wall(state.seed <= state.alone && state.alone < state.seed + size() ? state.seed : state.alone);
