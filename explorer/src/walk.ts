// The second part: places in the latent space, and the images that are there.
import { shapeKey, shapes, withTerms, type Catalog, type Model } from "./catalog";
import { announce, choice, fail, get, latest, make, reading, startPlayer, write } from "./dom";
import { imageOf, TERMS } from "./draw";
import { makeCanvas, paint } from "./image";
import { normals, PIXELS, slerp } from "./maths";
import { decode, encode, fromUnits, inUnits, judge, read, type Posterior } from "./models";
import { once } from "./once";
import { loadPlane, startPlane } from "./plane";
import { current, follow, MINE, NOTHING, set, type Move, type State } from "./state";

const REACH = 4; // standard deviations that a slider reaches, or more where the walker is farther out
const DIGITS = Array.from({ length: 10 }, (_, digit) => digit);

export function startWalk(catalog: Catalog): void {
  const kinds = shapes(catalog.models).filter(([model]) => model.grid === 1);
  const spaces = kinds.map(([model]): [string, string] => [
    shapeKey(model),
    `${model.numbers} numbers${model.classes ? ", conditional" : ""}`,
  ]);
  const mark = choice(get("spaces"), spaces, (at) => set({ at, z: [] }));
  const kindOf = (at: string) => kinds.find(([model]) => shapeKey(model) === at) ?? kinds[0];
  /** The posterior of "model image", and the digit that the model was told: what the judge reads; null of no image. */
  const posterior = once(async (key): Promise<[Posterior, number] | null> => {
    const [name, x] = key.split(" ");
    const [model, image] = [catalog.models.find((one) => one.name === name)!, imageOf(catalog, x)];
    if (!image) return null;
    const digit = model.classes ? await read(catalog, image) : 0;
    return [await encode(model, image, digit), digit];
  });

  /** Where the walker stands, in standard deviations. */
  async function place(model: Model, state: State): Promise<number[]> {
    if (state.z.length === model.numbers) return state.z;
    const end = async (x: string) => {
      const found = await posterior(`${model.name} ${x === MINE ? state.x : x}`);
      return found ? inUnits(model, found[0].z) : new Array<number>(model.numbers).fill(0);
    };
    if (state.along < 0) return end(MINE);
    const [a, b, share] = [await end(state.from), await end(state.to), state.along / 100];
    return model.terms === "plain" ? a.map((value, i) => value + share * (b[i] - value)) : slerp(a, b, share);
  }

  let here: number[] = []; // where the walker was last seen

  /** Move, from where the walker is seen or has been sent. */
  const move: Move = (how) => {
    const { z, at } = current();
    const { numbers } = kindOf(at)[0];
    const there = [z, here].find((one) => one.length === numbers) ?? new Array<number>(numbers).fill(0);
    set({ z: how(there).map((value) => Math.round(1000 * value) / 1000), along: -1 });
  };
  const [sliders, plane, told] = [startSliders(move), startPlane(move), startTold()];

  const look = latest(get("walk-failure"), async () => {
    const state = current();
    const model = withTerms(kindOf(state.at), state.terms);
    const own = await posterior(`${model.name} ${state.x}`);
    here = await place(model, state);
    const z = fromUnits(model, here);
    const say = state.say >= 0 ? state.say : (own?.[1] ?? 0);
    const all = model.classes ? await decode(model, Array(10).fill(z).flat(), DIGITS) : null;
    const image = all ? all.slice(say * PIXELS, (say + 1) * PIXELS) : await decode(model, z);
    sliders(here);
    told(all, say);
    paint(get<HTMLCanvasElement>("here"), image);
    describe(model, here, reading((await judge(catalog, image))[0]));
    get("map").hidden = !model.plane;
    if (model.plane) plane(model, await loadPlane(model.plane), z, own?.[0] ?? null);
  });
  follow(["at", "terms", "x", "z", "from", "to", "along", "say", "dots"], (state) => {
    mark(shapeKey(kindOf(state.at)[0]));
    void look();
  });
  get("to-mine").addEventListener("click", () => {
    set({ z: [], along: -1, say: -1 });
    if (current().x === NOTHING) fail(get("walk-failure"), "There is no digit of yours: draw one above.");
  });
  get("to-zero").addEventListener("click", () => move((z) => z.map(() => 0)));
  get("to-random").addEventListener("click", () => move((z) => [...normals(z.length, Date.now())]));
  startWay(catalog);
}

