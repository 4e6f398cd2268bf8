// Small things that every part needs of the page.

export function get<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K, properties: Partial<HTMLElementTagNameMap[K]> = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Show the sentence of what `error` is, or nothing. */
export function fail(place: HTMLElement, error?: unknown): void {
  place.hidden = error === undefined;
  place.textContent = error === undefined ? "" : error instanceof Error ? error.message : String(error);
}

/** A choice of one, as radio buttons after a fieldset's legend. Returns a function that marks one. */
export function choice(
  place: HTMLElement, name: string, options: [value: string, content: Node | string][], chosen: (value: string) => void,
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

/** "7 (98 %)": what the judge reads, and how certain it is, on one line. */
export function reading(chances: number[]): string {
  const largest = Math.max(...chances);
  return `${chances.indexOf(largest)}\u00a0(${Math.round(100 * largest)}\u00a0%)`;
}
