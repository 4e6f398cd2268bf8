// The third part: noise becomes a latent becomes a digit.
import type { Catalog } from "./catalog";
import { announce, choice, fail, get, make, player, reading, write } from "./dom";
import { makeCanvas, paint } from "./image";
import { normals, PIXELS } from "./maths";
import { decode, flow, judge, latest } from "./models";
import { current, follow, set, type State } from "./state";

export function startFlow(catalog: Catalog): void {
  const model = catalog.models.find((one) => one.prior);
  if (!model) return fail(get("flow-failure"), "None of the models here has a learned prior.");
  const [steps, area] = [model.prior!.steps, model.grid ** 2];
  const mark = choice(
    get("wanted"),
    "wanted",
    catalog.digits.map((_, digit) => [String(digit), String(digit)]),
    (digit) => set({ ask: Number(digit) }),
  );
  const [time, guidance] = [get<HTMLInputElement>("time"), get<HTMLInputElement>("guidance")];
  time.max = String(steps);
  const film = Array.from({ length: steps + 1 }, (_, step) => {
    const canvas = makeCanvas(`at time ${(step / steps).toFixed(2)}`);
    return {
      canvas,
      button: make(
        "button",
        { type: "button", onclick: () => set({ t: step }) },
        canvas,
        (step / steps).toFixed(2),
      ),
    };
  });
  get("film").append(...film.map(({ button }) => button));
  const maps = Array.from({ length: model.size }, (_, channel) => {
    const canvas = Object.assign(makeCanvas(`channel ${channel + 1} of the latent`), {
      width: model.grid,
      height: model.grid,
    });
    get("maps").append(
      make("figure", {}, canvas, make("figcaption", { className: "quiet" }, `channel ${channel + 1}`)),
    );
    return canvas;
  });
  let shown: { way: Float32Array[]; images: Float32Array } | null = null;
  const failure = get("flow-failure");

  /** Show the step that the slider is at. */
  const look = latest(async () => {
    const { t } = current();
    const step = t < 0 || t > steps ? steps : t;
    time.value = String(step);
    write(get("time-words"), (step / steps).toFixed(2));
    film.forEach(({ button }, i) => (button.ariaPressed = String(i === step)));
    if (!shown) return;
    const { way, images } = shown;
    const image = images.slice(step * PIXELS, (step + 1) * PIXELS);
    paint(get<HTMLCanvasElement>("now"), image);
    maps.forEach((canvas, channel) =>
      paintMap(canvas, way[step].subarray(channel * area, (channel + 1) * area)),
    );
    try {
      const read = reading((await judge(catalog, image))[0]);
      write(
        get("flow-words"),
        `${step === 0 ? "Noise" : step === steps ? "A latent of the prior" : "On the way"}, decoded: read as ${read}`,
      );
      announce(() => get("flow-words").textContent!);
      fail(failure);
    } catch (error) {
      fail(failure, error);
    }
  });
  const compute = latest(async () => {
    try {
      const { ask, noise, w } = current();
      const way = await flow(model, normals(model.numbers, noise), ask, w);
      const images = await decode(
        model,
        way.flatMap((one) => [...one]),
      );
      shown = { way, images };
      film.forEach(({ canvas }, i) => paint(canvas, images, i * PIXELS));
      await look();
    } catch (error) {
      fail(failure, error, () => void compute());
    }
  });
  follow(({ ask, w }, changed) => {
    mark(String(ask));
    guidance.value = String(w);
    write(get("guidance-words"), w.toFixed(2));
    if (["ask", "noise", "w"].some((key) => changed.has(key as keyof State))) void compute();
    if (changed.has("t")) void look();
  });
  guidance.addEventListener("input", () => set({ w: Number(guidance.value) }));
  time.addEventListener("input", () => set({ t: Number(time.value) }));
  get("noise").addEventListener("click", () => set({ noise: current().noise + 1 }));
  startPlaying(steps);
}

function startPlaying(steps: number): void {
  let expected = -1; // where playing has led; anywhere else the visitor has
  const go = (t: number) => set({ t: (expected = t) });
  const stop = player(
    get("run"),
    350,
    () => go(0),
    () => {
      go(expected + 1);
      return expected < steps;
    },
  );
  follow(({ t }) => t !== expected && stop());
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
