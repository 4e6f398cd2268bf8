// The first part: an image, what each model makes of it, and what each draws by itself.
import { shapes, withTerms, type Catalog, type Model, type Terms } from "./catalog";
import { announce, choice, fail, get, latest, make, makeFailure, reading, write } from "./dom";
import { drawLines, makeCanvas, normalise, pack, paint, unpack, unpackDigit, type Point } from "./image";
import { mse, normals, PIXELS } from "./maths";
import { decode, decodeCode, encode, expect, judge } from "./models";
import { current, follow, NOTHING, set, type State } from "./state";

const DRAWS = 12; // of each model
const BLACK = new Float32Array(PIXELS).fill(-1);
export const TERMS: Record<Terms, string> = { plain: "MSE alone", kl: "MSE + KL", all: "all four terms" };
const WORDS: Record<Terms, string> = {
  plain:
    "A plain autoencoder: a latent is a point, and nothing says where points may lie. Decoded, N(0, I) means nothing.",
  kl: "A variational autoencoder: KL pays for what a latent tells. Of few numbers it draws a grey average of all digits that might be meant.",
  all: "With the perceptual and the adversarial term too: a digit again, from the same numbers. Its error is larger, since it has to guess.",
};

/** The image of a state, in [-1, 1]: a test digit or a drawing, or null where nothing is drawn. */
export function imageOf(catalog: Catalog, x: string): Float32Array | null {
  return /^\d$/.test(x) ? unpackDigit(catalog.digits[Number(x)]) : unpack(x);
}

export function startDraw(catalog: Catalog): void {
  startPad(catalog);
  const first = shapes(catalog.models).filter(([model]) => !model.classes);
  const { terms } = current();
  expect([catalog.judge, ...first.flatMap((kind) => filesOf(withTerms(kind, terms)))]);
  startTerms();
  startInput(catalog);
  for (const kind of first) {
    startColumn(catalog, kind);
    startStrip(kind);
  }
  get("again").addEventListener("click", () => set({ seed: current().seed + 1 }));
}

const filesOf = ({ files }: Model) => [files.encoder, files.decoder, files.couplings];
const numbersOf = ({ numbers }: Model) => `${numbers} numbers`;
const shapeOf = ({ grid, size }: Model) =>
  grid === 1 ? "one vector" : `${size} channels of ${grid}×${grid}`;
/** Below a title: the latent's shape, or that there is no model with the terms that were chosen. */
const captionOf = (model: Model, terms: Terms) =>
  model.terms === terms ? shapeOf(model) : `only ${TERMS[model.terms]}`;

const wide = matchMedia("(min-width: 40.01em)"); // on a phone figures are under a tap

/** A column of the first part. `work` makes its image and its values when one of these keys changes. */
function addColumn(
  title: string,
  caption: string,
  names: string[],
  keys: (keyof State)[],
  work: (state: State, caption: HTMLElement) => Promise<[Float32Array, string[]]>,
): HTMLElement {
  const [canvas, words] = [makeCanvas(title), make("p", { className: "quiet" }, caption)];
  const values = names.map(() => make("dd", {}, "…"));
  const list = make("dl", {}, ...names.flatMap((name, i) => [make("dt", {}, name), values[i]]));
  const figures = make("details", { open: wide.matches }, make("summary", {}, "figures"), list);
  wide.addEventListener("change", () => (figures.open = wide.matches));
  const [heading, failure] = [make("h3", {}, title), makeFailure()];
  const column = make("figure", { className: "column waiting" }, heading, words, canvas, figures, failure);
  get("columns").append(column);
  const look = latest(failure, async (state: State) => {
    let found: string[] = [];
    try {
      const [image, made] = await work(state, words);
      paint(canvas, image);
      found = made;
    } finally {
      values.forEach((place, i) => write(place, found[i] ?? "–"));
      column.classList.remove("waiting");
      announce(readings);
    }
  });
  follow(keys, (state) => void look(state));
  return column;
}

/** What is read in each column, in words. */
const readings = (): string =>
  [...document.querySelectorAll(".column")]
    .map((one) => [one.querySelector("h3")!, one.querySelector("dd:last-of-type")!])
    .map(([title, read]) => `${title.textContent}: read as ${read.textContent}`)
    .join("; ");

/** The image as the models see it. */
function startInput(catalog: Catalog): void {
  addColumn("Your digit", "as models see it", ["read as"], ["x"], async ({ x }) => {
    const image = imageOf(catalog, x);
    return image ? [image, [reading((await judge(catalog, image))[0])]] : [BLACK, []];
  });
}

/** What a model makes of the image: reconstruction, error, rate, reading. */
function startColumn(catalog: Catalog, kind: Model[]): void {
  const [title, names] = [numbersOf(kind[0]), ["MSE", "rate", "read as"]];
  const column = addColumn(title, shapeOf(kind[0]), names, ["x", "terms"], async ({ x, terms }, caption) => {
    const [model, image] = [withTerms(kind, terms), imageOf(catalog, x)];
    write(caption, captionOf(model, terms));
    if (!image) return [BLACK, []];
    const { code, kl } = await encode(model, image);
    const drawn = await decodeCode(model, code);
    const read = reading((await judge(catalog, drawn))[0]);
    return [drawn, [mse(image, drawn).toPrecision(2), rateWords(kl, model), read]];
  });
  column.dataset.numbers = String(kind[0].numbers);
}

