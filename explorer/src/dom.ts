// Small things that every part needs of the page.
import { follow, set, type State } from "./state";

export function get<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Write a text, if it is another: what is written again would be read aloud again. */
export function write(place: HTMLElement, text: string): void {
  if (place.textContent !== text) place.textContent = text;
}

/** A place for a sentence about what failed. */
export const makeFailure = () => make("p", { className: "failure", hidden: true, role: "alert" });

const retries = new Map<HTMLElement, () => void>();
window.addEventListener("online", () => [...retries.values()].forEach((retry) => retry()));

/** Show the sentence of what `error` is, with a button to try again, or nothing. */
export function fail(place: HTMLElement, error?: unknown, retry?: () => void): void {
  place.hidden = error === undefined;
  write(place, error === undefined ? "" : error instanceof Error ? error.message : String(error));
  retries.delete(place);
  if (error === undefined || !retry) return;
  retries.set(place, retry);
  place.append(" ", make("button", { type: "button", onclick: retry }, "Try again"));
}

let waiting = 0;

/** Tell a screen reader, once nothing has changed for a while: of a drag, only where it ends. */
export function announce(words: () => string): void {
  clearTimeout(waiting);
  waiting = window.setTimeout(() => write(get("announcement"), words()), 700);
}

/** A choice of one, as radio buttons after a fieldset's legend. Returns a function that marks one. */
export function choice(
  place: HTMLElement,
  options: [value: string, content: Node | string][],
  chosen: (value: string) => void,
): (value: string) => void {
  const inputs = options.map(([value, content]) => {
    const input = make("input", { type: "radio", name: place.id, value, onchange: () => chosen(value) });
    place.append(make("label", {}, input, content));
    return input;
  });
  return (value) => inputs.forEach((input) => (input.checked = input.value === value));
}

/**
 * A button that plays: a number of the state goes to `first()`, and on by `step` to `end`. It stops at a click, and
 * where the visitor changes that number. `more`: what is set with it.
 */
export function startPlayer(
  button: HTMLElement,
  key: "along" | "t",
  [milliseconds, step, end]: [number, number, number],
  first: () => number,
  more: Partial<State> = {},
): void {
  let [timer, at] = [0, -1]; // at: where playing has led
  const go = (value: number) => set({ ...more, [key]: (at = value) });
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    write(button, "Play");
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    go(first());
    write(button, "Stop");
    timer = window.setInterval(() => {
      go(Math.min(at + step, end));
      if (at === end) stop();
    }, milliseconds);
  });
  follow([key], (state) => state[key] !== at && stop());
}

/**
 * Calls `work` with the newest arguments only, one call at a time: what a drag needs. Where it fails, a sentence
 * stands at `place`, with a button to try again.
 */
export function latest<T extends unknown[]>(place: HTMLElement, work: (...given: T) => Promise<void>) {
  let [busy, next]: [Promise<void> | undefined, T | undefined] = [undefined, undefined];
  const go = async () => {
    while (next) {
      const now: T = next;
      next = undefined;
      try {
        await work(...now);
        fail(place);
      } catch (error) {
        fail(place, error, () => void call(...now));
      }
    }
    busy = undefined;
  };
  const call = (...given: T): Promise<void> => {
    next = given;
    return (busy ??= go());
  };
  return call;
}

/** "7 (98%)": what the judge reads, and how certain it is. */
export function reading(chances: number[]): string {
  const largest = Math.max(...chances);
  return `${chances.indexOf(largest)}\u00a0(${Math.round(100 * largest)}%)`;
}
