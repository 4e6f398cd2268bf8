import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

// The runtime lies beside the page, packed, since not every server packs what it sends.
const wasm = createRequire(import.meta.url).resolve("onnxruntime-web/ort-wasm-simd-threaded.wasm");
mkdirSync("public/runtime", { recursive: true });
writeFileSync("public/runtime/ort.wasm.gz", gzipSync(readFileSync(wasm), { level: 9 }));

// OWNER/REPO, and the branch to which links lead, from the one place where they stand.
const project = readFileSync("../pyproject.toml", "utf8");
const [, repository, branch] =
  /^Notebooks = "https:\/\/github\.com\/([^/]+\/[^/]+)\/blob\/(.+)\/notebooks\/"$/m.exec(project)!;

/** Leave out the copy that the library refers to and the page never asks for. */
const once: Plugin = {
  name: "one-runtime",
  generateBundle(_, bundle) {
    for (const name of Object.keys(bundle)) if (name.endsWith(".wasm")) delete bundle[name];
  },
};

export default defineConfig({
  base: "./", // wherever the page is put
  appType: "mpa", // a file that is missing is an error, and not the page
  define: { __REPOSITORY__: JSON.stringify(repository), __BRANCH__: JSON.stringify(branch) },
  plugins: [once],
  worker: { format: "es", plugins: () => [once] },
  build: { target: "es2022", assetsInlineLimit: 0 },
  server: { port: 4173 },
  preview: { port: 4173 },
});
