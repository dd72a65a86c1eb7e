// The wall: a grid of images by seed; and the view of a single one.

import { limit, model, request } from "./models.js";
import { paint, paintKnown, remember, reserve } from "./pixels.js";
import { copy, save } from "./share.js";
import { createUpdater, fetchImages } from "./image-loader.js";
import { address, change, seedFrom, SEEDS, state } from "./state.js";
import { letterOf, toggle } from "./selection.js";
import { announce } from "./notifications.js";

const $ = id => document.getElementById(id);
const MAX_IMAGES = 60, BYTES = 4e6; // per wall; fewer if they are large
const MAX_CLASSES = 32;
const MAX_RANDOM_SEED = 1e5; // first seed of another wall, so that seeds are short
let at = 0; // the focused tile

const size = () => {
  const m = model(), fit = m ? Math.floor(BYTES / (m.width * m.height * m.channels)) : MAX_IMAGES;
  return Math.max(1, Math.min(MAX_IMAGES, limit("max_images") - state.picks.length, fit));
};
const firstSeed = () => Math.min(state.seed, SEEDS - size());
const seeds = () => (state.single !== null ? [state.single] : Array.from({ length: size() }, (_, i) => firstSeed() + i));

export const showWall = createUpdater(
  () => {
    if (!model()) return null;
    prepare();
    // Includes the picked seeds, so that the selection has the same truncation and class.
    return request({ seeds: [...new Set([...seeds(), ...state.picks])] });
  },
  (body, signal) => fetchImages("v1/generate", body, signal),
  (body, images) => {
    body.seeds.forEach((seed, i) => remember(seed, images, i));
    document.dispatchEvent(new Event("seen"));
    if (state.single !== null) drawSingle(images);
    else drawTiles(body.seeds, images);
  },
);

const showClassesOfSeed = createUpdater(
  () => {
    const classes = model()?.class_names.length ?? 0;
    $("single-classes").hidden = !classes || classes > MAX_CLASSES;
    if (state.single === null || $("single-classes").hidden) return null;
    const labels = Array.from({ length: Math.min(classes, limit("max_images")) }, (_, i) => i);
    return request({ seeds: labels.map(() => state.single), labels });
  },
  (body, signal) => fetchImages("v1/generate", body, signal),
  (body, images) => $("class-list").replaceChildren(...body.labels.map((label, i) => {
    const item = $("class-item").content.cloneNode(true), name = model().class_names[label];
    paint(item.querySelector("canvas"), images, i);
    item.querySelector("span").textContent = name;
    item.querySelector("button").ariaLabel = `Class ${name}`;
    item.querySelector("button").onclick = () => change({ label }, { visit: true });
    return item;
  })),
);

/** Create the tiles that the images will be painted into. */
function prepare() {
  $("single").hidden = state.single === null;
  $("wall").hidden = state.single !== null;
  $("wall").classList.toggle("wide", model().width >= 1.5 * model().height);
  $("seed").value = state.single ?? firstSeed();
  const range = `${firstSeed()} to ${firstSeed() + size() - 1}`;
  const caption = `Under each: seed (${range})${model().class_names.length ? ", class" : ""}`; // short, for phones
  $("seed-hint").textContent = state.single === null ? `${size()} images. ${caption}` : "one image";
  if (state.single !== null) {
    reserve($("single-image"), model());
    return void showClassesOfSeed();
  }
  const wanted = seeds(), tiles = [...$("wall").children];
  if (tiles.length !== wanted.length || tiles[0].dataset.seed !== String(wanted[0])) {
    at = 0;
    $("wall").replaceChildren(...wanted.map(tile));
    focusTile(0, false);
  }
  mark();
}

function tile(seed) {
  const item = $("wall-tile").content.firstElementChild.cloneNode(true);
  const name = item.querySelector(".seed"), link = item.querySelector(".single-link");
  item.dataset.seed = seed;
  reserve(item.querySelector("canvas"), model());
  paintKnown(item.querySelector("canvas"), seed);
  name.textContent = seed;
  name.title = name.ariaLabel = `Copy seed ${seed}`;
  link.title = link.ariaLabel = `Open only seed ${seed}: a link to this image`;
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
  announce(`Images of seeds ${drawn[0]} to ${drawn[0] + $("wall").children.length - 1}`);
}

function drawSingle(images) {
  const name = model().class_names[images.labels[0]], seed = state.single;
  paint($("single-image"), images, 0);
  $("single-image").ariaLabel = `Seed ${seed}${name ? `, class ${name}` : ""}`;
  $("single-name").textContent = `Seed ${seed}`;
  const details = [name && `class ${name}`, request({}).truncation && `truncation ${state.truncation}`, `from ${model().name}`];
  $("single-details").textContent = details.filter(Boolean).join(" · ");
  mark();
  announce(`Only seed ${seed} is shown`);
}

/** Mark the picked images, and update the links. */
export function mark() {
  for (const item of $("wall").children) {
    const seed = +item.dataset.seed, letter = letterOf(seed);
    item.querySelector(".shot").ariaPressed = Boolean(letter);
    item.dataset.pick = letter;
    item.querySelector(".single-link").href = address({ tab: "wall", single: seed });
  }
  $("single-pick").ariaPressed = Boolean(letterOf(state.single));
  $("single-pick").textContent = letterOf(state.single) ? "Picked" : "Pick";
}

/** Make one tile reachable with the Tab key; the arrow keys choose which. */
function focusTile(to, focus = true) {
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
  if (at + step >= 0) focusTile(at + step);
};
$("wall").onfocusin = event => focusTile([...$("wall").children].indexOf(event.target.closest("li")), false);
$("wall").onclick = event => {
  const item = event.target.closest("li"), seed = +item?.dataset.seed;
  if (event.target.closest(".shot")) toggle(seed);
  if (event.target.closest(".seed")) copy(seed, `Seed ${seed} copied`);
};

const wall = seed => change({ seed: Math.max(0, Math.min(seed, SEEDS - size())), single: null }, { visit: true });
$("wall-bar").onsubmit = event => event.preventDefault();
$("seed").onchange = () => {
  const seed = seedFrom($("seed").value.trim());
  $("seed").ariaInvalid = seed === null;
  if (seed === null) announce(`A seed is a whole number from 0 to ${SEEDS - 1}`, true);
  else wall(seed);
};
const step = by => (state.single === null ? wall(firstSeed() + by * size()) : change({ single: Math.max(0, Math.min(state.single + by, SEEDS - 1)) }, { visit: true }));
$("earlier").onclick = () => step(-1);
$("later").onclick = () => step(1);
$("another").onclick = () => wall(Math.floor(Math.random() * MAX_RANDOM_SEED));
$("single-pick").onclick = () => toggle(state.single);
$("single-copy").onclick = () => copy(state.single, `Seed ${state.single} copied`);
$("single-save").onclick = () => save("v1/generate", request({ seeds: [state.single] }), `seed-${state.single}`, "png");
$("single-back").onclick = () => wall(state.seed <= state.single && state.single < state.seed + size() ? state.seed : state.single);
