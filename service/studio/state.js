// What is shown: one object, which the address bar mirrors, so that a link restores it.

export const SEEDS = 2 ** 53;
export const MAX_PICKS = 16;
export const TABS = ["wall", "morph", "mix"];

const EMPTY = {
  model: null, digest: null, // the digest shows whether a link was made with an earlier file of this name
  seed: 0, // the wall's first seed
  single: null, // the only seed that is shown, if there is one
  label: null, truncation: null,
  tab: "wall",
  picks: [], weights: [], // a weight for each pick
  view: "both", easing: "linear", loop: false, normalize: true,
};

export const state = { ...EMPTY };
const listeners = [];
let writing = null;

/** Parse a seed: an integer without sign or exponent, below 2^53; else null. */
export function seedFrom(text) {
  const seed = /^[0-9]{1,16}$/.test(text) ? Number(text) : NaN;
  return seed < SEEDS ? seed : null;
}

/** Change the state and call the listeners. `visit`: the browser's back button undoes it. */
export function change(patch, { visit = false } = {}) {
  if (visit && writing) write("replaceState"); // the entry that is left, as it is now
  Object.assign(state, patch);
  // Browsers allow about three changes of the address per second, but a slider makes sixty.
  clearTimeout(writing);
  if (visit) write("pushState");
  else writing = setTimeout(write, 200, "replaceState");
  for (const listener of listeners) listener(patch);
}

/** Call `listener(patch)` after every change. */
export function onChange(listener) {
  listeners.push(listener);
}

function write(how) {
  writing = null;
  if (address() !== location.hash) history[how](null, "", address());
}

/** Return the link to what is shown, with some values replaced. */
export function address(patch = {}) {
  const s = { ...state, ...patch }, query = new URLSearchParams();
  const put = (key, value, usual) => value !== null && value !== usual && query.set(key, value);
  put("model", s.model);
  put("digest", s.digest && s.digest.slice(0, 12));
  put("tab", s.tab, "wall");
  put("seed", s.seed);
  put("alone", s.single);
  put("class", s.label);
  put("truncation", s.truncation);
  put("picks", s.picks.join(","), "");
  if (s.weights.some(w => w !== 1)) put("weights", s.weights.join(","), "");
  put("view", s.view, "both");
  put("motion", s.easing, "linear");
  put("loop", s.loop, false);
  put("normalize", s.normalize, true);
  return "#" + query.toString().replaceAll("%2C", ",");
}

/** Parse a link; invalid values are ignored. */
export function fromAddress(hash) {
  const query = new URLSearchParams(hash.slice(1)), s = { ...EMPTY };
  const number = (key, fits) => {
    const text = query.get(key);
    return text !== null && text !== "" && fits(Number(text)) ? Number(text) : null;
  };
  const oneOf = (key, allowed) => (allowed.includes(query.get(key)) ? query.get(key) : allowed[0]);
  s.model = query.get("model");
  s.digest = query.get("digest");
  s.tab = oneOf("tab", TABS);
  s.seed = seedFrom(query.get("seed") ?? "") ?? 0;
  s.single = seedFrom(query.get("alone") ?? "");
  s.label = number("class", c => Number.isInteger(c) && c >= 0);
  s.truncation = number("truncation", t => t > 0 && t <= 100);
  const seeds = (query.get("picks") ?? "").split(",").map(seedFrom).filter(seed => seed !== null);
  s.picks = [...new Set(seeds)].slice(0, MAX_PICKS);
  const weights = (query.get("weights") ?? "").split(",").map(Number);
  s.weights = s.picks.map((_, i) => (Math.abs(weights[i]) <= 2 && query.has("weights") ? weights[i] : 1));
  s.view = oneOf("view", ["both", "slerp", "lerp"]);
  s.easing = oneOf("motion", ["linear", "ease_in_out"]);
  s.loop = query.get("loop") === "true";
  s.normalize = query.get("normalize") !== "false";
  return s;
}

/** Set the state from the address: at the start, and when the browser goes back. */
export function restore() {
  clearTimeout(writing);
  const { model, ...rest } = fromAddress(location.hash);
  Object.assign(state, rest, model ? { model } : {});
  for (const listener of listeners) listener(state);
}
