// What the page shows stands in its address, behind the #, so that a view can be kept and sent.
import type { Terms } from "./catalog";

export interface State {
  part: string; // draw, walk or flow: where the page is scrolled to
  x: string; // the image: a test digit, "0" to "9", a drawing as `image.ts` packs it, or NOTHING
  terms: Terms;
  seed: number; // of the draws from N(0, I)
  at: string; // the latent that is walked in, as `shapeKey` names it
  z: number[]; // where the walker stands, in standard deviations; empty: see `along`
  from: string; // the ends of a way: a test digit, or MINE
  to: string;
  along: number; // how far the walker is on it, in percent; -1: nowhere, but at the image's latent
  say: number; // the digit that a model is told; -1: what the judge reads
  dots: number; // 1: test digits are shown on the plane
  ask: number; // the digit asked of the prior
  noise: number; // the seed of its noise
  w: number; // its guidance
  t: number; // the step that is looked at; -1: the last
}

/** Go to what `how` makes of the place where the walker stands, in standard deviations. */
export type Move = (how: (z: number[]) => number[]) => void;

export const NOTHING = "-"; // is drawn
export const MINE = "x"; // stands for the visitor's digit where one is chosen
export const START: State = {
  part: "draw",
  x: "7",
  terms: "all",
  seed: 1,
  at: "2",
  z: [],
  from: MINE,
  to: "2",
  along: -1,
  say: -1,
  dots: 1,
  ask: 3,
  noise: 1,
  w: 1.25,
  t: -1,
};
const FARTHEST = 99; // of z
const MOST = { seed: 1e9, noise: 1e9, along: 100, say: 9, dots: 1, ask: 9, t: 100 };

/** The state in a hash; what is missing or makes no sense there is as at the start. */
export function parse(hash: string): State {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const read = (key: keyof State, pattern: RegExp): string | undefined =>
    pattern.exec(given.get(key) ?? "")?.[0];
  const whole = (key: keyof typeof MOST): number => {
    const text = read(key, /^\d{1,9}$/);
    return text !== undefined && Number(text) <= MOST[key] ? Number(text) : START[key];
  };
  const z = (given.get("z") || "x").split(",").map(Number);
  const w = Number(read("w", /^[\d.]+$/) ?? START.w);
  return {
    part: read("part", /^(draw|walk|flow)$/) ?? START.part,
    x: read("x", /^[\w-]{1,560}$/) ?? START.x,
    terms: (read("terms", /^(plain|kl|all)$/) as Terms | undefined) ?? START.terms,
    at: read("at", /^\d{1,4}(-told)?$/) ?? START.at,
    z: z.every((value) => Math.abs(value) <= FARTHEST) ? z : [], // of what is no number, this is false
    from: read("from", /^[\dx]$/) ?? START.from,
    to: read("to", /^[\dx]$/) ?? START.to,
    seed: whole("seed"),
    noise: whole("noise"),
    along: whole("along"),
    say: whole("say"),
    dots: whole("dots"),
    ask: whole("ask"),
    t: whole("t"),
    w: w >= 0 && w <= 4 ? w : START.w,
  };
}

const text = (value: State[keyof State]): string =>
  Array.isArray(value) ? value.map((one) => Number(one.toFixed(3))).join(",") : String(value);

/** The hash of a state: what is not as at the start. */
export function format(state: State): string {
  const keys = (Object.keys(state) as (keyof State)[]).filter((key) => text(state[key]) !== text(START[key]));
  return `#${keys.map((key) => `${key}=${text(state[key])}`).join("&")}`;
}

type Listener = (state: State, changed: Set<keyof State>) => void;
const listeners: Listener[] = [];
let state = parse(location.hash);
let written = 0;

export const current = (): State => state;

/** Call `listener` now and after every change. */
export function follow(listener: Listener): void {
  listeners.push(listener);
  listener(state, new Set(Object.keys(state) as (keyof State)[]));
}

export function set(change: Partial<State>): void {
  const next = { ...state, ...change };
  const keys = (Object.keys(next) as (keyof State)[]).filter(
    (key) => String(next[key]) !== String(state[key]),
  );
  if (!keys.length) return;
  state = next;
  clearTimeout(written); // browsers refuse hundreds of addresses in a few seconds
  written = window.setTimeout(() => history.replaceState(null, "", format(state)), 150);
  for (const listener of listeners) listener(state, new Set(keys));
}

window.addEventListener("hashchange", () => set(parse(location.hash)));
