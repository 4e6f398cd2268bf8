// The third part: noise becomes a latent becomes a digit.
import type { Catalog } from "./catalog";
import { choice, fail, get, make, reading } from "./dom";
import { makeCanvas, paint } from "./image";
import { normals } from "./maths";
import { decode, flow, judge, latest } from "./models";
import { current, follow, set } from "./state";

export function startFlow(catalog: Catalog): void {
  const model = catalog.models.find((one) => one.prior);
  if (!model) return fail(get("flow-failure"), "None of the models here has a learned prior.");
  const steps = model.prior!.steps;
  const mark = choice(get("wanted"), "wanted", catalog.digits.map((_, digit) => [String(digit), String(digit)]), (digit) => set({ ask: Number(digit) }));
  const [time, guidance] = [get<HTMLInputElement>("time"), get<HTMLInputElement>("guidance")];
  time.max = String(steps);
  const film = Array.from({ length: steps + 1 }, (_, step) => {
    const canvas = makeCanvas(`at time ${(step / steps).toFixed(2)}`);
    return { canvas, button: make("button", { type: "button", onclick: () => set({ t: step }) }, canvas, (step / steps).toFixed(2)) };
  });
  get("film").append(...film.map(({ button }) => button));
  const maps = Array.from({ length: model.size }, (_, channel) => {
    const canvas = Object.assign(makeCanvas(`channel ${channel + 1} of the latent`), { width: model.grid, height: model.grid });
    get("maps").append(make("figure", {}, canvas, make("figcaption", {}, `channel ${channel + 1}`)));
    return canvas;
  });
  let [way, images]: [Float32Array[], Float32Array] = [[], new Float32Array()];

  /** Show the step that the slider is at. */
  const look = latest(async () => {
    const { t } = current();
    const step = t < 0 || t > steps ? steps : t;
    time.value = String(step);
    get("time-words").textContent = (step / steps).toFixed(2);
    film.forEach(({ button }, i) => (button.ariaPressed = String(i === step)));
    if (!way.length) return;
    paint(get<HTMLCanvasElement>("now"), images, step * 784);
    maps.forEach((canvas, channel) => paintMap(canvas, way[step].subarray(channel * model.grid ** 2, (channel + 1) * model.grid ** 2)));
    const chances = await judge(catalog, images.slice(step * 784, (step + 1) * 784));
    get("flow-words").textContent = `${step === 0 ? "Noise" : step === steps ? "A latent of the prior" : "On the way"}, decoded: read as ${reading(chances[0])}`;
  });
  const compute = latest(async () => {
    try {
      const { ask, noise, w } = current();
      way = await flow(model, normals(model.numbers, noise), ask, w);
      images = await decode(model, way.flatMap((one) => [...one]));
      film.forEach(({ canvas }, i) => paint(canvas, images, i * 784));
      fail(get("flow-failure"));
      await look();
    } catch (error) {
      fail(get("flow-failure"), error);
    }
  });
  follow(({ ask, w }, changed) => {
    mark(String(ask));
    guidance.value = String(w);
    get("guidance-words").textContent = w.toFixed(2);
    if (changed.has("ask") || changed.has("noise") || changed.has("w")) void compute();
    else if (changed.has("t")) void look();
  });
  guidance.addEventListener("input", () => set({ w: Number(guidance.value) }));
  time.addEventListener("input", () => set({ t: Number(time.value) }));
  get("noise").addEventListener("click", () => set({ noise: current().noise + 1 }));
  startPlaying(steps);
}

function startPlaying(steps: number): void {
  const button = get("run");
  let timer = 0;
  button.addEventListener("click", () => {
    clearInterval(timer);
    let step = 0;
    set({ t: 0 });
    timer = window.setInterval(() => {
      set({ t: ++step });
      if (step >= steps) clearInterval(timer);
    }, 350);
  });
}

/** A channel of a latent: blue below 0, red above. */
function paintMap(canvas: HTMLCanvasElement, values: Float32Array): void {
  const data = new ImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    const size = Math.tanh(value / 2);
    const colour = size < 0 ? [255 + 215 * size, 255 + 155 * size, 255] : [255, 255 - 175 * size, 255 - 205 * size];
    data.data.set([...colour, 255], 4 * i);
  });
  canvas.getContext("2d")!.putImageData(data, 0, 0);
}
