// Stacks of images from the service: asked for when a view needs another one, one request at a time.

import { ask, newest } from "./api.js";
import { model } from "./models.js";
import { parseNpy } from "./pixels.js";
import { trouble, well } from "./trouble.js";

let underWay = 0;

/** The images that `body` describes, with the labels that the service told. */
export async function stack(path, body, signal) {
  const start = performance.now();
  const answer = await ask(path, { body, accept: "application/x-npy", signal });
  const images = parseNpy(await answer.arrayBuffer());
  images.labels = answer.headers.get("Atelier-Labels")?.split(",").map(Number) ?? [];
  document.dispatchEvent(new CustomEvent("answered", { detail: performance.now() - start }));
  // the file may be replaced while the page is open; its pictures are of the new one from now on
  if (answer.headers.get("Atelier-Digest") !== model()?.digest) document.dispatchEvent(new Event("replaced"));
  return images;
}

/**
 * A view's way of keeping up: call the result whenever something may have changed.
 * `describe()` tells what the view needs (null: nothing), `fetch(what, signal)` gets it and `draw(what, got)` shows it.
 * Nothing is asked for what is shown already; only the newest question is asked. `refused()`: what is shown is
 * not what was asked for, and the service will not give that.
 */
export function keepUp(describe, fetch, draw, refused = () => {}) {
  let shown = "";
  const key = what => JSON.stringify([model()?.digest, what]);
  const update = newest(async signal => {
    const what = describe();
    if (!what || key(what) === shown) return;
    busy(1);
    try {
      const got = await fetch(what, signal);
      if (signal.aborted || !model()) return; // it may have gone meanwhile
      shown = key(what);
      draw(what, got);
      well();
    } catch (error) {
      if (error.name !== "AbortError") shown = "";
      if (error.status === 422) refused();
      trouble(error, update);
    } finally {
      busy(-1);
    }
  });
  /** Show it anew even if nothing changed. */
  update.afresh = () => {
    shown = "";
    return update();
  };
  return update;
}

function busy(change) {
  underWay += change;
  document.getElementById("stage").setAttribute("aria-busy", underWay > 0);
}
