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
const [NUMBER, PERCENT, DIGIT, END] = [/^\d{1,9}$/, /^(\d{1,2}|100)$/, /^\d$/, /^[\dx]$/];
/** For each part of the state, what it is at the start, and what an address may have in its place. */
const RULES: { [Key in keyof State]: [State[Key], RegExp] } = {
  part: ["draw", /^(draw|walk|flow)$/],
  x: ["7", /^[\w-]{1,560}$/],
  terms: ["all", /^(plain|kl|all)$/],
  seed: [1, NUMBER],
  at: ["2", /^\d{1,4}(-told)?$/],
  z: [[], /^-?\d{1,2}(\.\d+)?(,-?\d{1,2}(\.\d+)?)*$/],
  from: [MINE, END],
  to: ["2", END],
  along: [-1, PERCENT],
  say: [-1, DIGIT],
  dots: [1, /^[01]$/],
  ask: [3, DIGIT],
  noise: [1, NUMBER],
  w: [1.25, /^([0-3](\.\d+)?|4)$/],
  t: [-1, PERCENT],
};
const KEYS = Object.keys(RULES) as (keyof State)[];

/** The state in a hash; what is missing or makes no sense there is as at the start. */
export function parse(hash: string): State {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const read = (key: keyof State): State[keyof State] => {
    const [start, allowed] = RULES[key];
    const text = given.get(key) ?? "";
    if (!allowed.test(text)) return start;
    if (typeof start === "string") return text;
    return typeof start === "number" ? Number(text) : text.split(",").map(Number);
  };
  return Object.fromEntries(KEYS.map((key) => [key, read(key)])) as unknown as State;
}

const text = (value: State[keyof State]): string =>
  Array.isArray(value) ? value.map((one) => Number(one.toFixed(3))).join(",") : String(value);

/** The hash of a state: what is not as at the start. */
export function format(state: State): string {
  const keys = KEYS.filter((key) => text(state[key]) !== text(RULES[key][0]));
  return `#${keys.map((key) => `${key}=${text(state[key])}`).join("&")}`;
}

const listeners: [(keyof State)[], (state: State) => void][] = [];
let state = parse(location.hash);
let written = 0;

export const current = (): State => state;

/** Call `listener` now, and after every change of one of these keys. */
export function follow(keys: (keyof State)[], listener: (state: State) => void): void {
  listeners.push([keys, listener]);
  listener(state);
}

export function set(change: Partial<State>): void {
  const next = { ...state, ...change };
  const changed = KEYS.filter((key) => String(next[key]) !== String(state[key]));
  if (!changed.length) return;
  state = next;
  clearTimeout(written); // browsers refuse hundreds of addresses in a few seconds
  written = window.setTimeout(() => history.replaceState(null, "", format(state)), 150);
  for (const [keys, listener] of listeners) if (changed.some((key) => keys.includes(key))) listener(state);
}

// the new address: by now, that of a change before it may be written over it
window.addEventListener("hashchange", ({ newURL }) => set(parse(new URL(newURL).hash)));
