// The third part: noise becomes a latent becomes a digit.
import type { Catalog } from "./catalog";
import { announce, choice, fail, get, latest, make, makeFailure, reading, startPlayer, write } from "./dom";
import { makeCanvas, paint } from "./image";
import { normals, PIXELS } from "./maths";
import { decode, flow, judge } from "./models";
import { current, follow, set } from "./state";

export function startFlow(catalog: Catalog): void {
  const model = catalog.models.find((one) => one.prior);
  if (!model) return fail(get("flow-failure"), "None of the models here has a learned prior.");
  const [steps, area] = [model.prior!.steps, model.grid ** 2];
  const digits = catalog.digits.map((_, digit): [string, string] => [`${digit}`, `${digit}`]);
  const mark = choice(get("wanted"), digits, (digit) => set({ ask: Number(digit) }));
  const [time, guidance] = [get<HTMLInputElement>("time"), get<HTMLInputElement>("guidance")];
  time.max = String(steps);
  const times = Array.from({ length: steps + 1 }, (_, step) => (step / steps).toFixed(2));
  const film = times.map((at) => makeCanvas(`at time ${at}`));
  const buttons = times.map((at, t) =>
    make("button", { type: "button", onclick: () => set({ t }) }, film[t], at),
  );
  get("film").append(...buttons);
  const maps = Array.from({ length: model.size }, (_, channel) => {
    const [words, width] = [`channel ${channel + 1}`, model.grid];
    const canvas = Object.assign(makeCanvas(`${words} of the latent`), { width, height: width });
    get("maps").append(make("figure", {}, canvas, make("figcaption", { className: "quiet" }, words)));
    return canvas;
  });
  let shown: { way: Float32Array[]; images: Float32Array } | null = null;
  const unread = makeFailure(); // beside what was not computed
  get("flow-failure").after(unread);

  /** Show the step that the slider is at. */
  const look = latest(unread, async () => {
    const { t } = current();
    const step = t < 0 || t > steps ? steps : t;
    time.value = String(step);
    write(get("time-words"), times[step]);
    buttons.forEach((button, i) => (button.ariaPressed = String(i === step)));
    if (!shown) return;
    const { way, images } = shown;
    const image = images.slice(step * PIXELS, (step + 1) * PIXELS);
    paint(get<HTMLCanvasElement>("now"), image);
    maps.forEach((canvas, channel) =>
      paintMap(canvas, way[step].subarray(channel * area, (channel + 1) * area)),
    );
    const read = reading((await judge(catalog, image))[0]);
    const where = step === 0 ? "Noise" : step === steps ? "A latent of the prior" : "On the way";
    write(get("flow-words"), `${where}, decoded: read as ${read}`);
    announce(() => get("flow-words").textContent!);
  });
  const compute = latest(get("flow-failure"), async () => {
    const { ask, noise, w } = current();
    const way = await flow(model, normals(model.numbers, noise), ask, w);
    const latents = way.flatMap((one) => [...one]);
    const images = await decode(model, latents);
    shown = { way, images };
    film.forEach((canvas, i) => paint(canvas, images, i * PIXELS));
    await look();
  });
  follow(["ask", "noise", "w"], ({ ask, w }) => {
    mark(String(ask));
    guidance.value = String(w);
    write(get("guidance-words"), w.toFixed(2));
    void compute();
  });
  follow(["t"], () => void look());
  guidance.addEventListener("input", () => set({ w: Number(guidance.value) }));
  time.addEventListener("input", () => set({ t: Number(time.value) }));
  get("noise").addEventListener("click", () => set({ noise: current().noise + 1 }));
  startPlayer(get("run"), "t", [350, 1, steps], () => 0);
}

/** A channel of a latent: blue below 0, red above. */
function paintMap(canvas: HTMLCanvasElement, values: Float32Array): void {
  const data = new ImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    const size = Math.tanh(value / 2);
    const colour =
      size < 0 ? [255 + 215 * size, 255 + 155 * size, 255] : [255, 255 - 175 * size, 255 - 205 * size];
    data.data.set([...colour, 255], 4 * i);
  });
  canvas.getContext("2d")!.putImageData(data, 0, 0);
}
