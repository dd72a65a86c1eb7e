// Requests to the service; an error response becomes a ServiceError with a message.

import { busy } from "./notifications.js";

const MAX_ATTEMPTS = 4; // requests to a busy service, before the error is shown

/** An error response. `status` is HTTP's, 0 if there was no response; `code` is the service's own. */
export class ServiceError extends Error {
  constructor(message, status, code = "", param = null) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

/** Return the response to GET `path`, or to POST if there is a `body`. Paths are relative, so a proxy may add a prefix. */
export async function ask(path, { body, accept = "application/json", signal } = {}) {
  for (let attempt = 1; ; attempt++) {
    const answer = await reach(path, body, accept, signal);
    if (answer.ok) return answer;
    const again = (answer.status === 503 || answer.status === 429) && attempt < MAX_ATTEMPTS;
    const error = await readError(answer);
    // A plain link cannot send a key, so the links to the API do not work here.
    if (answer.status === 401) document.body.classList.add("keyed");
    if (!again || error.code === "not_ready") throw error;
    const seconds = Math.min(5, Number(answer.headers.get("Retry-After")) || 1);
    await busy(error.message, seconds, signal);
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
    throw new ServiceError("The service does not answer. It may have been stopped, or the network is down.", 0, "gone");
  }
}

async function readError(answer) {
  const error = (await answer.json().catch(() => null))?.error;
  const message = error?.message ?? `The service returned ${answer.status} without a message.`;
  return new ServiceError(message[0].toUpperCase() + message.slice(1), answer.status, error?.code, error?.param);
}

/**
 * Return a function that does `work` for the latest call only: one runs, one waits, those in between are dropped.
 * A dragged slider thus sends requests as fast as the service answers, and shows the answers in order.
 */
export function latestOnly(work) {
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
  /** Abort what runs: its answer is no longer needed. */
  run.drop = () => {
    running?.abort();
    running = null;
    waiting = false;
  };
  return run;
}
