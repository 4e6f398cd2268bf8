"""Open the built page of `explorer/` in a Chromium: draw its picture, measure it.

    make explorer-page
    python tools/explorer_page.py    # writes assets/explorer.gif and prints sizes

Needs playwright, and a Chromium of the system's.
"""

import contextlib
import functools
import http.server
import io
import itertools
import math
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from common import ASSETS, ROOT, read_json
from explorer_models import LIST, rounding
from PIL import Image

BUILT = ROOT / "explorer" / "dist"
BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
VIEW, ROOM = {"width": 1180, "height": 640}, 12  # and pixels around the part in which one draws
WIDE = 760  # pixels of the picture
TURN = [math.radians(angle) for angle in range(-60, 320, 20)]
STROKES = [  # a 0, which becomes a 9
    [(0.48 + 0.17 * math.cos(a), 0.32 - 0.2 * math.sin(a)) for a in TURN],
    [(0.64, 0.2), (0.63, 0.5), (0.57, 0.88)],
]
PAUSE = 8  # frames after a stroke
HOLD, LAST = 90, 1800  # ms that a frame is shown
FORGE = "--host-resolver-rules=MAP *.github.io 127.0.0.1"
ROUNDED = 1000  # digits on which the effect of rounding is measured


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def copyfile(self, *args):
        with contextlib.suppress(ConnectionError):  # of a visitor who has left
            super().copyfile(*args)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a server of a folder, which sends no more headers than a forge's pages do."""
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


@contextlib.contextmanager
def browser(executable: str, *flags: str) -> Iterator:
    """A Chromium, to which every address of a forge's pages is this machine.

    As root, in a container, there is no sandbox to be had.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", FORGE, *flags]
        yield playwright.chromium.launch(executable_path=executable, args=flags)


def wait_until_ready(page) -> None:
    """Until every model of the first part has drawn."""
    page.wait_for_selector(".column")
    page.wait_for_function("!document.querySelector('.waiting')")


def look(page, part: str) -> None:
    """Scroll to a part, whose models are then loaded, and wait until its images are there."""
    page.keyboard.press("Shift")  # the page follows a visitor who acts
    page.eval_on_selector(f"#{part}", "one => one.scrollIntoView()")
    if part == "draw":
        return wait_until_ready(page)
    words = {"walk": "#here-words", "flow": "#flow-words"}[part]
    page.wait_for_function("id => /ead as/.test(document.querySelector(id).textContent)", arg=words)


def places(page, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points in shares of the pad's width and height, as the mouse needs them."""
    box = page.locator("#pad").bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]


def record(page) -> list[Image.Image]:
    """Pictures of somebody who draws a 0 and makes it a 9."""
    page.set_viewport_size(VIEW)
    page.eval_on_selector(".draw", f"one => scrollTo(0, one.offsetTop - {ROOM})")
    box, frames = page.locator(".draw").bounding_box(), []
    clip = {"x": box["x"] - ROOM, "y": box["y"] - ROOM,
            "width": box["width"] + 2 * ROOM, "height": box["height"] + 2 * ROOM}  # fmt: skip

    def shoot() -> None:
        page.wait_for_timeout(120)
        with Image.open(io.BytesIO(page.screenshot(clip=clip))) as image:
            size = WIDE, round(image.height * WIDE / image.width)
            frames.append(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))

    for stroke in STROKES:
        points = places(page, stroke)
        page.mouse.move(*points[0])
        page.mouse.down()
        for (x, y), end in itertools.pairwise(points):
            parts = max(math.ceil(math.dist((x, y), end) / 14), 1)
            for share in (part / parts for part in range(1, parts + 1)):
                page.mouse.move(x + share * (end[0] - x), y + share * (end[1] - y))
                shoot()
        page.mouse.up()
        frames += frames[-1:] * PAUSE
    return frames


def write_gif(frames: list[Image.Image], path: Path) -> None:
    """The frames, with one palette for all, so that what stands still costs nothing."""
    palette = frames[-1].quantize(64)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    times = [HOLD] * len(others) + [LAST]
    first.save(path, save_all=True, append_images=others, duration=times, loop=0)


def main() -> None:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not (BUILT / "index.html").is_file() or executable is None:
        raise SystemExit("this needs a built page (make explorer-page) and a Chromium")
    size = {path: path.stat().st_size for path in BUILT.rglob("*") if path.is_file()}
    packed = {path for path in size if path.suffix == ".gz"}
    print(f"page without runtime and models: {sum(size[p] for p in size.keys() - packed):,} bytes; "
          f"runtime and models: {sum(size[p] for p in packed):,}")  # fmt: skip
    for name in read_json(LIST):
        effect = rounding(ASSETS / name, ROUNDED)
        print(f"{name}: rounding moves grey values by {effect['difference']:.4f} of 2, an MSE by "
              f"at most {effect['mse']:.2%}, and the reading of {effect['changed']}")  # fmt: skip
    with serve(BUILT) as url, browser(executable) as chromium:
        page = chromium.new_page(viewport=VIEW)
        page.goto(url)
        wait_until_ready(page)
        write_gif(record(page), ASSETS / "explorer.gif")


if __name__ == "__main__":
    main()
