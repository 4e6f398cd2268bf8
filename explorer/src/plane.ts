// The plane of two numbers: what each place decodes to, and where test digits lie.
import { address, getJson, type Model, type Plane } from "./catalog";
import { get, make, write } from "./dom";
import { inUnits, type Posterior } from "./models";
import { once } from "./once";
import { current, set, type Move } from "./state";

// of the classes, as in the repository's GIFs (vae/machinery/animations.py)
const COLOURS = "#332288 #88ccee #44aa99 #117733 #999933 #ddcc77 #cc6677 #882255 #aa4499 #555555".split(" ");
const STEP = 0.1; // standard deviations of an arrow key
const LARGER = 10; // than it is, the ring of the posterior is drawn
const ARROWS: Record<string, number[]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
};

type Loaded = { about: Plane; picture: HTMLImageElement };

const loaded = once(async (files): Promise<Loaded> => {
  const [file, words] = files.split(" ");
  const picture = Object.assign(new Image(), { src: address(file) });
  try {
    const [about] = await Promise.all([getJson<Plane>(words), picture.decode()]);
    return { picture, about };
  } catch (error) {
    const reason = error instanceof Error ? error.message : error;
    throw new Error(`The decoded plane cannot be shown: a file of it is missing (${reason}).`);
  }
});

/** The decoded plane of a model. */
export const loadPlane = ({ file, about }: NonNullable<Model["plane"]>) => loaded(`${file} ${about.file}`);

/** Returns a function that draws a plane, the walker's place on it, and the posterior of her digit. */
export function startPlane(
  move: Move,
): (model: Model, plane: Loaded, z: number[], own: Posterior | null) => void {
  const canvas = get<HTMLCanvasElement>("plane");
  const dots = get<HTMLInputElement>("dots");
  let [shown, edges]: [Model | null, Plane["edges"]] = [null, []];
  COLOURS.forEach((colour, digit) => {
    const dot = make("i");
    dot.style.background = colour;
    get("legend").append(make("li", {}, dot, String(digit)));
  });
  dots.addEventListener("change", () => set({ dots: Number(dots.checked) }));

  const point = (event: PointerEvent) => {
    if (!shown) return;
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const shares = [(event.clientX - left) / width, 1 - (event.clientY - top) / height];
    const z = edges.map(([low, high], i) => low + Math.max(0, Math.min(1, shares[i])) * (high - low));
    const there = inUnits(shown, z);
    move(() => there);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    point(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) point(event);
  });
  canvas.addEventListener("keydown", (event) => {
    const way = ARROWS[event.key];
    if (!way) return;
    event.preventDefault();
    move((z) => z.map((value, i) => value + STEP * way[i]));
  });

  return (model, { about, picture }, z, own) => {
    [shown, edges] = [model, about.edges];
    dots.checked = current().dots === 1;
    const [context, side] = [canvas.getContext("2d")!, canvas.width];
    /** Where a latent lies in pixels, on the edge if it lies outside. */
    const place = (latent: ArrayLike<number>): [number, number] => {
      const shares = edges.map(([low, high], i) =>
        Math.max(0, Math.min(1, (latent[i] - low) / (high - low))),
      );
      return [shares[0] * side, (1 - shares[1]) * side];
    };
    /** A line in a colour, with black around it, to be seen on any ground. */
    const trace = (colour: string, width: number, path: () => void) => {
      for (const [ink, times] of [
        ["#000", 2],
        [colour, 1],
      ] as const) {
        Object.assign(context, { strokeStyle: ink, lineWidth: times * width });
        context.beginPath();
        path();
        context.stroke();
      }
    };
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, side, side);
    for (const [x, y, digit] of dots.checked ? about.dots : []) {
      context.fillStyle = COLOURS[digit];
      context.beginPath();
      context.arc(...place([x, y]), 4, 0, 2 * Math.PI);
      context.fill();
      Object.assign(context, { strokeStyle: "#fff", lineWidth: 0.7 }); // dark ones are on black, too
      context.stroke();
    }
    if (own) {
      const radii = edges.map(([low, high], i) => (2 * LARGER * own.std[i] * side) / (high - low));
      trace("#fff", 3, () =>
        context.ellipse(...place(own.z), Math.max(radii[0], 4), Math.max(radii[1], 4), 0, 0, 2 * Math.PI),
      );
    }
    const [x, y] = place(z);
    trace("#ffd33d", 5, () => {
      for (const [right, down] of Object.values(ARROWS)) {
        context.moveTo(x + 9 * right, y + 9 * down);
        context.lineTo(x + 26 * right, y + 26 * down);
      }
    });
    Object.assign(context, { font: "22px system-ui, sans-serif", lineWidth: 5, strokeStyle: "#000" });
    context.fillStyle = "#fff";
    for (const value of [-2, -1, 0, 1, 2].filter((one) =>
      edges.every(([low, high]) => low < one && one < high),
    ))
      for (const [axis, [right, up]] of [place([value, 0]), place([0, value])].entries()) {
        const at = axis ? ([8, up + 8] as const) : ([right - 8, side - 10] as const);
        context.strokeText(String(value), ...at);
        context.fillText(String(value), ...at);
      }
    const words = dots.checked ? "Dots are test digits, coloured by class. " : "";
    write(get("plane-words"), `Click or drag on the plane. ${words}${own ? ringWords(model, own) : ""}`);
  };
}

/** What the ring on the plane is. */
function ringWords(model: Model, { std }: Posterior): string {
  if (model.terms === "plain") return "The ring is your digit: a point, without a posterior.";
  const widths = [...std].map((value) => value.toFixed(3)).join(", ");
  return `The ring is the posterior of your digit at two standard deviations, drawn ${LARGER} times as large (σ: ${widths}).`;
}
