// The server's status, requested every few seconds while the page is visible.

import { ask } from "./api.js";
import { isGone, showError, tryAgain } from "./notifications.js";

const $ = id => document.getElementById(id);
const EVERY_MS = 3000, GONE_MS = 1000, TRACE = 40;
let waited = false;
const trace = []; // this page's latest response times, in ms

/** Request the status now and from now on; `poll(back)` runs after every answer, `back` if the server was gone. */
export async function watchServer(poll) {
  if (!document.hidden) await look(poll);
  setTimeout(watchServer, isGone() ? GONE_MS : EVERY_MS, poll);
}

async function look(poll) {
  try {
    show(await (await ask("v1/status")).json());
    const back = isGone();
    if (back) tryAgain();
    await poll(back);
  } catch (error) {
    const messages = { 0: "not answering", 401: "requires an API key" };
    setState("bad", messages[error.status] ?? `error: ${error.message}`);
    if (error.status === 0 && !isGone()) showError(error, () => {});
  }
}

function show(status) {
  const waits = status.queue_rows, ms = value => (value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
  const reason = status.reason?.includes("/") ? "" : status.reason; // not for users: it names folders
  if (status.status !== "ready") setState("bad", reason ? `not ready: ${reason}` : status.status.replace("_", " "));
  else if (waits && waited) setState("busy", `busy, ${waits} image${waits === 1 ? "" : "s"} waiting`);
  else if (waits) setState("good", `ready, ${waits} image${waits === 1 ? "" : "s"} being generated`);
  else setState("good", status.requests ? `ready, answers in ${ms(status.latency_ms.p50)}` : "ready, and idle");
  waited = waits > 0; // once may be this page's own request
  const facts = {
    "Median response": ms(status.latency_ms.p50),
    "Slowest 5 % above": ms(status.latency_ms.p95),
    "Images per second": status.images_per_s.toFixed(1),
    "Images waiting": String(waits),
    "Requests refused": status.refused ? String(status.refused) : "",
    "Workers": status.workers > 1 ? String(status.workers) : "",
  };
  $("server-facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
  $("server-facts").title = `Of the last ${status.window_s} seconds, all ${status.workers} worker processes together`;
}

function setState(lamp, text) {
  $("lamp").className = lamp;
  $("server-state").textContent = `Server ${text}`;
}

document.addEventListener("answered", ({ detail }) => {
  trace.push(detail);
  if (trace.length > TRACE) trace.shift();
  const most = Math.max(...trace, 20);
  const points = trace.map((ms, i) => `${((i * 120) / Math.max(1, trace.length - 1)).toFixed(1)},${(23 - (22 * ms) / most).toFixed(1)}`);
  $("answers").hidden = trace.length < 2;
  $("trace").querySelector("polyline").setAttribute("points", points.join(" "));
  $("trace-value").textContent = `${Math.round(detail)} ms`;
});
