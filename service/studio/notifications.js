// Errors, shown in one place with a way to continue; notices; and announcements for screen readers.

import { state } from "./state.js";

const $ = id => document.getElementById(id);
let retry = null, retrying = null, gone = false, code = "", fading = null;

// Errors that this page's controls can resolve, explained by those controls instead of by a request's fields.
const EXPLANATIONS = {
  terms_cancel: "These weights cancel out, so there is no image. Move a slider, or clear “keep the length of a latent”.",
};

/** Show an error. `again` is called to retry: by the user, or when the service answers again. */
export function showError(error, again) {
  if (error.name === "AbortError") return;
  clearTimeout(retrying);
  retry = again;
  gone = error.status === 0;
  code = error.code ?? "";
  show(describe(error));
  $("key-form").hidden = error.status !== 401;
  $("retry").hidden = error.status === 401 || code in EXPLANATIONS; // a retry would fail again
  document.body.classList.toggle("gone", gone);
  if (error.status === 503) retrying = setTimeout(tryAgain, 3000);
  if (code === "model_not_found") document.dispatchEvent(new Event("replaced")); // reload the list of models
}

function describe(error) {
  if (error.code === "model_not_found") return `${state.model} is no longer served. Choose another model.`;
  if (error.code in EXPLANATIONS) return EXPLANATIONS[error.code];
  if (error.status !== 401) return error.message;
  return sessionStorage.getItem("atelier-key") ? "That API key was not accepted." : "This service requires an API key.";
}

/** Show a notice until it is dismissed, independent of errors. */
export function notify(text) {
  $("notice").hidden = false;
  $("notice").querySelector("p").textContent = text;
}

/** Hide the error; with `only`, if it has this code. */
export function clearError(only = code) {
  if (only !== code) return;
  clearTimeout(retrying);
  retry = null;
  gone = false;
  code = "";
  $("error").hidden = true;
  document.body.classList.remove("gone");
}

/** Retry what failed. */
export function tryAgain() {
  const again = retry;
  clearError();
  again?.();
}

/** Whether the last request got no response. */
export const isGone = () => gone;

/** Show that the service is busy, and wait before the next attempt. Rejects when `signal` aborts. */
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

/** Announce to screen readers what was done; with `seen`, also show it briefly. */
export function announce(text, seen = false) {
  $("announcement").textContent = text;
  $("announcement").classList.toggle("toast", seen);
  clearTimeout(fading);
  if (seen) fading = setTimeout(() => $("announcement").classList.remove("toast"), 2500);
}

function show(text) {
  $("error").hidden = false;
  $("error").querySelector("p").textContent = text;
  $("retry").hidden = $("key-form").hidden = true;
}

$("retry").onclick = tryAgain;
$("dismiss").onclick = () => ($("notice").hidden = true);
$("key-form").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("atelier-key", $("key").value);
  $("key").value = "";
  tryAgain();
};
