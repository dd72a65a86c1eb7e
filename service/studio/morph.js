// The morph: frames along the path between the picked images, spherical and straight.

import { letter, limit, model, request } from "./models.js";
import { distance, paint, paintStrip, remember, reserve } from "./pixels.js";
import { save } from "./share.js";
import { createUpdater, fetchImages } from "./image-loader.js";
import { change, state } from "./state.js";
import { announce } from "./notifications.js";

const $ = id => document.getElementById(id);
const STEPS = 25, BYTES = 16e6, STRIP = 16;
let frames = null, playing = null, playOnArrival = false;

export const showMorph = createUpdater(
  () => {
    if (!model() || state.picks.length < 2) {
      stop();
      return null;
    }
    const body = path();
    for (const name of ["slerp", "lerp"]) reserve($(name), model());
    reserve($("strip"), model(), Math.min(STRIP, length(body)));
    return body;
  },
  async (body, signal) => {
    const [slerp, lerp] = await Promise.all(["slerp", "lerp"].map(mode => fetchImages("v1/interpolate", { ...body, mode }, signal)));
    return { slerp, lerp };
  },
  (body, got) => {
    const first = !frames;
    frames = { ...got, count: got.slerp.n, steps: body.steps };
    body.keyframes.forEach((seed, i) => remember(seed, got.slerp, i * (body.steps - 1)));
    document.dispatchEvent(new Event("seen"));
    $("frame").max = frames.count - 1;
    drawStrip(body);
    drawFrame();
    if (first || playOnArrival) announce(`${frames.count} frames from seed ${body.keyframes[0]} to ${body.keyframes.at(-1)}`);
    if (playOnArrival && !matchMedia("(prefers-reduced-motion: reduce)").matches) play();
    playOnArrival = false;
  },
);

/** Open the morph, which plays as soon as it is loaded, unless the user prefers reduced motion. */
export function watch() {
  playOnArrival = true;
  change({ tab: "morph" }, { visit: true });
}

/** Return the request of the path, without its mode. */
function path() {
  const { width, height, channels } = model(), segments = state.picks.length - (state.loop ? 0 : 1);
  const most = Math.min(limit("max_frames") - 1, BYTES / (width * height * channels));
  const steps = Math.max(2, Math.min(STEPS, Math.floor(most / segments) + 1));
  return request({ keyframes: state.picks, steps, easing: state.easing, loop: state.loop });
}

/** Return the number of frames of a path; a loop does not repeat its first image. */
const length = ({ keyframes, steps, loop }) => (keyframes.length - !loop) * (steps - 1) + !loop;

/** Set the controls to the state. */
export function showMorphSettings() {
  $("view").value = state.view;
  $("easing").value = state.easing;
  $("loop").checked = state.loop;
  $("pair").dataset.view = state.view;
  $("download-mode").textContent = mode();
}

/** Return the mode of the strip and of downloads: the one that is shown, or of both, the one that suits the latents. */
const mode = () => (state.view !== "both" ? state.view : model()?.z_distribution === "uniform" ? "lerp" : "slerp");

function drawStrip(body) {
  const shown = Math.min(STRIP, frames.count), last = frames.count - 1;
  paintStrip($("strip"), frames[mode()], Array.from({ length: shown }, (_, i) => Math.round((i * last) / (shown - 1))));
  const stops = body.loop ? [...body.keyframes, body.keyframes[0]] : body.keyframes;
  $("marks").replaceChildren(...stops.map((_, i) => {
    const mark = document.createElement("span");
    mark.textContent = letter(i % body.keyframes.length);
    mark.style.left = `${(100 * i) / (stops.length - 1)}%`;
    return mark;
  }));
}

function drawFrame() {
  const i = Math.min(+$("frame").value, frames.count - 1), segment = Math.floor(i / (frames.steps - 1));
  const share = Math.round((100 * (i % (frames.steps - 1))) / (frames.steps - 1));
  const from = letter(segment % state.picks.length), to = letter((segment + 1) % state.picks.length);
  const where = share ? `${share}% of the way from ${from} to ${to}` : `at ${from}`;
  for (const name of ["slerp", "lerp"]) {
    paint($(name), frames[name], i);
    $(name).dataset.frame = i;
    $(name).ariaLabel = `${name}, ${where}`;
  }
  $("frame").setAttribute("aria-valuetext", where);
  const levels = distance(frames.slerp, frames.lerp, i);
  const position = where[0].toUpperCase() + where.slice(1);
  $("difference").textContent = `${position}. ${levels ? `The two differ by ${levels.toFixed(1)} gray levels per pixel.` : "The two are the same image."}`;
}

function play() {
  const last = frames.count - 1;
  if (+$("frame").value >= last) $("frame").value = 0;
  const start = performance.now(), from = +$("frame").value;
  const step = now => {
    const i = from + Math.floor(((now - start) / 1000) * +$("fps").value);
    if (i > last && !state.loop) {
      $("frame").value = last;
      drawFrame();
      return stop();
    }
    $("frame").value = i % frames.count;
    drawFrame();
    playing = requestAnimationFrame(step);
  };
  stop();
  $("play").textContent = "Pause";
  playing = requestAnimationFrame(step);
}

export function stop() {
  cancelAnimationFrame(playing);
  playing = null;
  $("play").textContent = "Play";
}

$("play").onclick = () => (playing ? stop() : frames && play());
$("fps").onchange = () => playing && play();
$("frame").oninput = () => {
  stop();
  if (frames) drawFrame();
};
$("view").onchange = ({ target }) => {
  change({ view: target.value });
  if (frames) drawStrip(path());
};
$("easing").onchange = ({ target }) => change({ easing: target.value });
$("loop").onchange = ({ target }) => change({ loop: target.checked });
for (const button of document.querySelectorAll("[data-save]")) {
  button.onclick = () => {
    const body = { ...path(), mode: mode(), fps: +$("fps").value };
    save("v1/interpolate", body, `${mode()}-${state.picks.join("-")}`, button.dataset.save, frames?.count ?? STEPS);
  };
}
