// What went wrong, told in words in one place, with the way out of it; and what went well, for who cannot see it.

import { state } from "./state.js";

const $ = id => document.getElementById(id);
let retry = null, retrying = null, gone = false, lasting = false, fading = null;

/** Show an error, and keep `again`: what to do when a person, or the service's return, has it tried again. */
export function trouble(error, again) {
  if (error.name === "AbortError") return;
  clearTimeout(retrying);
  retry = again;
  gone = error.status === 0;
  lasting = false;
  show(inWords(error));
  button("Try again");
  $("key-form").hidden = error.status !== 401;
  document.body.classList.toggle("gone", gone);
  if (error.status === 503) retrying = setTimeout(tryAgain, 3000);
}

function inWords(error) {
  if (error.code === "model_not_found") return `${state.model} is not served any more. Choose another model.`;
  if (error.status !== 401) return error.message;
  return sessionStorage.getItem("atelier-key") ? "That API key was not accepted." : "This service asks for an API key.";
}

/** A remark that stays until it is dismissed, though all goes well. */
export function remark(text) {
  well();
  show(text);
  lasting = true;
  button("Dismiss");
}

/** All is well (again); a remark stays. */
export function well() {
  clearTimeout(retrying);
  retry = null;
  gone = false;
  if (!lasting) $("trouble").hidden = true;
  document.body.classList.remove("gone");
}

/** Do again what failed; dismiss a remark. */
export function tryAgain() {
  const again = retry;
  lasting = false;
  well();
  again?.();
}

/** Did nobody answer, the last time? */
export const isGone = () => gone;

/** Say that the service is busy, and wait before the next attempt. Rejects when `signal` gives up. */
export function busy(message, seconds, signal) {
  lasting = false;
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

function button(text) {
  $("retry").hidden = false;
  $("retry").textContent = text;
}

$("retry").onclick = tryAgain;
$("key-form").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("atelier-key", $("key").value);
  $("key").value = "";
  tryAgain();
};
