// Fetches images from the service when a view needs them, one request at a time.

import { ask, latestOnly } from "./api.js";
import { model } from "./models.js";
import { parseNpy } from "./pixels.js";
import { clearError, showError } from "./notifications.js";

let pending = 0;

/** Return the images that `body` describes, with their labels. */
export async function fetchImages(path, body, signal) {
  const start = performance.now();
  const answer = await ask(path, { body, accept: "application/x-npy", signal });
  const images = parseNpy(await answer.arrayBuffer());
  images.labels = answer.headers.get("Atelier-Labels")?.split(",").map(Number) ?? [];
  document.dispatchEvent(new CustomEvent("answered", { detail: performance.now() - start }));
  // The model's file may be replaced while the page is open.
  if (answer.headers.get("Atelier-Digest") !== model()?.digest) document.dispatchEvent(new Event("replaced"));
  return images;
}

/**
 * Return a function that updates a view; call it whenever something may have changed.
 * `describe()` returns what the view needs (null: nothing), `fetch(what, signal)` gets it, `draw(what, got)` shows it.
 * What is shown already is not requested again, and only the latest request counts. `onRejected()` is called if the
 * service rejects the request (422), so that the view does not keep an older image.
 */
export function createUpdater(describe, fetch, draw, onRejected = () => {}) {
  let shown = "";
  const key = what => JSON.stringify([model()?.digest, what]);
  const update = latestOnly(async signal => {
    const what = describe();
    if (!what || key(what) === shown) return;
    busy(1);
    try {
      const got = await fetch(what, signal);
      if (signal.aborted || !model()) return; // the model may have been removed meanwhile
      shown = key(what);
      draw(what, got);
      clearError();
    } catch (error) {
      if (error.name !== "AbortError") shown = "";
      if (error.status === 422) onRejected();
      showError(error, update);
    } finally {
      busy(-1);
    }
  });
  /** Update even if nothing has changed. */
  update.redraw = () => {
    shown = "";
    return update();
  };
  return update;
}

function busy(change) {
  pending += change;
  document.getElementById("stage").setAttribute("aria-busy", pending > 0);
}
