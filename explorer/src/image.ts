// Images of 28 x 28: on a canvas, in an address, and made of a drawing as MNIST made its own.
import { make } from "./dom";
import { PIXELS } from "./maths";

export type Point = { x: number; y: number };
const [SIZE, BOX, WIDTH, FINE] = [28, 20, 2.6, 8]; // pixels; of a stroke; parts of a pixel's side

export function paint(canvas: HTMLCanvasElement, image: ArrayLike<number>, from = 0): void {
  const data = new ImageData(SIZE, SIZE);
  for (let i = 0; i < PIXELS; i++) {
    data.data.fill((image[from + i] + 1) * 127.5, 4 * i, 4 * i + 3);
    data.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d")!.putImageData(data, 0, 0);
}

export const makeCanvas = (label: string): HTMLCanvasElement =>
  make("canvas", { width: SIZE, height: SIZE, role: "img", ariaLabel: label });

/** Bytes, 0 to 255, as an image in [-1, 1]. */
export const scale = (bytes: ArrayLike<number>): Float32Array =>
  Float32Array.from(bytes, (value) => value / 127.5 - 1);

/** A test digit as the catalog has it. */
export const unpackDigit = (text: string): Float32Array =>
  scale(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)));

/**
 * An image in [-1, 1] of lines on a pad, and of a drawing below them: their longer side fills 20 pixels, and the
 * centre of their mass lies in the middle of 28 x 28 (LeCun et al. 1998, section III-A). Null of nothing.
 */
export function normalise(lines: Point[][], side: number, below: Float32Array | null): Float32Array | null {
  const { canvas, context } = fine();
  checkReading(context);
  if (below) {
    const small = makeCanvas("");
    const data = new ImageData(SIZE, SIZE);
    below.forEach((value, i) => data.data.set([255, 255, 255, (value + 1) * 127.5], 4 * i));
    small.getContext("2d")!.putImageData(data, 0, 0);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
  const points = [...lines.flat(), ...(below ? inked(below, side / SIZE) : [])];
  if (!points.length) return null;
  const [xs, ys] = [points.map((p) => p.x), points.map((p) => p.y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const factor = (BOX - WIDTH) / Math.max(width, height, 1); // a stroke is as wide as it is, however large the drawing
  const [x, y] = [SIZE / 2 - (left + width / 2) * factor, SIZE / 2 - (top + height / 2) * factor];
  const scaled = fine();
  if (below) {
    const whole = side * factor * FINE;
    scaled.context.drawImage(canvas, x * FINE, y * FINE, whole, whole);
  }
  const place = (p: Point): Point => ({ x: (x + p.x * factor) * FINE, y: (y + p.y * factor) * FINE });
  drawLines(
    scaled.context,
    lines.map((line) => line.map(place)),
    WIDTH * FINE,
  );
  const { data } = scaled.context.getImageData(0, 0, canvas.width, canvas.height);
  const bytes = new Float32Array(PIXELS);
  for (let i = 0; i < data.length / 4; i++) {
    const [row, column] = [Math.floor(i / canvas.width), i % canvas.width];
    bytes[Math.floor(row / FINE) * SIZE + Math.floor(column / FINE)] += data[4 * i + 3] / FINE ** 2;
  }
  return scale(centre(bytes));
}

/** A canvas of 28 x 28 pixels in fine parts. */
function fine() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE * FINE;
  return { canvas, context: canvas.getContext("2d", { willReadFrequently: true })! };
}

/** Where an image has ink, in pixels of `unit`, but for the half of a stroke's width on each side. */
function inked(image: Float32Array, unit: number): Point[] {
  const found = [...image.keys()].filter((i) => image[i] > 0);
  const [xs, ys] = [found.map((i) => (i % SIZE) + 0.5), found.map((i) => Math.floor(i / SIZE) + 0.5)];
  const [half, points] = [WIDTH / 2 - 0.5, [] as Point[]];
  if (!found.length) return points;
  const inner = (values: number[]) => [Math.min(...values) + half, Math.max(...values) - half];
  for (const x of inner(xs)) for (const y of inner(ys)) points.push({ x: x * unit, y: y * unit });
  return points;
}

/** Throws unless pixels are read as they were painted: some browsers return noise, so as not to be known again. */
function checkReading(context: CanvasRenderingContext2D): void {
  const [colour, side] = [[60, 120, 180, 255], 16];
  context.fillStyle = `rgb(${colour.slice(0, 3)})`;
  context.fillRect(0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  context.clearRect(0, 0, side, side);
  if (data.some((value, i) => Math.abs(value - colour[i % 4]) > 8))
    throw new Error(
      "This browser does not let a page read what is drawn on it, to protect you from being recognised: allow it for this page, or take a test digit.",
    );
}

/** Move an image of bytes by whole pixels until the centre of its mass is at pixel (14, 14). */
export function centre(bytes: Float32Array): Float32Array {
  let [mass, x, y] = [0, 0, 0];
  bytes.forEach((value, i) => {
    mass += value;
    x += value * (i % SIZE);
    y += value * Math.floor(i / SIZE);
  });
  const [right, down] = [Math.round(SIZE / 2 - x / mass), Math.round(SIZE / 2 - y / mass)];
  return bytes.map((_, i) => {
    const [row, column] = [Math.floor(i / SIZE) - down, (i % SIZE) - right];
    const inside = row >= 0 && row < SIZE && column >= 0 && column < SIZE;
    return inside ? bytes[row * SIZE + column] : 0;
  });
}

/** Draw white lines, with round ends. */
export function drawLines(context: CanvasRenderingContext2D, lines: Point[][], width: number): void {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
  for (const line of lines) {
    context.beginPath();
    context.moveTo(line[0].x, line[0].y);
    for (const point of line) context.lineTo(point.x, point.y); // of one point, a dot
    context.stroke();
  }
}

/** A drawing in 16 greys as text for an address, two pixels a byte. */
export function pack(image: Float32Array): string {
  const grey = Array.from(image, (value) => Math.round((value + 1) * 7.5));
  const bytes = Array.from({ length: PIXELS / 2 }, (_, i) => 16 * grey[2 * i] + grey[2 * i + 1]);
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

/** What `pack` made, or null where it made it not. */
export function unpack(text: string): Float32Array | null {
  try {
    const bytes = Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) =>
      char.charCodeAt(0),
    );
    const grey = bytes.flatMap((byte) => [byte >> 4, byte & 15]);
    return grey.length === PIXELS ? Float32Array.from(grey, (value) => value / 7.5 - 1) : null;
  } catch {
    return null;
  }
}
