// What the page shows stands in its address, behind the #, so that a view can be kept and sent.
import type { Terms } from "./catalog";

export interface State {
  part: string; // draw, walk or flow: where the page is scrolled to
  x: string; // the image: a test digit, "0" to "9", or a drawing as `image.ts` packs it
  terms: Terms;
  seed: number; // of the draws from N(0, I)
  at: string; // the latent that is walked in, as `shapeKey` names it
  z: number[]; // where the walker stands, in standard deviations; empty: at the image's latent
  say: number; // the digit that a model is told
  ask: number; // the digit asked of the prior
  noise: number; // the seed of its noise
  w: number; // its guidance
  t: number; // the step that is looked at; -1: the last
}

export const START: State = { part: "draw", x: "7", terms: "all", seed: 1, at: "2", z: [], say: 7, ask: 3, noise: 1, w: 1.25, t: -1 };

/** The state in a hash; what is missing or makes no sense there is as at the start. */
export function parse(hash: string): State {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const read = (key: keyof State) => given.get(key) ?? "";
  const whole = (key: "seed" | "noise" | "say" | "ask" | "t", most: number) =>
    /^\d{1,9}$/.test(read(key)) && Number(read(key)) <= most ? Number(read(key)) : START[key];
  const z = read("z").split(",").map(Number);
  const w = Number(read("w"));
  return {
    part: ["draw", "walk", "flow"].includes(read("part")) ? read("part") : START.part,
    x: /^[\w-]{1,560}$/.test(read("x")) ? read("x") : START.x,
    terms: (["plain", "kl", "all"] as const).find((one) => one === read("terms")) ?? START.terms,
    at: /^\d+(-told)?$/.test(read("at")) ? read("at") : START.at,
    z: read("z") && z.every((value) => Math.abs(value) <= 5) ? z : [],
    seed: whole("seed", 1e9), noise: whole("noise", 1e9), say: whole("say", 9), ask: whole("ask", 9), t: whole("t", 100),
    w: read("w") && w >= 0 && w <= 4 ? w : START.w,
  };
}

/** The hash of a state: what is not as at the start. */
export function format(state: State): string {
  const parts = Object.entries(state).map(([key, value]) => [key, Array.isArray(value) ? value.join(",") : String(value)]);
  const start = new Map(Object.entries(START).map(([key, value]) => [key, String(value)]));
  const changed = parts.filter(([key, value]) => value !== start.get(key));
  return `#${changed.map(([key, value]) => `${key}=${value}`).join("&")}`;
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
  const keys = (Object.keys(next) as (keyof State)[]).filter((key) => String(next[key]) !== String(state[key]));
  if (!keys.length) return;
  state = next;
  clearTimeout(written); // browsers refuse hundreds of addresses in a few seconds
  written = window.setTimeout(() => history.replaceState(null, "", format(state)), 150);
  for (const listener of listeners) listener(state, new Set(keys));
}

window.addEventListener("hashchange", () => set(parse(location.hash)));
