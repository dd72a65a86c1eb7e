// Asking the service: one door for every request, where an answer that is not one becomes words.

import { busy } from "./trouble.js";

const PATIENCE = 4; // how often a busy service is asked again before a person is told

/** Why there is no answer, in words. `status` is HTTP's, 0 when nobody answered; `code` the service's own. */
export class Refusal extends Error {
  constructor(message, status, code = "", param = null) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

/** The answer to GET `path`, or to POST if there is a `body`. Paths are relative, so a proxy may add a prefix. */
export async function ask(path, { body, accept = "application/json", signal } = {}) {
  for (let attempt = 1; ; attempt++) {
    const answer = await reach(path, body, accept, signal);
    if (answer.ok) return answer;
    const again = (answer.status === 503 || answer.status === 429) && attempt < PATIENCE;
    const refusal = await words(answer);
    // a plain link cannot show a key, so those for programs are of no use here
    if (answer.status === 401) document.body.classList.add("keyed");
    if (!again || refusal.code === "not_ready") throw refusal;
    const seconds = Math.min(5, Number(answer.headers.get("Retry-After")) || 1);
    await busy(refusal.message, seconds, signal);
  }
}

async function reach(path, body, accept, signal) {
  const headers = { Accept: accept }, key = sessionStorage.getItem("atelier-key");
  if (key) {
    headers.Authorization = `Bearer ${key}`;
    document.body.classList.add("keyed");
  }
  if (body) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The service does not answer. It may have been stopped, or the network is down.", 0, "gone");
  }
}

async function words(answer) {
  const error = (await answer.json().catch(() => null))?.error;
  const message = error?.message ?? `The service answered ${answer.status} without a reason.`;
  return new Refusal(message[0].toUpperCase() + message.slice(1), answer.status, error?.code, error?.param);
}

/**
 * Do `work` for the newest call only: one runs at a time, one waits, those between are dropped.
 * A slider that is dragged thus asks as often as the service answers, and shows answers in order.
 */
export function newest(work) {
  let running = null, waiting = false;
  async function run() {
    if (running) {
      waiting = true;
      return;
    }
    running = new AbortController();
    const { signal } = running;
    try {
      await work(signal);
    } finally {
      if (running?.signal === signal) running = null;
    }
    if (waiting && !running) {
      waiting = false;
      await run();
    }
  }
  /** Give up what is under way: its answer would be of something else. */
  run.drop = () => {
    running?.abort();
    running = null;
    waiting = false;
  };
  return run;
}
