// What the server is doing: asked every few seconds while someone looks.

import { ask } from "./api.js";
import { isGone, trouble, tryAgain } from "./trouble.js";

const $ = id => document.getElementById(id);
const EVERY_MS = 3000, GONE_MS = 1000, TRACE = 40;
let waited = false;
const trace = []; // the latest round trips of this page, in ms

/** Ask now, and from now on; `beat(back)` after every answer, `back` when it is the first since it was gone. */
export async function watchServer(beat) {
  if (!document.hidden) await look(beat);
  setTimeout(watchServer, isGone() ? GONE_MS : EVERY_MS, beat);
}

async function look(beat) {
  try {
    show(await (await ask("v1/status")).json());
    const back = isGone();
    if (back) tryAgain();
    await beat(back);
  } catch (error) {
    const told = { 0: "not answering", 401: "asks for an API key" };
    tell("bad", told[error.status] ?? `says: ${error.message}`);
    if (error.status === 0 && !isGone()) trouble(error, () => {});
  }
}

function show(told) {
  const waits = told.queue_rows, ms = value => (value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
  const reason = told.reason?.includes("/") ? "" : told.reason; // its folders are for its log
  if (told.status !== "ready") tell("bad", reason ? `not ready: ${reason}` : told.status.replace("_", " "));
  else if (waits && waited) tell("busy", `busy, ${waits} image${waits === 1 ? "" : "s"} waiting`);
  else if (waits) tell("good", `ready, ${waits} image${waits === 1 ? "" : "s"} being generated`);
  else tell("good", told.requests ? `ready, answers in ${ms(told.latency_ms.p50)}` : "ready, and idle");
  waited = waits > 0; // once may be this page's own question, on its way
  const facts = {
    "Typical answer": ms(told.latency_ms.p50),
    "Slow answer (1 in 20)": ms(told.latency_ms.p95),
    "Images per second": told.images_per_s.toFixed(1),
    "Images waiting": String(waits),
    "Requests refused": told.refused ? String(told.refused) : "",
    "Workers": told.workers > 1 ? String(told.workers) : "",
  };
  $("server-facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
  $("server-facts").title = `Of the last ${told.window_s} seconds, all ${told.workers} worker processes together`;
}

function tell(lamp, text) {
  $("lamp").className = lamp;
  $("server-told").textContent = `Server ${text}`;
}

document.addEventListener("answered", ({ detail }) => {
  trace.push(detail);
  if (trace.length > TRACE) trace.shift();
  const most = Math.max(...trace, 20);
  const points = trace.map((ms, i) => `${((i * 120) / Math.max(1, trace.length - 1)).toFixed(1)},${(23 - (22 * ms) / most).toFixed(1)}`);
  $("answers").hidden = trace.length < 2;
  $("trace").querySelector("polyline").setAttribute("points", points.join(" "));
  $("trace-told").textContent = `${Math.round(detail)} ms`;
});