/** A rate, and a hint where it is far from that of test digits. */
function rateWords(kl: number | null, { rate }: Model): string {
  if (kl === null) return "none";
  const far = rate && kl > 2 * rate ? `, of a digit ${rate.toFixed(0)}: an unusual image` : "";
  return `${kl.toFixed(kl < 20 ? 1 : 0)} nats${far}`;
}

/** What a model draws from N(0, I). */
function startStrip(kind: Model[]): void {
  const canvases = Array.from({ length: DRAWS }, (_, i) =>
    makeCanvas(`Draw ${i + 1} from ${numbersOf(kind[0])}`),
  );
  const [caption, failure] = [make("p", { className: "quiet" }), makeFailure()];
  const strip = make("div", { className: "strip" }, ...canvases);
  get("draws").append(make("div", {}, make("h4", {}, numbersOf(kind[0])), caption, strip, failure));
  const look = latest(failure, async ({ seed, terms }: State) => {
    const model = withTerms(kind, terms);
    write(caption, captionOf(model, terms));
    const images = await decode(model, normals(DRAWS * model.numbers, seed));
    canvases.forEach((canvas, i) => paint(canvas, images, i * PIXELS));
  });
  follow(["seed", "terms"], (state) => void look(state));
}

function startTerms(): void {
  const terms = Object.entries(TERMS);
  const mark = choice(get("terms"), terms, (chosen) => set({ terms: chosen as Terms }));
  get("terms").append(get("terms-words"));
  follow(["terms"], ({ terms }) => {
    mark(terms);
    write(get("terms-words"), WORDS[terms]);
  });
}

/** What is on the pad: lines, above a drawing of which there are no lines; x: what that is in the address. */
type Sheet = { x: string; base: string; lines: Point[][] };

/** The pad, and the test digits that can be taken in place of a drawing. */
function startPad(catalog: Catalog): void {
  const pad = get<HTMLCanvasElement>("pad");
  const context = pad.getContext("2d")!;
  const [failure, undo] = [makeFailure(), get<HTMLButtonElement>("undo")];
  get("digits").before(failure);
  let sheet: Sheet = { x: "", base: "", lines: [] };
  let pen: number | null = null; // the pointer that draws
  const past: Sheet[] = [];

  const place = (event: PointerEvent): Point => {
    const { left, top, width } = pad.getBoundingClientRect();
    const inside = (value: number) => Math.max(0, Math.min(pad.width, (value * pad.width) / width));
    return { x: inside(event.clientX - left), y: inside(event.clientY - top) };
  };
  /** Paint a sheet, and let `x` be what it shows. */
  const show = (next: Sheet) => {
    sheet = next;
    const { x, base, lines } = sheet;
    const [small, under] = [makeCanvas(""), imageOf(catalog, lines.length ? base : x)];
    paint(small, under ?? BLACK);
    context.imageSmoothingEnabled = !!base;
    context.drawImage(small, 0, 0, pad.width, pad.height);
    drawLines(context, lines, 22);
    undo.disabled = !past.length;
    set({ x });
  };
  /** Show the lines as they are now, and what the models see of them. */
  const redraw = (lines: Point[][]) => {
    try {
      const image = normalise(lines, pad.width, sheet.base ? imageOf(catalog, sheet.base) : null);
      show({ ...sheet, lines, x: pack(image!) });
      fail(failure);
    } catch (error) {
      fail(failure, error);
    }
  };
  const keep = () => void (past.push(sheet) > 100 && past.shift());
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pen !== null) return; // a second finger draws nothing
    pen = event.pointerId;
    pad.setPointerCapture(pen);
    keep();
    if (/^\d$/.test(sheet.x)) sheet = { ...sheet, lines: [], base: "" }; // a test digit makes room
    redraw([...sheet.lines, [place(event)]]);
  });
  pad.addEventListener("pointermove", (event) => {
    const line = sheet.lines.at(-1);
    if (event.pointerId !== pen || !line) return; // of an image that came meanwhile
    const steps = event.getCoalescedEvents?.() ?? [];
    const more = (steps.length ? steps : [event]).map(place);
    redraw([...sheet.lines.slice(0, -1), [...line, ...more]]);
  });
  for (const end of ["pointerup", "pointercancel"] as const) {
    pad.addEventListener(end, (event) => {
      if (event.pointerId === pen) pen = null;
    });
  }
  undo.addEventListener("click", () => show(past.pop()!));
  get("clear").addEventListener("click", () => set({ x: NOTHING }));
  const buttons = catalog.digits.map((packed, digit) => {
    const canvas = Object.assign(makeCanvas(""), { ariaHidden: "true" });
    paint(canvas, unpackDigit(packed));
    const onclick = () => set({ x: String(digit) });
    return make("button", { type: "button", ariaLabel: `Test digit ${digit}`, onclick }, canvas);
  });
  get("digits").append(...buttons);
  follow(["x"], ({ x }) => {
    buttons.forEach((button, digit) => (button.ariaPressed = String(x === String(digit))));
    if (x === sheet.x) return; // it is on the pad already
    if (sheet.x) keep();
    fail(failure);
    show({ x, base: /^\d$/.test(x) || !imageOf(catalog, x) ? "" : x, lines: [] });
  });
}
