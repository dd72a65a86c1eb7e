// Copies seeds and links to the clipboard, and saves images as files.

import { ask } from "./api.js";
import { fileName, limit, model } from "./models.js";
import { announce, showError } from "./notifications.js";

/** Copy text, also where the browser allows the clipboard only to pages with HTTPS. */
export async function copy(text, message) {
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
    if (!done) return announce(`This browser does not allow copying. The text is: ${text}`, true);
  }
  announce(message, true);
}

/** Save an image or animation of `frames` frames as a file; small ones are enlarged, pixel by pixel. */
export async function save(path, body, what, form, frames = 1) {
  const again = () => save(path, body, what, form, frames);
  try {
    const answer = await ask(path, { body: { ...body, scale: scale(frames) }, accept: `image/${form}` });
    const url = URL.createObjectURL(await answer.blob());
    Object.assign(document.createElement("a"), { href: url, download: fileName(what, form) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    announce("Saved", true);
  } catch (error) {
    showError(error, again);
  }
}

/** Return the integer factor that makes an image about 256 pixels wide, within the service's limit. */
export function scale(frames) {
  const { width, height } = model(), pixels = limit("max_scaled_pixels") / (frames * width * height);
  return Math.max(1, Math.min(16, Math.floor(256 / Math.max(width, height)), Math.floor(Math.sqrt(pixels))));
}
