// Small things that every part needs of the page.

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
export function makeFailure(): HTMLElement {
  const place = make("p", { className: "failure", hidden: true });
  place.setAttribute("role", "alert");
  return place;
}

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
  name: string,
  options: [value: string, content: Node | string][],
  chosen: (value: string) => void,
): (value: string) => void {
  for (const [value, content] of options) {
    const input = make("input", { type: "radio", name, value });
    input.addEventListener("change", () => chosen(value));
    place.append(make("label", {}, input, content));
  }
  return (value) => {
    for (const input of place.querySelectorAll("input")) input.checked = input.value === value;
  };
}

/**
 * A button that plays and stops: `next` takes a step and says whether there is one more. Returns a
 * function that stops it.
 */
export function player(
  button: HTMLElement,
  milliseconds: number,
  start: () => void,
  next: () => boolean,
): () => void {
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    write(button, "Play");
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    start();
    write(button, "Stop");
    timer = window.setInterval(() => next() || stop(), milliseconds);
  });
  return stop;
}

/** "7 (98%)": what the judge reads, and how certain it is. */
export function reading(chances: number[]): string {
  const largest = Math.max(...chances);
  return `${chances.indexOf(largest)}\u00a0(${Math.round(100 * largest)}%)`;
}
