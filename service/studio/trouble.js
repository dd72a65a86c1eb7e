// What went wrong, told in words in one place, with the way out of it; and what went well, for who cannot see it.

import { state } from "./state.js";

const $ = id => document.getElementById(id);
let retry = null, retrying = null, gone = false, code = "", fading = null;

// Refusals that this page's own controls lead out of, in their words rather than in those of a request's fields.
const WAYS_OUT = {
  terms_cancel: "With these weights nothing is left to make an image of. Move a slider, or untick “keep the length of a latent”.",
};

/** Show an error, and keep `again`: what to do when a person, or the service's return, has it tried again. */
export function trouble(error, again) {
  if (error.name === "AbortError") return;
  clearTimeout(retrying);
  retry = again;
  gone = error.status === 0;
  code = error.code ?? "";
  show(inWords(error));
  $("key-form").hidden = error.status !== 401;
  $("retry").hidden = error.status === 401 || code in WAYS_OUT; // it would be answered just the same
  document.body.classList.toggle("gone", gone);
  if (error.status === 503) retrying = setTimeout(tryAgain, 3000);
  if (code === "model_not_found") document.dispatchEvent(new Event("replaced")); // look what there is now
}

function inWords(error) {
  if (error.code === "model_not_found") return `${state.model} is not served any more. Choose another model.`;
  if (error.code in WAYS_OUT) return WAYS_OUT[error.code];
  if (error.status !== 401) return error.message;
  return sessionStorage.getItem("atelier-key") ? "That API key was not accepted." : "This service asks for an API key.";
}

/** A remark that stays until it is dismissed, beside whatever else there is to say. */
export function remark(text) {
  $("remark").hidden = false;
  $("remark").querySelector("p").textContent = text;
}

/** All is well (again). `only`: as far as this code was what went wrong. */
export function well(only = code) {
  if (only !== code) return;
  clearTimeout(retrying);
  retry = null;
  gone = false;
  code = "";
  $("trouble").hidden = true;
  document.body.classList.remove("gone");
}

/** Do again what failed. */
export function tryAgain() {
  const again = retry;
  well();
  again?.();
}

/** Did nobody answer, the last time? */
export const isGone = () => gone;

/** Say that the service is busy, and wait before the next attempt. Rejects when `signal` gives up. */
export function busy(message, seconds, signal) {
  show(`${message.replace(/[.]$/, "")}. Trying again in ${seconds} s…`);
  return new Promise((resolve, reject) => {
    const done = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(done);
      reject(signal.reason);
    });
  });
}

/** What has just been done, for screen readers; `seen`: for a moment in sight too. */
export function say(text, seen = false) {
  $("said").textContent = text;
  $("said").classList.toggle("toast", seen);
  clearTimeout(fading);
  if (seen) fading = setTimeout(() => $("said").classList.remove("toast"), 2500);
}

function show(text) {
  $("trouble").hidden = false;
  $("trouble").querySelector("p").textContent = text;
  $("retry").hidden = $("key-form").hidden = true;
}

$("retry").onclick = tryAgain;
$("dismiss").onclick = () => ($("remark").hidden = true);
$("key-form").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("atelier-key", $("key").value);
  $("key").value = "";
  tryAgain();
};
