// The studio: its views, and what updates them.

import { loadModels, model, showFacts, showSettings } from "./models.js";
import { repaintTerms, showMix } from "./mix.js";
import { showMorph, showMorphSettings, stop, watch } from "./morph.js";
import { showEmptyState } from "./empty-state.js";
import { forgetImages } from "./pixels.js";
import { copy } from "./share.js";
import { address, change, onChange, restore, state, TABS } from "./state.js";
import { watchServer } from "./status.js";
import { showSelection } from "./selection.js";
import { clearError, notify, showError } from "./notifications.js";
import { mark, showWall } from "./wall.js";

const $ = id => document.getElementById(id);
const views = { wall: showWall, morph: showMorph, mix: showMix };
const MODELS_EVERY = 3; // status requests per request for the models

function showTab() {
  for (const tab of TABS) {
    const chosen = tab === state.tab;
    $(`tab-${tab}`).ariaSelected = chosen;
    $(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
    $(`${tab}-view`).hidden = !chosen || !model();
  }
  if (state.tab !== "morph" || !model()) stop();
  if (state.tab !== "mix") clearError("terms_cancel"); // only the mix can resolve it
}

let before = null;
onChange(() => {
  if (state.model !== before) {
    before = state.model;
    for (const view of Object.values(views)) view.drop();
    forgetImages();
    showFacts();
  }
  showSettings();
  showMorphSettings();
  showTab();
  showEmptyState();
  showSelection();
  mark();
  if (model()) views[state.tab]();
});
document.addEventListener("seen", () => {
  showSelection();
  repaintTerms();
});

for (const tab of TABS) $(`tab-${tab}`).onclick = () => change({ tab }, { visit: true });
document.querySelector("[role=tablist]").onkeydown = event => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tab = TABS[(TABS.indexOf(state.tab) + step + TABS.length) % TABS.length];
  change({ tab }, { visit: true });
  $(`tab-${tab}`).focus();
};
$("to-morph").onclick = watch;
$("to-mix").onclick = () => change({ tab: "mix" }, { visit: true });
$("copy-link").onclick = () => copy(location.href.split("#")[0] + address(), "Link copied");
document.querySelector(".skip").onclick = event => {
  event.preventDefault();
  $("stage").focus();
};

/** Load the list of models, and update what is shown. */
async function refreshModels() {
  const served = Boolean(model()), changed = await loadModels();
  if (!served || !model()) {
    forgetImages();
    clearError();
    return change({});
  }
  if (changed) {
    forgetImages();
    notify(`${state.model} was replaced on the server. These are images of the new version.`);
  }
  if (changed) change({});
}
document.addEventListener("replaced", () => refreshModels().catch(error => showError(error, refreshModels)));

let looks = 0;
async function poll(back) {
  if (back || !model() || ++looks % MODELS_EVERY === 0) await refreshModels();
}

async function start() {
  const earlier = state.digest;
  try {
    await loadModels();
  } catch (error) {
    return showError(error, start);
  }
  clearError();
  if (earlier && model() && !state.digest.startsWith(earlier)) {
    notify(`This link was made with an earlier version of ${state.model}. The images are of the current one.`);
  }
  change({});
}

$("about").open = matchMedia("(min-width: 60rem)").matches;
addEventListener("popstate", restore);
restore();
start().then(() => watchServer(poll));