/** Say in words where the walker stands, `z` in standard deviations, and what the judge reads there. */
function describe(model: Model, z: number[], read: string): void {
  const plain = model.terms === "plain";
  const chosen = model.terms === current().terms ? "as" : "whatever is";
  write(get("walk-terms"), `Trained with ${TERMS[model.terms]}, ${chosen} chosen above.`);
  write(get("sliders-words"), `In standard deviations of ${plain ? "test digits' latents" : "N(0, I)"}.`);
  const straight = "In a straight line: the latents of a plain autoencoder lie on no sphere.";
  const arc =
    "Along the sphere on which N(0, I) has its mass, so that the stops are about as likely as the ends.";
  write(get("way-words"), plain ? straight : arc);
  const usual = `a draw of N(0, I) has about ${Math.sqrt(z.length).toFixed(1)}`;
  const far = plain ? "" : ` Distance from 0: ${Math.hypot(...z).toFixed(1)}; ${usual}.`;
  write(get("here-words"), `Read as ${read}.${far}`);
  announce(() => get("here-words").textContent!);
}

/** A slider for each number. Returns a function that shows a place on them. */
function startSliders(move: Move): (z: number[]) => void {
  const place = get("sliders");
  let inputs: HTMLInputElement[] = [];
  place.addEventListener("input", ({ target }) => {
    const moved = inputs.indexOf(target as HTMLInputElement);
    move((z) => z.map((value, i) => (i === moved ? Number(inputs[moved].value) : value)));
  });
  return (z) => {
    if (inputs.length !== z.length) {
      inputs = z.map(() => make("input", { type: "range", step: "0.01" }));
      place.replaceChildren(
        ...inputs.map((input, i) => {
          const value = make("span", { ariaHidden: "true" }); // a slider says its value itself
          return make("label", {}, make("span", {}, `z${i + 1}`), input, value);
        }),
      );
    }
    inputs.forEach((input, i) => {
      const reach = String(Math.max(REACH, Math.ceil(Math.abs(z[i]))));
      Object.assign(input, { min: `-${reach}`, max: reach, value: String(z[i]) });
      write(input.nextElementSibling as HTMLElement, z[i].toFixed(2));
    });
  };
}

/** The ten digits that a model can be told, each with the style where the walker stands. */
function startTold(): (images: Float32Array | null, say: number) => void {
  const canvases = DIGITS.map((digit) => makeCanvas(`the same style as a ${digit}`));
  const digits = canvases.map((canvas, digit): [string, Node] => [String(digit), canvas]);
  const mark = choice(get("told"), digits, (digit) => set({ say: Number(digit) }));
  return (images, say) => {
    get("told").hidden = images === null; // of a model that is told nothing
    if (images) canvases.forEach((canvas, digit) => paint(canvas, images, digit * PIXELS));
    mark(String(say));
  };
}

/** The controls of the way from one image's latent to another's. */
function startWay(catalog: Catalog): void {
  const ends = (["from", "to"] as const).map((name) => [name, get<HTMLSelectElement>(name)] as const);
  const along = get<HTMLInputElement>("along");
  for (const [name, select] of ends) {
    const options = [
      [MINE, "my digit"],
      ...DIGITS.slice(0, catalog.digits.length).map((digit) => [String(digit), `test digit ${digit}`]),
    ];
    select.append(...options.map(([value, words]) => make("option", { value }, words)));
    select.addEventListener("change", () =>
      set({ [name]: select.value, z: [], along: Math.max(current().along, 0) }),
    );
  }
  startPlayer(get("play"), "along", [60, 2, 100], () => Math.max(current().along % 100, 0), { z: [] });
  along.addEventListener("input", () => set({ z: [], along: Number(along.value) }));
  follow(["from", "to", "along"], (state) => {
    for (const [name, select] of ends) select.value = state[name];
    along.value = String(Math.max(state.along, 0));
    write(get("along-words"), `${along.value} %`);
  });
}
