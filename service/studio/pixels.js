// Images of the service (uint8 [N, H, W, C] in a .npy file), painted onto canvases.

/** Parse a .npy file (numpy.lib.format, version 1.0) as {data, n, height, width, channels}. */
export function parseNpy(buffer) {
  const length = new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, 10, length));
  const shape = header.match(/'shape': \(([\d, ]+)\)/)?.[1].split(",").map(Number);
  if (shape?.length !== 4 || !header.includes("'|u1'")) throw new Error("The service’s answer has no images.");
  const [n, height, width, channels] = shape;
  return { data: new Uint8Array(buffer, 10 + length), n, height, width, channels };
}

/** Set what the style sheet needs: whether to enlarge without smoothing, and whether a checkerboard shows through. */
function dress(canvas, images) {
  canvas.classList.toggle("crisp", isSmall(images));
  canvas.classList.toggle("clear", images.channels === 4);
}

const isSmall = ({ width, height }) => Math.max(width, height) <= 64;

/** Give a canvas the size of `n` images side by side, so that the layout is stable; one of that size keeps its content. */
export function reserve(canvas, { width, height }, n = 1) {
  canvas.style.setProperty("--ratio", (n * width) / height);
  if (canvas.width === n * width && canvas.height === height) return;
  canvas.width = n * width;
  canvas.height = height;
}

/** Paint image `i` pixel for pixel; the style sheet enlarges it, without smoothing if it is small. */
export function paint(canvas, images, i) {
  reserve(canvas, images);
  dress(canvas, images);
  canvas.getContext("2d").putImageData(rgba(images, i), 0, 0);
}

/** Paint some images side by side on one canvas. */
export function paintStrip(canvas, images, chosen) {
  reserve(canvas, images, chosen.length);
  dress(canvas, images);
  const context = canvas.getContext("2d");
  chosen.forEach((i, place) => context.putImageData(rgba(images, i), place * images.width, 0));
}

function rgba({ data, height, width, channels }, i) {
  const picture = new ImageData(width, height), pixels = height * width;
  const from = i * pixels * channels, step = channels > 1 ? 1 : 0; // gray: one value three times
  for (let p = 0; p < pixels; p++) {
    const at = from + p * channels;
    picture.data[4 * p] = data[at];
    picture.data[4 * p + 1] = data[at + step];
    picture.data[4 * p + 2] = data[at + 2 * step];
    picture.data[4 * p + 3] = channels === 4 ? data[at + 3] : 255;
  }
  return picture;
}

/** Return the mean distance of images `i` of two arrays, in gray levels (0 to 255). */
export function distance(a, b, i) {
  const size = a.height * a.width * a.channels;
  let sum = 0;
  for (let k = i * size; k < (i + 1) * size; k++) sum += Math.abs(a.data[k] - b.data[k]);
  return sum / size;
}

// The latest image of each seed, for the selection and the sliders.
const seen = new Map();

export const remember = (seed, images, i) => seen.set(seed, { images, i });
export const forgetImages = () => seen.clear();
export const known = seed => seen.has(seed);

/** Paint the latest image of a seed, if there is one. */
export function paintKnown(canvas, seed) {
  const last = seen.get(seed);
  if (last) paint(canvas, last.images, last.i);
}
