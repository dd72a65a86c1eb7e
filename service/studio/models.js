// The served models, and the chosen one.

import { ask } from "./api.js";
import { change, state } from "./state.js";

const $ = id => document.getElementById(id);
const FEW_CLASSES = 16; // more classes are a list instead of buttons
let models = [], limits = {}, failed = [], notReady = null, asked = false, shownFacts = "";

/** The chosen model's description, or undefined when it is not served. */
export const model = () => models.find(m => m.name === state.model);
/** What is served: {asked: whether the list was loaded, names, failed, notReady}. */
export const served = () => ({ asked, names: models.map(m => m.name), failed, notReady });
export const limit = name => limits[name] ?? Infinity;
export const letter = i => String.fromCharCode(65 + i);

/** Load the list of models; return whether the chosen model's file has changed. */
export async function loadModels() {
  const list = await (await ask("v1/models")).json(), before = model();
  ({ data: models, limits, failed, not_ready: notReady } = list);
  asked = true;
  state.model ??= (models.find(m => m.name === list.default) ?? models[0])?.name ?? null;
  showChoice();
  showRefused();
  showFacts();
  return before?.digest !== undefined && model() !== undefined && before.digest !== model().digest;
}

/** Return a request to the chosen model: `fields`, with truncation and class if they are chosen. */
export function request(fields) {
  const m = model(), body = { model: state.model, ...fields };
  if (state.truncation !== null && m?.z_distribution === "normal") body.truncation = state.truncation;
  if (state.label !== null && m?.class_names.length) body.labels ??= [state.label];
  return body;
}

/** Return a file name that identifies the picture. */
export function fileName(what, form) {
  const label = request({}).labels ? `-class-${state.label}` : "";
  const cut = request({}).truncation ? `-truncation-${state.truncation}` : "";
  return `${state.model}-${what}${label}${cut}.${form}`;
}

function showChoice() {
  const options = models.map(m => new Option(m.name, m.name));
  const missing = state.model === null ? "none" : `${state.model} (not served)`;
  if (!model()) options.unshift(Object.assign(new Option(missing, state.model ?? ""), { disabled: true }));
  // Keep an open list open if nothing has changed.
  if (options.map(o => o.text).join() !== [...$("model").options].map(o => o.text).join()) $("model").replaceChildren(...options);
  $("model").value = state.model ?? "";
  $("model").disabled = !models.length;
}

/** List the files that are not served, and why. */
function showRefused() {
  const lines = failed.map(({ file, reason }) => `${file}: ${reason}`), list = $("refused").querySelector("ul");
  $("refused").hidden = !lines.length;
  $("refused").querySelector("summary").textContent = lines.length === 1 ? "1 file is not served" : `${lines.length} files are not served`;
  if (!models.length) $("refused").open = true;
  if (lines.join() === [...list.children].map(item => item.textContent).join()) return;
  list.replaceChildren(...lines.map(text => Object.assign(document.createElement("li"), { textContent: text })));
}

/** Show the facts of the chosen model, and the settings that it has. */
export function showFacts() {
  const m = model(), now = JSON.stringify(m);
  if (now === shownFacts) return;
  shownFacts = now;
  $("facts").replaceChildren(...(m ? facts(m) : []).flatMap(([name, value, title = ""]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    text.title = title;
    return [term, text];
  }));
  $("about").hidden = !m;
  if (m) state.digest = m.digest;
  $("truncation-field").hidden = m?.z_distribution !== "normal";
  if (m && state.label >= m.class_names.length) state.label = null;
  showClasses(m?.class_names ?? []);
  showSettings();
}

function facts(m) {
  const count = n => n.toLocaleString("en");
  const list = [
    ["Trained on", m.dataset],
    ["Images seen", m.images_seen ? count(m.images_seen) : m.foreign ? "unknown" : "none: untrained"],
    ...scores(m),
    ["Image", `${m.width} × ${m.height}, ${{ 1: "gray", 3: "color", 4: "color with transparency" }[m.channels]}`],
    ["Latent", `${m.z_dim} ${m.z_distribution} numbers`],
    ["Network", m.architecture + (m.ema ? ", averaged weights" : "") + (m.optimize === "none" ? "" : `, ${m.optimize}`)],
  ];
  if (Number.isFinite(m.parameters)) list.push(["Parameters", count(m.parameters)]);
  if (Number.isFinite(m.bytes)) list.push(["File", `${count(Math.max(1, Math.round(m.bytes / 1000)))} kB`, m.file]);
  list.push(["Made", m.created.slice(0, 10), m.created], ["Digest", m.digest.slice(0, 12), m.digest]);
  return list.filter(([, value]) => value);
}

/** Return the `evaluation.*` entries that are numbers, or "not measured yet". */
function scores(m) {
  const numbers = Object.entries(m.evaluation).filter(([, value]) => typeof value === "number");
  return numbers.length ? numbers.map(([name, value]) => [name, +value.toPrecision(4)]) : [["Score", "not measured yet"]];
}

function showClasses(names) {
  $("classes").hidden = !names.length;
  const few = names.length <= FEW_CLASSES, all = [["", "by seed"], ...names.map((name, i) => [i, name])];
  $("chips").hidden = !few;
  $("class").hidden = few;
  $("class").replaceChildren(...(few ? [] : all.map(([value, name]) => new Option(name, value))));
  $("chips").replaceChildren(...(!few ? [] : all.map(([value, name]) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "class", value });
    label.append(input, name);
    return label;
  })));
}

/** Set the controls to the state. */
export function showSettings() {
  const label = String(state.label ?? "");
  $("model").value = state.model ?? "";
  $("class").value = label;
  for (const input of $("chips").querySelectorAll("input")) {
    const chosen = input.value === label;
    // On a phone the row is wider than the screen.
    if (chosen && !input.checked) $("chips").scrollLeft = input.parentElement.offsetLeft - $("chips").clientWidth / 2;
    input.checked = chosen;
  }
  $("truncation").value = state.truncation ?? $("truncation").max;
  $("truncation-value").textContent = state.truncation ?? "off";
  $("truncation").setAttribute("aria-valuetext", state.truncation ?? "off");
}

const chooseClass = event => change({ label: event.target.value === "" ? null : +event.target.value });
$("class").onchange = $("chips").onchange = chooseClass;
$("truncation").oninput = ({ target }) => change({ truncation: target.value === target.max ? null : +target.value });
$("model").onchange = ({ target }) => change({ model: target.value, label: null }, { visit: true });
