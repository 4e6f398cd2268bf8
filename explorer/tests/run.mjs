// Run files of public/models as the page does, with the same runtime, in Node:
//     node tests/run.mjs FOLDER < jobs.json > answers.json
// A job is { file, inputs: { name: { type, dims, data } } }, an answer { name: data }, data in base64.
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import * as ort from "onnxruntime-web/wasm";

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const arrays = { float32: Float32Array, int64: BigInt64Array };
const answers = [];
for (const { file, inputs } of JSON.parse(readFileSync(0, "utf8"))) {
  const session = await ort.InferenceSession.create(gunzipSync(readFileSync(`${process.argv[2]}/${file}`)));
  const feeds = {};
  for (const [name, { type, dims, data }] of Object.entries(inputs)) {
    const { buffer } = new Uint8Array(Buffer.from(data, "base64"));
    feeds[name] = new ort.Tensor(type, new arrays[type](buffer), dims);
  }
  const found = Object.entries(await session.run(feeds));
  answers.push(
    Object.fromEntries(
      found.map(([name, { data }]) => [
        name,
        Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"),
      ]),
    ),
  );
  await session.release();
}
process.stdout.write(JSON.stringify(answers));
