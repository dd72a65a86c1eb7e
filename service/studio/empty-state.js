// The page while there is no model to show: why, and what to do.

import { model, served } from "./models.js";
import { change, state } from "./state.js";

const $ = id => document.getElementById(id);
const MAX_OFFERED = 12; // the sidebar lists all

/** Show or hide the message, and disable the controls that need a model. */
export function showEmptyState() {
  const { asked, names, failed, notReady } = served(), empty = !model();
  document.body.classList.toggle("empty", empty); // hides what needs a model, also from the Tab key
  for (const control of document.querySelectorAll("[role=tab], #copy-link")) control.disabled = empty;
  $("empty-state").hidden = !empty || !asked;
  if ($("empty-state").hidden) return;
  const [title, text] = explain(names, failed, notReady ?? "");
  $("empty-state").querySelector("h2").textContent = title;
  $("empty-state").querySelector("p").textContent = text;
  const offered = names.slice(0, MAX_OFFERED);
  if (offered.join() === [...$("other-models").children].map(button => button.textContent).join()) return;
  $("other-models").replaceChildren(...offered.map(name => {
    const button = Object.assign(document.createElement("button"), { textContent: name });
    button.onclick = () => change({ model: name, label: null }, { visit: true });
    return button;
  }));
}

function explain(names, failed, notReady) {
  if (names.length) return [`${state.model} is not served here`, "It may have been renamed, or its file removed. Choose another model:"];
  if (notReady.includes("being loaded")) return ["The models are being loaded", "They appear here automatically."];
  if (notReady.includes("does not exist")) {
    return ["There is no model to show", "The service’s model folder does not exist. Start it with MODEL_DIR set to a folder of generator files."];
  }
  const files = failed.length === 1 ? "the one file there" : `the ${failed.length} files there`;
  const why = failed.length ? `The service cannot use ${files}; the list under “Server” shows why.` : "The service’s model folder is empty.";
  return ["There is no model to show", `${why} Put a generator file (.onnx) into the folder: it appears here automatically.`];
}
