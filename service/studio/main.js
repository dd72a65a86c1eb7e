// The studio: its views, and what brings them up to date.

import { loadModels, model, showFacts, showSettings } from "./models.js";
import { repaintTerms, showMix } from "./mix.js";
import { showMorph, showMorphSettings, stop, watch } from "./morph.js";
import { showNothing } from "./nothing.js";
import { forgetAll } from "./pixels.js";
import { copy } from "./share.js";
import { address, change, onChange, restore, state, TABS } from "./state.js";
import { watchServer } from "./status.js";
import { showTray } from "./tray.js";
import { remark, trouble, well } from "./trouble.js";
import { mark, showWall } from "./wall.js";

const $ = id => document.getElementById(id);
const views = { wall: showWall, morph: showMorph, mix: showMix };
const MODELS_EVERY = 3; // looks at the server for one at the models

function showTab() {
  for (const tab of TABS) {
    const chosen = tab === state.tab;
    $(`tab-${tab}`).ariaSelected = chosen;
    $(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
    $(`${tab}-view`).hidden = !chosen || !model();
  }
  if (state.tab !== "morph" || !model()) stop();
  if (state.tab !== "mix") well("terms_cancel"); // only its own view leads out of that
}

let before = null;
onChange(() => {
  if (state.model !== before) {
    before = state.model;
    for (const view of Object.values(views)) view.drop();
    forgetAll();
    showFacts();
  }
  showSettings();
  showMorphSettings();
  showTab();
  showNothing();
  showTray();
  mark();
  if (model()) views[state.tab]();
});
document.addEventListener("seen", () => {
  showTray();
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

/** The models as they are now; what is shown follows. */
async function renew() {
  const served = Boolean(model()), changed = await loadModels();
  if (!served || !model()) {
    forgetAll();
    well();
    return change({});
  }
  if (changed) {
    forgetAll();
    remark(`${state.model} was replaced on the server. These are the new one’s images.`);
  }
  if (changed) change({});
}
document.addEventListener("replaced", () => renew().catch(error => trouble(error, renew)));

let looks = 0;
async function beat(back) {
  if (back || !model() || ++looks % MODELS_EVERY === 0) await renew();
}

async function start() {
  const earlier = state.digest;
  try {
    await loadModels();
  } catch (error) {
    return trouble(error, start);
  }
  well();
  if (earlier && model() && !state.digest.startsWith(earlier)) {
    remark(`This link was made with an earlier ${state.model}. The images are the present one's.`);
  }
  change({});
}

$("about").open = matchMedia("(min-width: 60rem)").matches;
addEventListener("popstate", restore);
restore();
start().then(() => watchServer(beat));
