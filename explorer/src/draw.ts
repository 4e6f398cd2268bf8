// The first part: an image, what each model makes of it, and what each draws by itself.
import { shapes, withTerms, type Catalog, type Model, type Terms } from "./catalog";
import { fail, get, make, reading } from "./dom";
import { drawLines, makeCanvas, normalise, pack, paint, unpack, unpackDigit, type Point } from "./image";
import { mse, normals } from "./maths";
import { decode, decodeCode, encode, judge, latest } from "./models";
import { current, follow, set, type State } from "./state";

const DRAWS = 12; // of each model
const WORDS: Record<Terms, string> = {
  plain: "A plain autoencoder: a latent is a point, and nothing says where points may lie. Decoded, N(0, I) means nothing.",
  kl: "A variational autoencoder: KL pays for what a latent tells. Of few numbers it draws a grey average of all digits that might be meant.",
  all: "With the perceptual and the adversarial term too: a digit again, from the same numbers. Its error is larger, since it has to guess.",
};

export const TERMS: Record<Terms, string> = { plain: "MSE alone", kl: "MSE + KL", all: "all four terms" };

/** The image that a state shows, in [-1, 1]; at the start's, where it shows none. */
export function imageOf(catalog: Catalog, x: string): Float32Array {
  const drawn = x.length > 1 ? unpack(x) : null;
  return drawn ?? unpackDigit(catalog.digits[/^\d$/.test(x) ? Number(x) : 7]);
}

export function startDraw(catalog: Catalog): void {
  startPad(catalog);
  startTerms();
  const kinds = shapes(catalog.models).filter(([model]) => !model.classes);
  const input = makeColumn("Your digit", "as models see it", ["read as"]);
  const look = latest(async (x: string) => {
    await shown(input, async () => {
      const image = imageOf(catalog, x);
      paint(input.canvas, image);
      input.values[0].textContent = reading((await judge(catalog, image))[0]);
    });
  });
  get("columns").append(input.figure);
  follow(({ x }, changed) => void (changed.has("x") && look(x)));
  for (const kind of kinds) {
    startColumn(catalog, kind);
    startStrip(kind);
  }
  get("again").addEventListener("click", () => set({ seed: current().seed + 1 }));
}

const numbersOf = ({ numbers }: Model) => `${numbers} numbers`;
const shapeOf = ({ grid, size }: Model) => `${size} on ${grid}×${grid}`;

interface Column {
  figure: HTMLElement;
  canvas: HTMLCanvasElement;
  about: HTMLElement;
  values: HTMLElement[];
  failure: HTMLElement;
}

function makeColumn(title: string, about: string, names: string[]): Column {
  const canvas = makeCanvas(title);
  const values = names.map(() => make("dd", {}, "…"));
  const list = make("dl", {}, ...names.flatMap((name, i) => [make("dt", {}, name), values[i]]));
  const failure = make("p", { className: "failure", hidden: true });
  failure.setAttribute("role", "alert");
  const words = make("p", { className: "quiet" }, about);
  const figure = make("figure", { className: "column waiting" }, make("h3", {}, title), words, canvas, list, failure);
  return { figure, canvas, about: words, values, failure };
}

/** Fill a column, or say in it what went wrong; the others go on. */
async function shown(column: Column, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    fail(column.failure);
  } catch (error) {
    for (const value of column.values) value.textContent = "–";
    fail(column.failure, error);
  }
  column.figure.classList.remove("waiting");
}

