// What the stage says while there is no model to show: why, and what to do.

import { model, served } from "./models.js";
import { change, state } from "./state.js";

const $ = id => document.getElementById(id);
const MOST_OFFERED = 12; // the list at the side has them all

/** Say it, and take away what can do nothing; or put everything back. */
export function showNothing() {
  const { asked, names, failed, notReady } = served(), empty = !model();
  document.body.classList.toggle("empty", empty); // what needs a model is not in sight, nor on the Tab key's way
  for (const control of document.querySelectorAll("[role=tab], #copy-link")) control.disabled = empty;
  $("nothing").hidden = !empty || !asked;
  if ($("nothing").hidden) return;
  const [title, text] = words(names, failed, notReady ?? "");
  $("nothing").querySelector("h2").textContent = title;
  $("nothing").querySelector("p").textContent = text;
  const offered = names.slice(0, MOST_OFFERED);
  if (offered.join() === [...$("others").children].map(button => button.textContent).join()) return;
  $("others").replaceChildren(...offered.map(name => {
    const button = Object.assign(document.createElement("button"), { textContent: name });
    button.onclick = () => change({ model: name, label: null }, { visit: true });
    return button;
  }));
}

function words(names, failed, notReady) {
  if (names.length) return [`${state.model} is not served here`, "It may have been renamed, or its file removed. Choose another model:"];
  if (notReady.includes("being loaded")) return ["The models are being loaded", "They appear here by themselves."];
  if (notReady.includes("does not exist")) {
    return ["There is no model to show", "The service’s model folder does not exist. Start it with MODEL_DIR set to a folder of generator files."];
  }
  const files = failed.length === 1 ? "the one file there" : `the ${failed.length} files there`;
  const why = failed.length ? `The service cannot use ${files}; the list under “Server” tells why.` : "The service’s model folder is empty.";
  return ["There is no model to show", `${why} Put a generator file (.onnx) into the folder: it appears here by itself.`];
}
