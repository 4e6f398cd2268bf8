// The page: the catalog of models, and each part when it is first looked at.
import { address, getJson, withTerms, type Catalog } from "./catalog";
import { fail, get, latest } from "./dom";
import { imageOf, startDraw } from "./draw";
import { startFlow } from "./flow";
import * as maths from "./maths";
import * as models from "./models";
import { current, set } from "./state";
import { startWalk } from "./walk";

// Of pyproject.toml, put in when the page is built.
declare const __REPOSITORY__: string;
declare const __BRANCH__: string;

const PARTS: Record<string, (catalog: Catalog) => void> = {
  draw: startDraw,
  walk: startWalk,
  flow: startFlow,
};

async function start(): Promise<void> {
  const catalog = await getJson<Catalog>("index.json");
  const plane = withTerms(
    catalog.models.filter((model) => model.plane),
    "all",
  );
  if (plane) get("band").style.backgroundImage = `url("${address(plane.plane!.file)}")`;
  Object.assign(window, { explorer: { catalog, current, imageOf, latest, ...maths, ...models } }); // for the curious, in the console
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      PARTS[target.id](catalog);
    }
  });
  for (const id of Object.keys(PARTS)) seen.observe(get(id));
}

/** The part of which most is seen. */
function seenMost(): string {
  const seen = (id: string) => {
    const { top, bottom } = get(id).getBoundingClientRect();
    return Math.min(bottom, innerHeight) - Math.max(top, 0);
  };
  return Object.keys(PARTS).reduce((best, id) => (seen(id) > seen(best) ? id : best));
}

/**
 * Go to the part that the address names, or that a link of the page leads to, and stay there while parts above it
 * grow. The address follows where the visitor scrolls.
 */
function startScrolling(): void {
  let [aim, settled]: [string | null, number] = [null, 0];
  let [top, height] = [0, 0]; // where the part was put, on a page of this height
  const now = () => get(aim!).getBoundingClientRect().top;
  const go = (behavior: ScrollBehavior = "auto") => {
    if (!aim) return;
    if (behavior === "smooth") settled = performance.now() + 1000; // until then the page scrolls
    get(aim).scrollIntoView({ behavior });
    [top, height] = [now(), document.body.scrollHeight];
  };
  const lead = (part: string, behavior?: ScrollBehavior) => {
    set({ part: (aim = part) });
    go(behavior);
  };
  for (const act of ["wheel", "touchmove", "keydown", "pointerdown"])
    addEventListener(act, () => (aim = null), { capture: true, passive: true });
  addEventListener("scroll", () => {
    if (aim && document.body.scrollHeight !== height) go();
    else if (aim && Math.abs(now() - top) > 2 && performance.now() > settled) aim = null;
    if (!aim) set({ part: seenMost() });
  });
  new ResizeObserver(() => go()).observe(document.body);
  if (location.hash.includes("part=")) lead(current().part);
  window.addEventListener("hashchange", () => lead(current().part));
  for (const anchor of document.querySelectorAll<HTMLAnchorElement>("a[data-part]")) {
    anchor.addEventListener("click", (event) => {
      event.preventDefault(); // the address holds more than the part
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      lead(anchor.dataset.part!, calm ? "auto" : "smooth");
      get(`${anchor.dataset.part}-title`).focus({ preventScroll: true });
    });
  }
}

/** Links to the repository: the one on whose pages this stands, or else the one that built it. */
function link(): void {
  const owner = /^([\w-]+)\.github\.io$/i.exec(location.hostname)?.[1];
  const name = location.pathname.split("/")[1] || `${owner}.github.io`;
  const repository = owner ? `${owner}/${name}` : __REPOSITORY__;
  if (repository === "OWNER/REPO") return; // nobody has published it yet
  for (const anchor of document.querySelectorAll<HTMLAnchorElement>("a[data-link]")) {
    anchor.href = `https://github.com/${repository}${anchor.dataset.link}`;
  }
  const colab = get<HTMLAnchorElement>("colab");
  colab.href = `https://colab.research.google.com/github/${repository}/blob/${__BRANCH__}/notebooks/few_numbers.ipynb`;
  colab.hidden = false;
}

startScrolling();
link();
const begin = () => {
  fail(get("failure"));
  start().catch((error) => {
    const reason = error instanceof Error ? error.message : error;
    fail(get("failure"), `The models cannot be loaded: ${reason}.`, begin);
  });
};
begin();
