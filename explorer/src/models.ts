// What the models compute, for images (784 values in [-1, 1], one after the other) and latents.
import { address, type Catalog, type File, type Model } from "./catalog";
import { get, write } from "./dom";
import { normals, PIXELS, softmax } from "./maths";
import type { Order, Progress, Reply, Tensor } from "./worker";

const RUNTIME = new URL("runtime/ort.wasm.gz", document.baseURI).href;
const ANY_DIGIT = 10n; // as the prior calls it
const KL_DRAWS = 16; // over which the rate of a coupled posterior is averaged

const waiting = new Map<number, (reply: Reply) => void>();
let worker: Worker | undefined;
let orders = 0;

function startWorker(): Worker {
  const one = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  one.onmessage = ({ data }: MessageEvent<Reply | { progress: Progress }>) => {
    if ("progress" in data) return showProgress(data.progress);
    waiting.get(data.id)?.(data);
    waiting.delete(data.id);
    if (data.error !== undefined && data.stage === "runtime") stopWorker(data.error);
  };
  one.onerror = (event) => {
    event.preventDefault();
    stopWorker(event.message || "its worker did not start");
  };
  return one;
}

const awaited = new Map<string, number>(); // bytes of the files that are needed first

/** Load files, in this order; progress is their share that has come. */
export function expect(files: (File | undefined)[]): void {
  worker ??= startWorker();
  for (const file of files) {
    if (!file) continue;
    awaited.set(file.file, file.bytes);
    worker.postMessage({ id: -1, runtime: RUNTIME, url: address(file.file) } satisfies Order);
  }
}

function showProgress({ came, runtime }: Progress): void {
  const all = [...awaited.values()].reduce((sum, bytes) => sum + bytes, runtime);
  const words = `Loading: ${(came / 1e6).toFixed(1)} of ${(all / 1e6).toFixed(1)} MB`;
  write(get("progress"), came < all ? words : "");
}

/** End the worker and all that waits for it. The next order starts another. */
function stopWorker(error: string): void {
  worker?.terminate();
  worker = undefined;
  for (const [id, settle] of waiting) settle({ id, error, stage: "runtime" });
  waiting.clear();
}

const SENTENCES = {
  runtime: () => "The runtime that computes the models cannot be used",
  load: (what: string) => `${what} cannot be used: its file is missing, cut short or no model`,
  run: (what: string) => `${what} failed`,
};

/** Run a file of `models/`; a sentence about what went wrong is thrown as an `Error`. */
async function run(
  file: File,
  what: string,
  inputs: Record<string, Tensor>,
): Promise<Record<string, Float32Array>> {
  worker ??= startWorker();
  const order: Order = { id: orders++, runtime: RUNTIME, url: address(file.file), inputs };
  const reply = await new Promise<Reply>((settle) => {
    waiting.set(order.id, settle);
    worker!.postMessage(order);
  });
  if (reply.error === undefined) return reply.outputs!;
  if (awaited.delete(file.file)) write(get("progress"), "");
  throw new Error(`${SENTENCES[reply.stage!](what)} (${reply.error}).`);
}

const floats = (data: ArrayLike<number>, ...dims: number[]): Tensor => ({
  type: "float32",
  data: Float32Array.from(data),
  dims,
});
const images = (data: Float32Array): Tensor => floats(data, data.length / PIXELS, 1, 28, 28);
const latents = (model: Model, data: ArrayLike<number>): Tensor =>
  floats(data, data.length / model.numbers, model.size, model.grid, model.grid);

/** One digit for all of `n` images, or one for each, as a model takes them that is told the digit. */
function label(digit: number | number[], n: number): Tensor {
  const digits = Array.from({ length: n }, (_, i) => BigInt(typeof digit === "number" ? digit : digit[i]));
  return { type: "int64", data: BigInt64Array.from(digits), dims: [n] };
}

/** A latent in standard deviations, and back: those of a plain autoencoder lie anywhere. */
export function inUnits({ mean, std }: Model, z: ArrayLike<number>): number[] {
  return Array.from(z, (value, i) => (mean && std ? (value - mean[i]) / std[i] : value));
}
export function fromUnits({ mean, std }: Model, z: number[]): number[] {
  return z.map((value, i) => (mean && std ? mean[i] + value * std[i] : value));
}

/** What a model is called in a sentence. */
export const title = (model: Model): string => `The model of ${model.numbers} numbers`;

/**
 * q(z|x) of one image. `code`: the mean, as the decoder takes it; `z`: the latent that the couplings
 * make of it, and which N(0, I) is the prior of. Without couplings the two are one.
 */
export interface Posterior {
  code: Float32Array;
  z: Float32Array;
  std: Float32Array; // of z, or of the code where the posterior is coupled
  kl: number | null; // from N(0, I), in nats; null of a plain autoencoder
}

