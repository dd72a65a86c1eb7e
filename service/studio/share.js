// Taking something along: a seed or a link on the clipboard, a picture as a file.

import { ask } from "./api.js";
import { fileName, limit, model } from "./models.js";
import { say, trouble } from "./trouble.js";

/** Copy text, also where a browser keeps the clipboard from pages that did not come by https. */
export async function copy(text, told) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = Object.assign(document.createElement("textarea"), { value: text });
    const before = document.activeElement;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    before?.focus();
    if (!done) return say(`This browser does not let the page copy. Here it is: ${text}`, true);
  }
  say(told, true);
}

/** Fetch a picture and save it as a file; small ones are enlarged, pixel by pixel. `frames`: how many there are. */
export async function save(path, body, what, form, frames = 1) {
  const again = () => save(path, body, what, form, frames);
  try {
    const answer = await ask(path, { body: { ...body, scale: scale(frames) }, accept: `image/${form}` });
    const url = URL.createObjectURL(await answer.blob());
    Object.assign(document.createElement("a"), { href: url, download: fileName(what, form) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    say("Saved", true);
  } catch (error) {
    trouble(error, again);
  }
}

/** The whole factor that makes an image about 256 pixels wide, within what the service allows. */
export function scale(frames) {
  const { width, height } = model(), pixels = limit("max_scaled_pixels") / (frames * width * height);
  return Math.max(1, Math.min(16, Math.floor(256 / Math.max(width, height)), Math.floor(Math.sqrt(pixels))));
}