/** What a model makes of the image: reconstruction, error, rate, reading. */
function startColumn(catalog: Catalog, kind: Model[]): void {
  const column = makeColumn(numbersOf(kind[0]), shapeOf(kind[0]), ["MSE", "rate", "read as"]);
  column.figure.dataset.numbers = String(kind[0].numbers);
  get("columns").append(column.figure);
  const look = latest(async (x: string, terms: Terms) => {
    await shown(column, async () => {
      const [model, image] = [withTerms(kind, terms), imageOf(catalog, x)];
      const posterior = await encode(model, image);
      const drawn = await decodeCode(model, posterior.code);
      paint(column.canvas, drawn);
      column.about.textContent = model.terms === terms ? shapeOf(model) : TERMS[model.terms];
      const { kl } = posterior;
      const chances = (await judge(catalog, drawn))[0];
      const values = [mse(image, drawn).toFixed(4), kl === null ? "none" : `${kl.toFixed(kl < 20 ? 1 : 0)} nats`, reading(chances)];
      values.forEach((value, i) => (column.values[i].textContent = value));
      column.canvas.setAttribute("aria-label", `From ${numbersOf(model)}: read as ${values[2]}`);
    });
  });
  follow(({ x, terms }, changed) => void ((changed.has("x") || changed.has("terms")) && look(x, terms)));
}

/** What a model draws from N(0, I). */
function startStrip(kind: Model[]): void {
  const canvases = Array.from({ length: DRAWS }, (_, i) => makeCanvas(`Draw ${i + 1} from ${numbersOf(kind[0])}`));
  const strip = make("div", { className: "strip" }, ...canvases);
  const failure = make("p", { className: "failure", hidden: true });
  const title = make("h4", {});
  const place = make("div", {}, title, strip, failure);
  place.dataset.numbers = String(kind[0].numbers);
  get("draws").append(place);
  const look = latest(async (seed: number, terms: Terms) => {
    try {
      const model = withTerms(kind, terms);
      title.textContent = `${numbersOf(model)}, ${model.terms === terms ? shapeOf(model) : TERMS[model.terms]}`;
      const images = await decode(model, normals(DRAWS * model.numbers, seed));
      canvases.forEach((canvas, i) => paint(canvas, images, i * 784));
      fail(failure);
    } catch (error) {
      fail(failure, error);
    }
  });
  follow(({ seed, terms }, changed) => void ((changed.has("seed") || changed.has("terms")) && look(seed, terms)));
}

function startTerms(): void {
  const buttons = get("terms").querySelectorAll("input");
  for (const button of buttons) button.addEventListener("change", () => set({ terms: button.value as Terms }));
  follow(({ terms }) => {
    for (const button of buttons) button.checked = button.value === terms;
    get("terms-words").textContent = WORDS[terms];
  });
}

/** The pad, and the test digits that can be taken in place of a drawing. */
function startPad(catalog: Catalog): void {
  const pad = get<HTMLCanvasElement>("pad");
  const context = pad.getContext("2d")!;
  let lines: Point[][] = [];
  let own = ""; // the drawing in the address that these lines are
  let pen = false;
  const at = (event: PointerEvent): Point => {
    const { left, top, width } = pad.getBoundingClientRect();
    const factor = pad.width / width;
    return { x: (event.clientX - left) * factor, y: (event.clientY - top) * factor };
  };
  const redraw = () => {
    context.clearRect(0, 0, pad.width, pad.height);
    drawLines(context, lines, 22, "#fff");
    const image = normalise(lines);
    if (image) set({ x: (own = pack(image)) });
  };
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pad.setPointerCapture(event.pointerId);
    if (current().x !== own) lines = [];
    lines.push([at(event)]);
    pen = true;
    redraw();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!pen) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    lines.at(-1)!.push(...(steps.length ? steps : [event]).map(at));
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"] as const) pad.addEventListener(end, () => (pen = false));
  get("clear").addEventListener("click", () => {
    lines = [];
    context.clearRect(0, 0, pad.width, pad.height);
  });
  const buttons = catalog.digits.map((packed, digit) => {
    const canvas = makeCanvas("");
    paint(canvas, unpackDigit(packed));
    const button = make("button", { type: "button", ariaLabel: `Test digit ${digit}`, onclick: () => set({ x: String(digit) }) }, canvas);
    canvas.setAttribute("aria-hidden", "true");
    return button;
  });
  get("digits").append(...buttons);
  follow(({ x }: State, changed) => {
    if (!changed.has("x")) return;
    buttons.forEach((button, digit) => (button.ariaPressed = String(x === String(digit))));
    if (x === own) return; // the lines are there already
    const small = makeCanvas("");
    paint(small, imageOf(catalog, x));
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, pad.width, pad.height);
  });
}
