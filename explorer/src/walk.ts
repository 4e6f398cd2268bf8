// The second part: places in the latent space, and the images that are there.
import { address, getJson, shapeKey, shapes, withTerms, type Catalog, type Model, type Plane } from "./catalog";
import { choice, fail, get, make, reading } from "./dom";
import { imageOf, TERMS } from "./draw";
import { makeCanvas, paint } from "./image";
import { normals, slerp } from "./maths";
import { decode, encode, judge, latest, type Posterior } from "./models";
import { current, follow, set, START } from "./state";

// matplotlib's ten colours, as in the repository's pictures
export const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
const FARTHEST = 5; // standard deviations that a slider reaches
const STEP = 0.1; // of an arrow key
const MINE = "x"; // stands for the visitor's digit where one is chosen

/** Latents in standard deviations, and back: those of a plain autoencoder lie anywhere. */
const inUnits = (model: Model, z: ArrayLike<number>): number[] =>
  Array.from(z, (value, i) => (model.terms === "plain" ? (value - model.mean[i]) / model.std[i] : value));
const fromUnits = (model: Model, z: number[]): number[] =>
  z.map((value, i) => (model.terms === "plain" ? model.mean[i] + value * model.std[i] : value));
const near = (value: number) => Math.round(100 * Math.max(-FARTHEST, Math.min(FARTHEST, value))) / 100;

export function startWalk(catalog: Catalog): void {
  const kinds = shapes(catalog.models).filter(([model]) => model.grid === 1);
  const spaces = kinds.map((kind): [string, string] => [shapeKey(kind[0]), `${kind[0].numbers} numbers${kind[0].classes ? ", told the digit" : ""}`]);
  const mark = choice(get("spaces"), "space", spaces, (at) => set({ at, z: [] }));
  const model = () => {
    const { at, terms } = current();
    return withTerms(kinds.find((kind) => shapeKey(kind[0]) === at) ?? kinds[0], terms);
  };
  const failure = get("walk-failure");
  const sliders = startSliders();
  const plane = startPlane();
  const told = startTold();
  const trip = startTrip(catalog, model);
  let [mine, of]: [Posterior | null, string] = [null, ""]; // of the visitor's digit, in this model

  /** The posterior of the visitor's digit. A model that is told the digit is told what the judge reads. */
  async function posterior(one: Model, x: string): Promise<Posterior> {
    const key = `${one.name} ${x}`;
    if (mine && key === of) return mine;
    const image = imageOf(catalog, x);
    const chances = one.classes ? (await judge(catalog, image))[0] : [1];
    mine = await encode(one, image, chances.indexOf(Math.max(...chances)));
    of = key;
    return mine;
  }

  const look = latest(async () => {
    const begun = performance.now();
    const one = model();
    try {
      const { x, z: chosen, say } = current();
      const own = await posterior(one, x);
      const z = chosen.length === one.numbers ? chosen : inUnits(one, own.z);
      sliders(one, z);
      get("walk-terms").textContent = `Trained with ${TERMS[one.terms]}${one.terms === current().terms ? ", as chosen above" : ""}.`;
      plane(one, z, own);
      const at = fromUnits(one, z);
      const images = one.classes
        ? await decode(one, told.digits.flatMap(() => at), told.digits)
        : await decode(one, at);
      told.show(one, images, say);
      const shown = one.classes ? images.slice(say * 784, say * 784 + 784) : images;
      paint(get<HTMLCanvasElement>("here"), shown);
      performance.measure(`redraw ${one.name}`, { start: begun, end: performance.now() });
      const read = reading((await judge(catalog, shown))[0]);
      get("here-words").textContent = `Read as ${read}. Distance from 0: ${Math.hypot(...z).toFixed(1)}.`;
      fail(failure);
    } catch (error) {
      fail(failure, error);
    }
  });
  follow(({ at }, changed) => {
    if (changed.has("at")) {
      mark(spaces.some(([key]) => key === at) ? at : spaces[0][0]);
      trip.stop();
    }
    if (["at", "z", "x", "say", "terms"].some((key) => changed.has(key as keyof typeof START))) void look();
  });
  get("to-mine").addEventListener("click", () => set({ z: [] }));
  get("to-zero").addEventListener("click", () => set({ z: new Array(model().numbers).fill(0) }));
  get("to-random").addEventListener("click", () => {
    const draw = normals(model().numbers, Math.floor(Math.random() * 1e9));
    set({ z: Array.from(draw, near) });
  });
}

/** A slider for each number. Returns a function that shows a place on them. */
function startSliders(): (model: Model, z: number[]) => void {
  const place = get("sliders");
  let inputs: HTMLInputElement[] = [];
  const read = () => set({ z: inputs.map((input) => Number(input.value)) });
  return (model, z) => {
    if (inputs.length !== z.length) {
      inputs = z.map(() => make("input", { type: "range", min: String(-FARTHEST), max: String(FARTHEST), step: "0.01", oninput: read }));
      place.replaceChildren(...inputs.map((input, i) => make("label", {}, `z${i + 1}`, input, make("output"))));
    }
    get("sliders-words").textContent =
      model.terms === "plain" ? "In standard deviations of the latents of test digits." : "In standard deviations of N(0, I).";
    inputs.forEach((input, i) => {
      if (document.activeElement !== input || Number(input.value) !== z[i]) input.value = String(z[i]);
      (input.nextElementSibling as HTMLElement).textContent = z[i].toFixed(2);
    });
  };
}

