// ONNX Runtime, in a thread of its own so that the page never waits for it.
import * as ort from "onnxruntime-web/wasm";

export interface Tensor {
  type: "float32" | "int64";
  data: Float32Array | BigInt64Array;
  dims: number[];
}
/** Run the model at `url`; where it takes no `inputs`, only load it. */
export interface Order {
  id: number;
  runtime: string;
  url: string;
  inputs: Record<string, Tensor> | null;
}
export type Reply = { id: number; outputs?: Record<string, Float32Array>; error?: string };

const sessions = new Map<string, Promise<ort.InferenceSession>>();
let started: Promise<void> | undefined;
let line: Promise<unknown> = Promise.resolve(); // one model runs at a time

/** A file's bytes, unpacked: some servers unpack it, some do not. */
async function bytes(url: string): Promise<Uint8Array<ArrayBuffer>> {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  const raw = new Uint8Array(await answer.arrayBuffer());
  if (raw[0] !== 0x1f || raw[1] !== 0x8b) return raw;
  const unpacked = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

async function start(runtime: string): Promise<void> {
  ort.env.wasm.numThreads = 1; // more would need headers that a forge's pages do not send
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = await bytes(runtime);
}

/** What `make` gives, made once; where it fails, made anew the next time. */
function open(order: Order): Promise<ort.InferenceSession> {
  started ??= start(order.runtime);
  started.catch(() => (started = undefined));
  let session = sessions.get(order.url);
  if (!session) {
    session = Promise.all([bytes(order.url), started]).then(([model]) => ort.InferenceSession.create(model));
    sessions.set(order.url, session);
    session.catch(() => sessions.delete(order.url));
  }
  return session;
}

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
  const reply: Reply = { id: order.id };
  try {
    const session = await open(order);
    if (order.inputs) {
      const turn = line.then(() => run(session, order.inputs!));
      line = turn.catch(() => undefined);
      reply.outputs = await turn;
    }
  } catch (error) {
    reply.error = error instanceof Error ? error.message : String(error);
  }
  self.postMessage(reply);
};
