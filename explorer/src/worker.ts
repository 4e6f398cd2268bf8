// ONNX Runtime, in a thread of its own so that the page never waits for it.
import * as ort from "onnxruntime-web/wasm";
import { once } from "./once";

export type Tensor = { type: "float32" | "int64"; data: Float32Array | BigInt64Array; dims: number[] };
/** Run the model at `url`. */
export interface Order {
  id: number;
  runtime: string;
  url: string;
  inputs?: Record<string, Tensor>; // more than it takes is no harm; none: load it only
}
/** `stage`: what failed, where there is an `error`. */
export interface Reply {
  id: number;
  outputs?: Record<string, Float32Array>;
  stage?: "runtime" | "load" | "run";
  error?: string;
}
/** How many bytes of all files have come, and how many the runtime has. */
export type Progress = { came: number; runtime: number };

let started: Promise<void> | undefined;
let line: Promise<unknown> = Promise.resolve(); // one model runs at a time

const progress: Progress = { came: 0, runtime: 0 };
let queue: Promise<unknown> = Promise.resolve(); // one file is fetched at a time, the first asked for first

function bytes(url: string): Promise<Uint8Array<ArrayBuffer>> {
  const turn = queue.then(() => fetchBytes(url));
  queue = turn.catch(() => undefined);
  return turn;
}

/** A file's bytes, unpacked: some servers unpack it, some do not. */
async function fetchBytes(url: string): Promise<Uint8Array<ArrayBuffer>> {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  progress.runtime ||= Number(answer.headers.get("content-length")); // it is the first
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (let reader = answer.body!.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    progress.came += value.length;
    self.postMessage({ progress });
  }
  const raw = new Uint8Array(await new Blob(parts).arrayBuffer());
  if (raw[0] !== 0x1f || raw[1] !== 0x8b) return raw;
  const unpacked = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

async function start(runtime: string): Promise<void> {
  const wasm = await bytes(runtime);
  if (!WebAssembly.validate(wasm)) throw new Error("it is cut short, or another file");
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more would need headers that a forge's pages do not send
  ort.env.logLevel = "error";
}

/** A model that is ready to run. */
const open = once(async (url) => {
  const [model] = await Promise.all([bytes(url), started]);
  return ort.InferenceSession.create(model);
});

async function run(session: ort.InferenceSession, inputs: Record<string, Tensor>) {
  const feeds: Record<string, ort.Tensor> = {};
  for (const name of session.inputNames) {
    const { type, data, dims } = inputs[name];
    feeds[name] = new ort.Tensor(type, data as Float32Array, dims);
  }
  const found = await session.run(feeds);
  return Object.fromEntries(Object.entries(found).map(([name, { data }]) => [name, data as Float32Array]));
}

self.onmessage = async ({ data: order }: MessageEvent<Order>) => {
  const reply: Reply = { id: order.id, stage: "runtime" };
  try {
    started ??= start(order.runtime); // only once: the page makes another worker if this fails
    const session = open(order.url);
    const { inputs } = order;
    if (!inputs) return void session.catch(() => undefined); // who needs it will say so
    await started;
    reply.stage = "load";
    await session;
    reply.stage = "run";
    const turn = line.then(async () => run(await session, inputs));
    line = turn.catch(() => undefined);
    reply.outputs = await turn;
  } catch (error) {
    reply.error = error instanceof Error ? error.message : String(error);
  }
  self.postMessage(reply);
};