/** The plane of two numbers. Returns a function that shows a place and a posterior on it. */
function startPlane(): (model: Model, z: number[], own: Posterior) => void {
  const canvas = get<HTMLCanvasElement>("plane");
  const context = canvas.getContext("2d")!;
  const loaded = new Map<string, { about: Plane; picture: HTMLImageElement }>();
  let [shown, last]: [Model | null, (() => void) | null] = [null, null];
  COLOURS.forEach((colour, digit) => {
    const dot = make("i");
    dot.style.background = colour;
    get("legend").append(make("li", {}, dot, String(digit)));
  });
  get("dots").addEventListener("change", () => last?.());

  async function load(model: Model): Promise<void> {
    const picture = new Image();
    picture.src = address(model.plane!.file);
    const [about] = await Promise.all([getJson<Plane>(model.plane!.about.file), picture.decode()]);
    loaded.set(model.name, { about, picture });
  }

  function draw(model: Model, z: number[], own: Posterior): void {
    const { about, picture } = loaded.get(model.name)!;
    const side = canvas.width;
    const [across, down] = about.edges;
    const place = (x: number, y: number) => [
      ((x - across[0]) / (across[1] - across[0])) * side,
      (1 - (y - down[0]) / (down[1] - down[0])) * side,
    ];
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, side, side);
    if (get<HTMLInputElement>("dots").checked) {
      for (const [x, y, digit] of about.dots) {
        context.fillStyle = COLOURS[digit];
        context.beginPath();
        context.arc(...(place(x, y) as [number, number]), 3.5, 0, 2 * Math.PI);
        context.fill();
      }
    }
    const [x, y] = place(own.z[0], own.z[1]);
    const widths = [across, down].map((edge, i) => Math.max((2 * own.std[i] * side) / (edge[1] - edge[0]), 9));
    for (const [colour, width] of [["#000", 6], ["#fff", 3]] as const) {
      Object.assign(context, { strokeStyle: colour, lineWidth: width });
      context.beginPath();
      context.ellipse(x, y, widths[0], widths[1], 0, 0, 2 * Math.PI);
      context.stroke();
    }
    const [here_x, here_y] = place(...(fromUnits(model, z) as [number, number]));
    for (const [colour, width] of [["#000", 9], ["#ffd33d", 5]] as const) {
      Object.assign(context, { strokeStyle: colour, lineWidth: width });
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(here_x + 9 * dx, here_y + 9 * dy);
        context.lineTo(here_x + 26 * dx, here_y + 26 * dy);
      }
      context.stroke();
    }
  }

  const go = (event: PointerEvent) => {
    const about = shown && loaded.get(shown.name)?.about;
    if (!shown || !about) return;
    const box = canvas.getBoundingClientRect();
    const shares = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    const z = about.edges.map(([low, high], i) => low + shares[i] * (high - low));
    set({ z: inUnits(shown, z).map(near) });
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    go(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) go(event);
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || !shown) return;
    event.preventDefault();
    const inputs = [...get("sliders").querySelectorAll("input")];
    set({ z: inputs.map((input, i) => near(Number(input.value) + STEP * way[i])) });
  });
  return (model, z, own) => {
    get("walk").querySelector(".walk")!.classList.toggle("no-map", !model.plane);
    shown = model.plane ? model : null;
    last = null;
    if (!model.plane) return;
    last = () => draw(model, z, own);
    if (loaded.has(model.name)) last();
    else load(model).then(() => last?.(), (error) => fail(get("walk-failure"), error));
  };
}

/** The ten digits that a model can be told, each with the style where the walker stands. */
function startTold() {
  const digits = Array.from({ length: 10 }, (_, digit) => digit);
  const canvases = digits.map((digit) => makeCanvas(`the same style as a ${digit}`));
  const mark = choice(get("told"), "told", digits.map((digit) => [String(digit), canvases[digit]]), (digit) => set({ say: Number(digit) }));
  return {
    digits,
    show(model: Model, images: Float32Array, say: number): void {
      get("told").hidden = !model.classes;
      if (model.classes) canvases.forEach((canvas, digit) => paint(canvas, images, digit * 784));
      mark(String(say));
    },
  };
}

/** The walk from one image's latent to another's. */
function startTrip(catalog: Catalog, model: () => Model) {
  const [from, to] = [get<HTMLSelectElement>("from"), get<HTMLSelectElement>("to")];
  const along = get<HTMLInputElement>("along");
  const button = get("play");
  for (const select of [from, to]) {
    const names = [[MINE, "my digit"], ...catalog.digits.map((_, digit) => [String(digit), `test digit ${digit}`])];
    select.append(...names.map(([value, name]) => make("option", { value }, name)));
  }
  to.value = "2";
  let timer = 0;
  const end = async (choice: string): Promise<number[]> => {
    const one = model();
    const image = imageOf(catalog, choice === MINE ? current().x : choice);
    const chances = one.classes ? (await judge(catalog, image))[0] : [1];
    return inUnits(one, (await encode(one, image, chances.indexOf(Math.max(...chances)))).z);
  };
  const go = latest(async () => {
    try {
      const [a, b] = [await end(from.value), await end(to.value)];
      const share = Number(along.value);
      const plain = model().terms === "plain"; // whose latents lie on no sphere
      const z = plain ? a.map((value, i) => value + share * (b[i] - value)) : slerp(a, b, share);
      set({ z: z.map(near) });
    } catch (error) {
      fail(get("walk-failure"), error);
    }
  });
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  along.addEventListener("input", () => (stop(), void go()));
  for (const select of [from, to]) select.addEventListener("change", () => void go());
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(along.value) >= 1) along.value = "0";
    button.textContent = "Stop";
    timer = window.setInterval(() => {
      along.value = String(Math.min(1, Number(along.value) + 0.02));
      void go();
      if (Number(along.value) >= 1) stop();
    }, 60);
  });
  return { stop };
}