/** The posterior of one image; `digit`: for a model that is told it. */
export async function encode(model: Model, image: Float32Array, digit = 0): Promise<Posterior> {
  const { mean, logvar } = await run(model.files.encoder, title(model), {
    image: images(image),
    label: label(digit, 1),
  });
  const std = logvar.map((value) => Math.exp(value / 2));
  const plain = { code: mean, z: mean, std, kl: null };
  const { couplings } = model.files;
  if (!couplings) return model.terms === "plain" ? plain : { ...plain, kl: closedForm(mean, logvar) };
  const coupled = model.posterior === "coupled";
  const noise = normals(coupled ? KL_DRAWS * model.numbers : 0, 1);
  const draws = noise.map((value, i) => mean[i % model.numbers] + std[i % model.numbers] * value);
  const code = Float32Array.from([...mean, ...draws]); // the mean first
  const n = code.length / model.numbers;
  const found = await run(couplings, title(model), {
    code: latents(model, code),
    z: latents(model, new Float32Array(code.length)),
    label: label(digit, n),
  });
  const z = found.latent.slice(0, model.numbers);
  if (!coupled) return { code: mean, z, std, kl: closedForm(z, logvar) };
  const squares = found.latent.subarray(model.numbers).reduce((sum, value) => sum + value * value, 0);
  const volumes = found.log_det.subarray(1).reduce((sum, value) => sum + value, 0);
  const entropy = logvar.reduce((sum, value) => sum + (1 + value) / 2, 0);
  return { code: mean, z, std, kl: (squares / 2 - volumes) / KL_DRAWS - entropy };
}

/** KL(q(z|x) || N(0, I)) of a diagonal Gaussian (Kingma & Welling 2014, appendix B). */
function closedForm(mean: Float32Array, logvar: Float32Array): number {
  return mean.reduce((sum, value, i) => sum + (value * value + Math.exp(logvar[i]) - 1 - logvar[i]) / 2, 0);
}

/** Images of codes, as `Posterior` has them, one after the other. */
export async function decodeCode(
  model: Model,
  code: ArrayLike<number>,
  digit: number | number[] = 0,
): Promise<Float32Array> {
  const n = code.length / model.numbers;
  const inputs = { code: latents(model, code), label: label(digit, n) };
  return (await run(model.files.decoder, title(model), inputs)).image;
}

/** Images of latents z, one after the other. */
export async function decode(
  model: Model,
  z: ArrayLike<number>,
  digit: number | number[] = 0,
): Promise<Float32Array> {
  const { couplings } = model.files;
  if (!couplings) return decodeCode(model, z, digit);
  const [n, unused] = [z.length / model.numbers, new Float32Array(z.length)];
  const inputs = { code: latents(model, unused), z: latents(model, z), label: label(digit, n) };
  return decodeCode(model, (await run(couplings, title(model), inputs)).u, digit);
}

/** Which digit the judge reads in an image. */
export async function read(catalog: Catalog, image: Float32Array): Promise<number> {
  const [chances] = await judge(catalog, image);
  return chances.indexOf(Math.max(...chances));
}

/** What the judge makes of images: for each, ten probabilities. */
export async function judge(catalog: Catalog, image: Float32Array): Promise<number[][]> {
  const { logits } = await run(catalog.judge, "The judge", { image: images(image) });
  return Array.from({ length: logits.length / 10 }, (_, i) => softmax(logits.subarray(10 * i, 10 * i + 10)));
}

/**
 * The way of noise to a latent, by Heun's method: `steps` + 1 latents as the decoder takes them.
 * Guidance w follows v(any) + w (v(digit) - v(any)); see vae/prior.py.
 */
export async function flow(
  model: Model,
  noise: Float32Array,
  digit: number,
  guidance: number,
): Promise<Float32Array[]> {
  const { steps } = model.prior!;
  let [mean, std]: Float32Array[] = [new Float32Array(), new Float32Array()];
  const velocity = async (z: Float32Array, t: number) => {
    const twice = latents(model, [...z, ...z]);
    const asked: Tensor = { type: "int64", data: BigInt64Array.from([ANY_DIGIT, BigInt(digit)]), dims: [2] };
    const found = await run(model.files.prior!, "The learned prior", {
      latent: twice,
      t: floats([t, t], 2),
      label: asked,
    });
    [mean, std] = [found.mean, found.std];
    const v = found.velocity;
    return z.map((_, i) => v[i] + guidance * (v[z.length + i] - v[i]));
  };
  let z: Float32Array = noise;
  const way = [z];
  for (let step = 0; step < steps; step++) {
    const here = await velocity(z, step / steps);
    const there = await velocity(
      z.map((value, i) => value + here[i] / steps),
      (step + 1) / steps,
    );
    z = z.map((value, i) => value + (here[i] + there[i]) / (2 * steps));
    way.push(z);
  }
  const area = model.grid ** 2;
  return way.map((one) =>
    one.map((value, i) => value * std[Math.floor(i / area)] + mean[Math.floor(i / area)]),
  );
}
