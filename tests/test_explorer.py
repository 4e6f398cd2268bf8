"""The page in `explorer/`: its numbers are PyTorch's, and a visitor can do what it says.

Needs Node and a Chromium. Where they are not there, tests are skipped, which says so; they must be
there if EXPLORER_TESTS is "must", as `.ci/run` sets it.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import explorer_models as explorer
import explorer_page
import pytest
import torch
from common import ASSETS, ROOT
from explorer_models import round_weights
from explorer_page import BROWSERS, browser, look, places, serve, wait_until_ready

import vae
from vae.data import gaussian
from vae.machinery.animations import COLOURS
from vae.machinery.judge import Judge

HERE = ROOT / "explorer"
MODELS = list(explorer.read_json(explorer.LIST))
INDEX = explorer.read_json(explorer.OUT / explorer.INDEX)
ROWS = {row["name"]: row for row in INDEX["models"]}
FIRST = [row for row in ROWS.values()  # whose reconstructions are seen first, the smallest first
         if not row["classes"] and (row["terms"] == "all" or row["grid"] > 1)]  # fmt: skip
DIGITS, FEW = 100, 4
PATIENCE = 300_000  # milliseconds, after which a page that hangs is given up
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
pytestmark = pytest.mark.unix


def needed(names, what):
    """The first of these programs that is there; the tests are skipped without one, or fail."""
    found = next(filter(None, (shutil.which(name, path=PATH) for name in names)), None)
    if not found and os.environ.get("EXPLORER_TESTS") == "must":
        pytest.fail(f"{what} is not installed, and EXPLORER_TESTS=must")
    return found or pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="session")
def packages():
    """npm, when what the page is built with is installed."""
    npm = needed(["npm"], "Node")
    parts = [f"BIN={Path(sys.executable).parent}", "explorer/node_modules/.package-lock.json"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-o", "install", *parts], cwd=ROOT, env=clean, check=True)
    return npm


@pytest.fixture(scope="session")
def site(packages, tmp_path_factory):
    """The built page on a server: its address, which is never the root of a forge's, its folder."""
    root = tmp_path_factory.mktemp("site")
    out = root / "some" / "fork"
    command = [packages, "run", "build", "--", "--outDir", out, "--emptyOutDir"]
    ran = subprocess.run(command, cwd=HERE, env=os.environ | {"PATH": PATH}, capture_output=True)
    assert ran.returncode == 0, ran.stdout.decode()
    with serve(root) as url:
        yield SimpleNamespace(url=f"{url}some/fork/", folder=out)


@functools.lru_cache
def given(n=DIGITS):
    """Test digits in [-1, 1], with their labels."""
    images, labels = vae.load_digits("test")
    return vae.scale_images(images[:n]), labels[:n]


as_the_page_has_it = functools.cache(explorer.load)  # a model with rounded weights, and its prior


def noise(shape, n=DIGITS, seed=1):
    return gaussian(n, *shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected):
    """Within what the page promises, relative to values above 1."""
    torch.testing.assert_close(found.view(expected.shape), expected, rtol=1e-3, atol=1e-3)


def test_the_sources_are_typed_and_formatted(packages):
    ran = subprocess.run([packages, "run", "check"], cwd=HERE, env=os.environ | {"PATH": PATH})
    assert ran.returncode == 0, "in explorer/: npm run format"


@pytest.mark.parametrize("name", MODELS)
def test_rounded_weights_change_no_digit(name):
    effect = explorer.rounding(ASSETS / name, DIGITS)
    assert effect["difference"] < 0.01
    assert effect["mse"] < 0.03
    assert effect["changed"] == 0


@torch.no_grad()
def test_the_rounded_judge_reads_as_the_judge():
    before, after = (judge(given(2000)[0]).argmax(1) for judge in
                     (Judge.from_pretrained(), round_weights(Judge.from_pretrained())))  # fmt: skip
    assert (before == after).float().mean() > 0.999


def test_the_models_of_the_page_are_those_of_the_repository(monkeypatch):
    monkeypatch.setattr(explorer, "write", lambda *_: pytest.fail("run tools/explorer_models.py"))
    explorer.main()


def test_files_are_few_and_small(site):
    """The page under 1.5 MB, runtime and models of its first part under 8 MB, all under 15 MB."""
    assert ROWS.keys() == set(MODELS)
    size = {path: path.stat().st_size for path in site.folder.rglob("*") if path.is_file()}
    assert sum(size.values()) < 15e6
    heavy = ".onnx.gz", ".wasm.gz"
    assert sum(n for path, n in size.items() if not path.name.endswith(heavy)) < 1.5e6
    needed = {file["file"]: file["bytes"] for row in FIRST
              for kind, file in row["files"].items() if kind != "prior"}  # fmt: skip
    runtime = (site.folder / "runtime" / "ort.wasm.gz").stat().st_size
    assert runtime + INDEX["judge"]["bytes"] + sum(needed.values()) < 8e6


def test_a_model_that_is_trained_appears(tmp_path, monkeypatch):
    for name in ("sharp_2", "latent_2", "second_judge", "emoji"):
        shutil.copytree(ASSETS / name, tmp_path / name)
    monkeypatch.setattr(explorer, "ASSETS", tmp_path)
    assert list(explorer.models()) == ["sharp_2", "latent_2"]
    (tmp_path / "sharp_2").rename(tmp_path / "another")
    assert explorer.models()["another"]["terms"] == "all"


@pytest.fixture(scope="session")
def context(site):
    """Where pages are opened, all in one process; the first has all models, and stays open."""
    executable = needed(BROWSERS, "Chromium")
    pytest.importorskip("playwright")
    with browser(executable, "--renderer-process-limit=1", "--js-flags=--liftoff-only") as chromium:
        context = chromium.new_context(has_touch=True)
        context.set_default_timeout(PATIENCE)
        context.add_init_script(COUNT_ORDERS)
        context.new_page().goto(site.url)
        wait_until_ready(context.pages[0])
        yield context


@pytest.fixture
def visit(context, site):
    """A function that shows the page. In the end nothing may have gone wrong that none expected.

    `part`: where to look. With `sizes`, models of so many numbers alone, or `broken`, functions
    that answer for files by their pattern, the page is opened anew.
    """
    opened, said, asked, known = [], [], [], ["willReadFrequently"]  # of these tests

    def show(hash_="", part=None, broken=None, expected=(), sizes=None, size=(1280, 720)):
        known.extend([*expected, *["404"] * bool(broken)])
        page = context.new_page() if broken or sizes else context.pages[0]
        page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        if page is context.pages[0]:
            page.evaluate(START_AGAIN, hash_)
        else:
            opened.append(page)
            rows = [row for row in ROWS.values() if not sizes or row["numbers"] in sizes]
            listed = json.dumps(INDEX | {"models": rows})
            page.route("**/index.json", lambda route: route.fulfill(body=listed))
            for pattern, answer in (broken or {}).items():
                page.route(pattern, answer)
            page.goto(site.url + hash_)
            if "part=" not in hash_:
                wait_until_ready(page)
        if part:
            look(page, part)
        return page

    heard = {"console": lambda message: said.append(message.text),
             "weberror": lambda error: said.append(str(error.error)),
             "request": lambda request: asked.append(request.url)}  # fmt: skip
    for event, listener in heard.items():
        context.on(event, listener)
    show.asked = asked
    yield show
    for page in opened:
        page.close()
    for event, listener in heard.items():
        context.remove_listener(event, listener)
    assert not [text for text in said if not any(one in text for one in known)]
    assert all(url.startswith((site.url, "blob:", "data:")) for url in asked)


COUNT_ORDERS = """(() => {  // those that a page's worker has not answered yet
  const open = (window.orders = new Set()), { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (order) {
    if (!this.heard) this.addEventListener("message", ({ data }) => {
      setTimeout(() => open.delete(data.id));  // after the page has sent what follows from it
    });
    this.heard = true;
    if (order.inputs) open.add(order.id);
    return postMessage.call(this, order);
  };
})()"""
START_AGAIN = """async (hash) => {
  const wait = (ms) => new Promise((end) => setTimeout(end, ms));
  location.hash = hash ? "#" : "#part=draw";
  await wait(200);  // until the address has followed
  location.hash = hash;
  do await wait(20); while (orders.size);
}"""


def missing(route):
    route.fulfill(status=404)


def pixels(page, selector):
    """What is painted on canvases, as text by which they can be told apart."""
    return page.eval_on_selector_all(selector, "all => all.map((one) => one.toDataURL())")


def until(page, condition, given=None):
    """Wait for what JavaScript says of `given`; `$` finds an element, `$$` all of them."""
    short = "const $$ = (s) => [...document.querySelectorAll(s)], $ = (s) => $$(s)[0];"
    page.wait_for_function(f"(given) => {{ {short} return {condition}; }}", arg=given)


def changes(page, selector, before, sign="!=="):
    """Wait until every one of these canvases is another than before."""
    every = f"$$(given[0]).every((one, i) => one.toDataURL() {sign} given[1][i])"
    until(page, every, [selector, before])


becomes = functools.partial(changes, sign="===")  # as they were once


def says(page, selector, text):
    """Wait until an element holds this text."""
    until(page, "$(given[0]).textContent.includes(given[1])", [selector, text])


def stroke(page, points):
    """Draw a line on the pad through points in shares of its width and height."""
    page.locator("#pad").scroll_into_view_if_needed()
    first, *others = places(page, points)
    page.mouse.move(*first)
    page.mouse.down()
    for place in others:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


FRAMES = """async (n) => {  // in which a page that plays would have moved on
  while (n--) await new Promise(requestAnimationFrame);
}"""
SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]
COLUMNS = ".column canvas"

IN_BROWSER = """
async ([name, z, x, labels]) => {
  const { catalog, encode, decode, decodeCode, judge } = window.explorer;
  const model = catalog.models.find((one) => one.name === name);
  const images = Float32Array.from(x), found = { z: [], kl: [], drawn: [] };
  for (const [i, digit] of labels.entries()) {
    const q = await encode(model, images.slice(784 * i, 784 * i + 784), digit);
    found.z.push(...q.z);
    found.kl.push(q.kl);
    found.drawn.push(...await decodeCode(model, q.code, digit));
  }
  found.read = (await judge(catalog, images)).flat();
  found.draws = [...await decode(model, z, labels)];
  return found;
}
"""


@torch.no_grad()
def test_the_page_computes_what_pytorch_computes(visit):
    page, (x, labels) = visit(), given(FEW)
    read = round_weights(Judge.from_pretrained())(x).softmax(1)
    for name in MODELS:
        model = as_the_page_has_it(ASSETS / name)[0]
        told = labels if model.config.num_classes else None
        z = noise(model.config.latent_shape, FEW)
        found = page.evaluate(IN_BROWSER, [name, *(t.flatten().tolist() for t in (z, x, labels))])
        rates = found.pop("kl")
        z_, drawn, read_, draws = map(torch.tensor, found.values())
        q = model.encode(x, told)
        close(z_, q.mean)
        close(drawn, model.decode(q.mean, told))
        close(draws, model.decode(z, told))
        close(read_, read)
        if not model.config.variational:
            assert set(rates) == {None}
            continue
        normals = page.evaluate("n => [...explorer.normals(n, 1)]", 16 * q.mean[0].numel())
        normals = torch.tensor(normals).view(16, 1, *q.mean.shape[1:])
        expected = torch.stack([q.kl(one.expand_as(q.mean)) for one in normals]).mean(0)
        close(torch.tensor(rates), expected)


@torch.no_grad()
def test_the_page_follows_the_flow_as_pytorch_does(visit):
    name = next(name for name in MODELS if (ASSETS / name / "prior.json").is_file())
    page, network = visit(), as_the_page_has_it(ASSETS / name)[1]
    z = noise(network.latent_shape, 10, seed=2)
    way = """async ([name, noise, digit, w]) => {
      const model = explorer.catalog.models.find((one) => one.name === name);
      const found = await explorer.flow(model, Float32Array.from(noise), digit, w);
      return found.map((one) => [...one]);
    }"""
    for digit, guidance in ((3, 1.25), (8, 0.0), (5, 4.0)):
        noise_ = z[digit].flatten().tolist()
        found = torch.tensor(page.evaluate(way, [name, noise_, digit, guidance]))
        assert len(found) == network.config.steps + 1
        expected = network.sample(1, digit, noise=z[digit][None], guidance=guidance)
        close(found[-1], expected)
        close(found[0], z[digit][None] * network.std + network.mean)


def test_a_drawn_stroke_changes_all_reconstructions(visit):
    page = visit("#x=4")
    before = pixels(page, COLUMNS)
    assert len(before) == 5  # as the models see it; 2, 4, 16 and 98 numbers
    stroke(page, SEVEN)
    changes(page, COLUMNS, before)
    until(page, "$$('.column dd:last-of-type').every((one) => one.textContent.startsWith('7'))")
    image = drawn(page)
    rows, columns = ((image + 1).sum(1 - axis).nonzero().flatten() for axis in (0, 1))
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    assert 19 <= longest <= 21  # as MNIST's, which are 20 by 20, centred by mass
    mass = (image + 1) / (image + 1).sum()
    centre = [(mass.sum(1 - axis) * torch.arange(28)).sum() for axis in (0, 1)]
    assert all(abs(value - 14) <= 0.6 for value in centre)
    assert 60 < (image + 1).sum() / 2 < 160  # of 104 on average: a stroke as wide as theirs
    page.locator("#clear").click()
    stroke(page, [(0.5, 0.2), (0.5, 0.8)])
    ways = (drawn(page) + 1).sum(0).diff().sign()
    ways = ways[ways != 0].tolist()
    assert ways == sorted(ways, reverse=True)  # across a bar: from black to white, and back


def drawn(page):
    """The drawing, which the address holds soon."""
    until(page, "explorer.current().x.length > 1 && location.hash.includes(explorer.current().x)")
    image = page.evaluate("[...explorer.imageOf(explorer.catalog, explorer.current().x)]")
    return torch.tensor(image).view(28, 28)


def test_pad_and_reconstructions_are_whole_on_the_first_screen(visit):
    page = visit()
    for wide, high in (1366, 650), (1400, 900), (820, 1180):
        page.set_viewport_size({"width": wide, "height": high})
        page.evaluate("scrollTo(0, 0)")
        for box in boxes(page, "#pad, .column canvas"):
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= high
            assert box["x"] + box["width"] <= wide
        tops = {round(box["y"]) for box in boxes(page, ".column canvas")}
        assert len(tops) == 1  # in one row, none alone
        terms, columns = boxes(page, "#terms")[0], boxes(page, "#columns")[0]
        assert abs(terms["x"] - columns["x"]) < 2  # the control stands above what it changes

    page.set_viewport_size({"width": 360, "height": 740})  # a phone, where figures are under a tap
    page.eval_on_selector(".draw", "one => scrollTo(0, one.offsetTop - 8)")
    seen = boxes(page, "#pad, .column canvas")
    assert len(seen) == 6
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= 740 for box in seen)
    figures = page.locator(".column[data-numbers='2'] details")
    assert not figures.locator("dl").is_visible()
    figures.locator("summary").tap()
    assert figures.locator("dl").is_visible()


def boxes(page, selector):
    return [one.bounding_box() for one in page.locator(selector).all()]


def test_a_stroke_is_added_to_a_drawing_after_a_reload_and_each_can_be_undone(visit):
    page = visit("#x=4", sizes=[2])
    assert page.locator("#undo").is_disabled()
    stroke(page, SEVEN)  # in place of the test digit
    seven = drawn(page)
    page.reload()
    wait_until_ready(page)
    assert torch.equal(drawn(page), seven)
    before = page.evaluate("explorer.current().x")
    stroke(page, [(0.4, 0.55), (0.75, 0.55)])  # a bar through it
    until(page, "explorer.current().x !== given", before)
    barred = drawn(page)
    assert (barred[14:20] + 1).sum() > (seven[14:20] + 1).sum() + 4
    both = torch.nn.functional.cosine_similarity(barred.flatten() + 1, seven.flatten() + 1, dim=0)
    assert both > 0.7  # the seven is there still
    page.locator("#undo").click()
    until(page, "explorer.current().x === given", before)
    assert torch.equal(drawn(page), seven)
    page.locator("#clear").click()
    until(page, "explorer.current().x === '-'")
    page.locator("#undo").click()
    assert torch.equal(drawn(page), seven)


def test_what_is_far_from_a_digit_and_what_is_not_there_is_said(visit):
    page = visit("#x=-", "walk")
    page.get_by_role("button", name="To my digit").click()
    says(page, "#walk-failure", "no digit of yours")
    look(page, "draw")
    for k in range(3):  # an asterisk
        stroke(page, [(0.05 + 0.3 * k, 0.05), (0.95 - 0.3 * k, 0.95)])
    says(page, ".column[data-numbers='16'] dd:nth-of-type(2)", "of a digit 57: an unusual image")


def test_a_link_to_a_part_stays_there_and_the_address_follows_only_the_visitor(visit):
    page = visit("#part=flow", sizes=[2, 98], size=(500, 400))
    page.wait_for_selector("#film canvas")
    for again in (False, True):
        if again:
            page.reload()
        until(page, "/ead as/.test($('#flow-words').textContent)")
        assert page.evaluate("explorer.current().part") == "flow"
        assert abs(boxes(page, "#flow")[0]["y"]) < 40
    page.eval_on_selector("#draws", "one => one.style.height = '900px'")  # something grows above
    page.evaluate(FRAMES, 5)
    assert abs(boxes(page, "#flow")[0]["y"]) < 40
    assert page.evaluate("location.hash") == "#part=flow"
    page.mouse.wheel(0, -9000)
    until(page, "!location.hash.includes('part=')")  # it is where it starts
    look(page, "walk")  # nothing grows any more
    look(page, "draw")
    shares = torch.rand(120, generator=torch.Generator().manual_seed(0)).tolist()
    seen = """async (shares) => {
      const parts = ["draw", "walk", "flow"], found = [];
      for (const share of shares) {
        scrollTo(0, share * (document.body.scrollHeight - innerHeight));
        for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame);
        const shown = parts.map((id) => {
          const { top, bottom } = document.getElementById(id).getBoundingClientRect();
          return Math.min(bottom, innerHeight) - Math.max(top, 0);
        });
        found.push([explorer.current().part, parts[shown.indexOf(Math.max(...shown))]]);
      }
      return found;
    }"""
    for named, most in page.evaluate(seen, shares):
        assert named == most


def test_the_pad_bears_a_second_finger_its_edge_being_cleared_and_an_image_in_a_stroke(visit):
    page, corner = visit(), [(0.3, 0.3), (0.3, 0.7)]
    stroke(page, [*corner, (1.0, 0.7)])
    to_the_edge = drawn(page)
    page.locator("#clear").click()
    until(page, "!$('.column dd').textContent.includes('%')")
    assert page.locator("#digits [aria-pressed=true]").count() == 0
    looks_like(page, COLUMNS, -torch.ones(28, 28), most=0)
    stroke(page, [*corner, (1.9, 0.7)])
    assert (drawn(page) - to_the_edge).abs().mean() < 0.01
    page.locator("#clear").click()
    stroke(page, [(0.3, 0.5), (1.0, 0.5)])
    by_one = drawn(page)
    page.locator("#digits button").nth(7).click()
    page.locator("#clear").click()
    box, cdp = page.locator("#pad").bounding_box(), page.context.new_cdp_session(page)
    for step in range(6):
        x, y = box["x"] + (0.3 + 0.14 * step) * box["width"], box["y"] + box["height"] / 2
        fingers = [{"x": x, "y": y, "id": 1}, {"x": x, "y": box["y"] + 20, "id": 2}]
        kind = "touchMove" if step else "touchStart"
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert (drawn(page) - by_one).abs().mean() < 0.02
    first, *others = places(page, SEVEN)
    page.mouse.move(*first)
    page.mouse.down()
    page.evaluate("location.hash = '#x=5'")
    until(page, "explorer.current().x === '5'")
    for place in others:
        page.mouse.move(*place, steps=3)
    page.mouse.up()
    assert page.evaluate("explorer.current().x") == "5"
    stroke(page, SEVEN)
    drawn(page)


def looks_like(page, selector, image, most=3):
    """Wait until a canvas shows an image (28, 28) in [-1, 1], within some greys of 256."""
    expected = ((image + 1) * 127.5).flatten().tolist()
    until(page, """$(given[0]).getContext("2d").getImageData(0, 0, 28, 28).data
        .every((grey, i) => i % 4 || Math.abs(grey - given[1][i / 4]) <= given[2])""",
        [selector, expected, most])  # fmt: skip


def first(digit):
    """The test digit that the page shows for a digit: (1, 1, 28, 28) in [-1, 1]."""
    images, labels = given()
    return images[labels == digit][:1]


@torch.no_grad()
def test_what_is_shown_is_what_pytorch_says(visit):
    """Error, rate and reading of a column; the place where the walker stands, and its image."""
    page = visit("#x=5&at=16", "walk")  # of the ten digits, the one that is farthest out
    model, x = as_the_page_has_it(ASSETS / "sharp_16")[0], first(5)
    read = round_weights(Judge.from_pretrained())
    q = model.encode(x)
    y = model.decode(q.mean)
    shown = page.locator(".column[data-numbers='16'] dd").all_text_contents()
    assert float(shown[0]) == pytest.approx(vae.mse(x, y).item(), rel=0.05)  # two digits
    rate = torch.stack([q.kl() for _ in range(100)]).mean().item()
    assert float(shown[1].split()[0]) == pytest.approx(rate, abs=2.5)  # of 16 draws
    chances = read(y).softmax(1)[0]
    assert shown[2] == f"{chances.argmax()}\xa0({round(100 * chances.max().item())}%)"
    for place in ("#here", ".column[data-numbers='16'] canvas"):
        looks_like(page, place, y[0, 0])
    assert f"Distance from 0: {q.mean.norm():.1f};" in page.locator("#here-words").text_content()
    values = page.locator("#sliders label span:last-child").all_text_contents()
    assert [float(value) for value in values] == pytest.approx(q.mean.flatten().tolist(), abs=0.006)


def test_every_part_by_touch_at_every_width_for_everybody(visit):
    """Nobody is kept out by what axe can check: names, contrast, roles, order of titles."""
    page = visit()

    def tap(selector, across=0.5, down=0.5):
        page.locator(selector).first.scroll_into_view_if_needed()
        box = page.locator(selector).first.bounding_box()
        page.touchscreen.tap(box["x"] + across * box["width"], box["y"] + down * box["height"])

    page.add_script_tag(path=HERE / "node_modules" / "axe-core" / "axe.min.js")
    for digit, (width, look_of) in enumerate(
        [(360, {"color_scheme": "light"}), (820, {"forced_colors": "active"}),
         (1400, {"color_scheme": "dark", "forced_colors": "none"})]):  # fmt: skip
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(**look_of)
        page.evaluate("hash => location.hash = hash", f"at=2&x={digit}&ask=9")
        tap("#pad")
        drawn(page)
        look(page, "walk")
        before = pixels(page, "#here")
        tap("#plane", 0.25, 0.1)
        changes(page, "#here", before)
        look(page, "flow")
        before = pixels(page, "#now")
        tap("#wanted label")
        changes(page, "#now", before)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("location.hash = 'at=16-told'")  # has other controls
        page.locator("#told input").nth(4).wait_for()
        found = page.evaluate("axe.run().then(({ violations }) => violations)")
        assert not [(one["id"], node["html"][:200]) for one in found for node in one["nodes"]]


def test_with_letters_twice_as_large_nothing_is_cut(visit):
    page = visit(sizes=[2])
    look(page, "walk")
    size = "parseFloat(getComputedStyle(document.documentElement).fontSize)"
    before, larger = page.evaluate(size), {"fontSizes": {"standard": 32, "fixed": 26}}
    page.context.new_cdp_session(page).send("Page.setFontSizes", larger)
    assert page.evaluate(size) == 2 * before
    for width in (360, 820, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        cut = """[...document.querySelectorAll('nav a, button, fieldset label, dd, h1, h2, h3')]
          .filter((one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1)
          .map((one) => one.textContent)"""
        assert page.evaluate(cut) == []
        wide = """[...document.querySelectorAll('body *')].filter((one) =>
          one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"""
        assert page.evaluate(wide) == []


def test_a_term_switched_off_and_the_same_draws(visit):
    page = visit()
    drawing, draws, by_all = (pixels(page, name) for name in ("#pad", ".strip canvas", COLUMNS))
    two, rate = (f".column[data-numbers='2'] {part}" for part in ("canvas", "dd:nth-of-type(2)"))
    for label, words in (("MSE alone", "none"), ("MSE + KL", "nats")):
        page.get_by_label(label).check()
        changes(page, two, by_all[1:2])
        changes(page, ".strip canvas", draws[:36] + [""] * 12)  # of 98 numbers there is one model
        says(page, rate, words)
        says(page, ".column[data-numbers='98'] .quiet", "only all four terms")
    assert pixels(page, "#pad") == drawing
    page.get_by_label("all four terms").check()
    becomes(page, COLUMNS, by_all)
    becomes(page, ".strip canvas", draws)
    page.get_by_role("button", name="Draw others").click()
    changes(page, ".strip canvas", draws)


def place(page):
    """Where the walker stands, which the address says soon."""
    z = page.evaluate("explorer.current().z")
    written = ",".join(f"{value:g}" for value in z)
    until(page, "new URLSearchParams(location.hash.slice(1)).get('z') === given", written)
    return torch.tensor(z)


@pytest.mark.parametrize(("name", "terms"), [("sharp_2", "all"), ("plain_2", "plain")])
@torch.no_grad()
def test_a_walk_on_the_plane(name, terms, visit):
    page, model = visit(f"#terms={terms}", "walk", sizes=[2]), as_the_page_has_it(ASSETS / name)[0]
    row = ROWS[name]
    edges = torch.tensor(explorer.read_json(explorer.OUT / row["plane"]["about"]["file"])["edges"])
    page.locator("#plane").scroll_into_view_if_needed()
    box = page.locator("#plane").bounding_box()

    def go(across, down):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])

    go(0.1, 0.1)
    page.mouse.down()
    for step in range(40):  # faster than it can be drawn: what counts is where it ends
        go(0.1 + 0.017 * step, 0.1 + 0.005 * step)
    go(0.8, 0.3)
    page.mouse.up()
    z = edges[:, 0] + torch.tensor([0.8, 0.7]) * (edges[:, 1] - edges[:, 0])
    looks_like(page, "#here", model.decode(z.view(1, 2, 1, 1))[0, 0], most=12)  # of a whole pixel
    units = place(page)
    mean, std = torch.tensor([row.get("mean", [0, 0]), row.get("std", [1, 1])])
    assert (units * std + mean - z).abs().max() < 0.01 * (edges[:, 1] - edges[:, 0]).max()
    page.mouse.click(box["x"] + 5, box["y"] + 5, button="right")
    page.locator("#plane").focus()
    for key, times in (("ArrowRight", 10), ("ArrowUp", 3), ("ArrowDown", 1)):
        for _ in range(times):
            page.keyboard.press(key)
    assert (place(page) - units - torch.tensor([1.0, 0.2])).abs().max() < 2e-3
    before = pixels(page, "#plane")
    page.get_by_label("show test digits").uncheck()
    changes(page, "#plane", before)
    until(page, "location.hash.includes('dots=0')")


def test_of_many_calls_the_last_is_always_made(visit):
    """As in a drag, which is drawn more slowly than it moves."""
    seen = visit().evaluate("""async () => {
      const seen = [], ends = [];
      const work = (n) => new Promise((end) => { seen.push(n); ends.push(end); });
      const call = explorer.latest(document.createElement("p"), work);
      const end = async () => { ends.shift()(); while (!ends.length) await null; };
      const over = [1, 2, 3, 4].map((n) => call(n))[0];
      await end();
      call(5);
      await end();
      ends.shift()();
      await over;
      return seen;
    }""")
    assert seen == [1, 4, 5]


@torch.no_grad()
def test_what_is_drawn_on_the_plane(visit):
    page, model = visit("#z=3,3", "walk"), as_the_page_has_it(ASSETS / "sharp_2")[0]
    says(page, "#plane-words", "Dots")
    about = explorer.read_json(explorer.OUT / ROWS["sharp_2"]["plane"]["about"]["file"])
    (left, right), (low, high) = about["edges"]
    colour = """([x, y]) => [...document.querySelector("#plane").getContext("2d")
      .getImageData(Math.round(x), Math.round(y), 1, 1).data].slice(0, 3)"""

    def at(x, y):
        across, down = (x - left) / (right - left), (high - y) / (high - low)
        return page.evaluate(colour, [700 * across, 700 * down])

    assert at(3.0 - 16 * 6 / 700, 3.0) == [255, 211, 61]  # an arm of the walker's cross
    *place, digit = about["dots"][-1]  # the last is covered by none
    assert at(*place) == [*bytes.fromhex(COLOURS[digit][1:])]
    q = model.encode(first(7))
    (x, y), (wide, tall) = q.mean.flatten().tolist(), (20 * q.std.flatten()).tolist()
    assert wide > 1.2 * tall  # ten times two standard deviations
    for place in ((x + wide, y), (x - wide, y), (x, y + tall), (x, y - tall)):
        assert min(at(*place)) > 200


@torch.no_grad()
def test_sliders_buttons_and_the_way_between_digits(visit):
    page, model = visit("#at=16", "walk"), as_the_page_has_it(ASSETS / "sharp_16")[0]
    start = model.encode(first(7)).mean.flatten()
    page.locator("#sliders input").nth(4).fill("-1.5")
    moved = place(page)
    assert moved[4] == -1.5
    assert (moved - start)[torch.arange(16) != 4].abs().max() < 2e-3
    looks_like(page, "#here", model.decode(moved.view(1, 16, 1, 1))[0, 0])
    page.get_by_role("button", name="To the origin").click()
    assert not place(page).any()
    page.get_by_role("button", name="Random point").click()
    assert place(page).unique().numel() > 12  # of draws, which are rounded
    page.get_by_role("button", name="To my digit").click()
    looks_like(page, "#here", model.decode(start.view(1, 16, 1, 1))[0, 0])
    page.locator("#from").select_option("4")
    page.locator("#to").select_option("9")
    a, b = (model.encode(first(digit)).mean.flatten() for digit in (4, 9))
    angle = torch.arccos(a @ b / a.norm() / b.norm())
    for share in (0, 25, 100):
        page.locator("#along").fill(str(share))
        arc = ((1 - share / 100) * angle).sin() * a + (share / 100 * angle).sin() * b
        looks_like(page, "#here", model.decode((arc / angle.sin()).view(1, 16, 1, 1))[0, 0])
    play = page.locator("#play")
    play.click()
    says(page, "#play", "Stop")
    until(page, "Number($('#along').value) > 5")
    play.click()
    says(page, "#play", "Play")
    stopped = page.locator("#along").input_value()
    page.evaluate(FRAMES, 20)
    assert page.locator("#along").input_value() == stopped
    play.click()
    page.locator("#along").fill("30")  # a visitor's hand goes first
    says(page, "#play", "Play")
    page.evaluate(FRAMES, 20)
    assert page.locator("#along").input_value() == "30"
    play.click()
    until(page, "$('#along').value === '100' && $('#play').textContent === 'Play'")


def test_ask_for_a_class_and_keep_the_style(visit):
    page = visit("#at=16-told&x=3", "walk")
    says(page, "#here-words", "Read as 3")  # it is told what the judge reads
    assert len(set(pixels(page, "#told canvas"))) == 10
    page.locator("#told input").nth(4).check()
    says(page, "#here-words", "Read as 4")
    assert pixels(page, "#here") == pixels(page, "#told canvas")[4:5]
    page.get_by_role("button", name="To my digit").click()
    says(page, "#here-words", "Read as 3")


def test_watch_the_flow(visit):
    page = visit("#part=flow", "flow")
    page.get_by_label("8", exact=True).check()
    says(page, "#flow-words", "read as 8")
    last, film = pixels(page, "#now"), pixels(page, "#film canvas")
    assert len(set(film)) == 9
    page.locator("#time").fill("0")
    changes(page, "#now", last)
    says(page, "#flow-words", "Noise")
    page.locator("#run").click()
    says(page, "#run", "Stop")
    until(page, "$('#time').value === '8' && $('#run').textContent === 'Play'")
    page.locator("#film button").nth(2).click()
    until(page, "$('#time').value === '2'")
    page.locator("#guidance").fill("3")
    changes(page, "#film button:last-child canvas", film[-1:])
    page.get_by_role("button", name="Other noise").click()
    changes(page, "#film canvas", film)


def test_a_view_is_opened_again_from_its_address(visit):
    page = visit()
    stroke(page, SEVEN)
    page.get_by_label("MSE + KL").check()
    page.get_by_role("button", name="Draw others").click()
    look(page, "walk")
    page.locator("#spaces input[value='4']").check()
    page.locator("#from").select_option("1")
    page.locator("#along").fill("40")
    look(page, "flow")
    page.get_by_label("6", exact=True).check()
    page.locator("#guidance").fill("2")
    page.locator("#time").fill("4")
    page.get_by_role("button", name="Other noise").click()
    until(page, "location.hash.includes('noise=2')")
    again = visit(page.evaluate("location.hash"), sizes=[2, 4, 16, 98])
    for part in ("flow", "walk", "draw"):
        look(again, part)
    same = "canvas:not(#pad, #plane, #told canvas)"  # on the pad are lines; others are hidden
    until(page, "!orders.size")
    becomes(again, same, pixels(page, same))
    assert again.locator("#from").input_value() == "1"
    page.evaluate("(hash) => location.hash = hash", "#x=2&terms=plain")  # by hand, in an open page
    says(page, ".column dd", "2")
    assert page.get_by_label("MSE alone").is_checked()


def test_an_address_that_makes_no_sense_is_the_start(visit):
    strange = "#terms=x&at=../..&z=9,a&ask=77&w=-3&t=1e9&seed=&part=nowhere&say=10&along=200&from=q"
    could_be_and_is_not_here = "#at=7-told&z=1,2,3&x=a"
    everything = "canvas:not(#told canvas)"  # which are hidden
    shown = None
    for hash_ in ("", strange, could_be_and_is_not_here):
        page = visit(hash_, "flow")
        look(page, "walk")
        if hash_ == strange:
            becomes(page, everything, shown)
        shown = pixels(page, everything)
    # an address of a visitor's, over which the page has just written that of a change before
    page.evaluate("location.hash = '#x=3'; history.replaceState(null, '', '#x=5')")
    until(page, "explorer.current().x === '3'")


def test_it_goes_on_without_a_network(visit):
    page = visit(sizes=[2], expected=["ERR_INTERNET_DISCONNECTED"])
    page.context.set_offline(True)
    before = pixels(page, COLUMNS)
    stroke(page, SEVEN)
    changes(page, COLUMNS, before)
    page.get_by_label("MSE + KL").check()  # of which nothing was loaded
    page.wait_for_selector(".column .failure:not([hidden])")
    page.context.set_offline(False)
    page.get_by_label("all four terms").check()
    page.get_by_label("MSE + KL").check()
    until(page, "!$('.column .failure:not([hidden])')")


def test_the_smallest_model_comes_first_and_what_is_not_looked_at_is_not_loaded(visit):
    early = {INDEX["judge"]["file"]} | {file["file"] for file in FIRST[0]["files"].values()}
    held = []

    def hold(route):
        name = route.request.url.split("/")[-1]
        route.continue_() if name in early or not early else held.append(route)

    page, asked = visit("#part=draw", broken={"**/*.onnx.gz": hold}), visit.asked
    until(page, "$('.column[data-numbers=\"2\"]:not(.waiting)')")
    assert page.locator(".column.waiting").count() == 3
    words = page.locator("#progress").text_content()
    came, of = map(float, re.fullmatch(r"Loading: (.+) of (.+) MB", words).groups())
    assert 3 < came < of < 8
    early.clear()
    for route in held:
        route.continue_()
    until(page, "!$('.column.waiting') && !$('#progress').textContent")
    late = [file["file"] for row in ROWS.values() for kind, file in row["files"].items()
            if row["classes"] or kind == "prior" or row["terms"] == "plain"]  # fmt: skip
    assert not [url for url in asked if url.endswith(tuple(late))]
    look(page, "flow")
    assert [url for url in asked if url.endswith(late[-1])]


def test_a_broken_model_gives_a_sentence_and_leaves_the_rest_alive(visit, site):
    files = {row["numbers"]: row["files"]["encoder"]["file"] for row in FIRST}
    content = (site.folder / "models" / files[16]).read_bytes()
    answers = {4: missing, 16: lambda route: route.fulfill(body=content[: len(content) // 2]),
               98: lambda route: route.fulfill(body=b"<!doctype html><p>Not found")}  # fmt: skip
    page = visit(broken={f"**/{files[numbers]}": answer for numbers, answer in answers.items()})
    for numbers in answers:
        sentence = page.locator(f".column[data-numbers='{numbers}'] .failure")
        sentence.wait_for()
        assert f"The model of {numbers} numbers cannot be used" in sentence.text_content()
    assert page.locator(".failure:visible").count() == 3
    alive = ".column[data-numbers='2'] canvas"
    before = pixels(page, alive)
    stroke(page, SEVEN)
    changes(page, alive, before)
    until(page, "!$('#progress').textContent")  # nothing more will come
    for numbers in answers:
        page.unroute(f"**/{files[numbers]}")
    page.locator(".column[data-numbers='4'] .failure button").click()  # Try again
    until(page, "$('.column[data-numbers=\"4\"] .failure').hidden")
    page.evaluate("dispatchEvent(new Event('online'))")
    until(page, "$$('.failure').every((one) => one.hidden)")


def test_what_was_missing_is_asked_for_again(visit):
    plane = ROWS["sharp_2"]["plane"]["about"]
    runtime = "The runtime that computes the models cannot be used"
    told = {"**/worker-*.js": runtime, "**/ort.wasm.gz": runtime,
            f"**/{INDEX['judge']['file']}": "The judge cannot be used",
            f"**/{plane['file']}": "The decoded plane cannot be shown"}  # fmt: skip
    page = visit("#part=walk", sizes=[2], broken=dict.fromkeys(told, missing))
    for pattern, sentence in told.items():
        says(page, "#walk-failure", sentence)
        page.unroute(pattern)
        page.get_by_role("button", name="To the origin").click()
        page.get_by_role("button", name="Random point").click()
    until(page, "$('#walk-failure').hidden && $('#plane-words').textContent.includes('Dots')")
    page.evaluate("dispatchEvent(new Event('online'))")  # if the first part was looked at, too
    until(page, "$$('#draw .failure, #walk .failure').every((one) => one.hidden)")


@pytest.mark.parametrize("path", ["some/fork/", ""])
def test_links_lead_to_the_repository_on_whose_pages_it_stands(path, context, site):
    repository = f"somebody/{'some' if path else 'somebody.github.io'}"
    page, root = context.new_page(), site.folder.parents[1] if path else site.folder
    with serve(root) as url:
        page.goto(url.replace("127.0.0.1", "somebody.github.io") + path)
        href = page.locator("#colab:visible").get_attribute("href")
    assert f"colab.research.google.com/github/{repository}/blob/main/" in href
    shown = page.get_by_text("this repository").get_attribute("href")
    assert shown == f"https://github.com/{repository}"
    page.close()


def test_a_word_that_is_no_link_does_not_look_like_one(visit):
    word = visit().get_by_text("this repository")  # whose address nobody has stamped
    colours = word.evaluate("one => [one, one.parentElement].map((p) => getComputedStyle(p).color)")
    assert (colours[0] == colours[1]) == (word.get_attribute("href") is None)


def test_without_models_there_is_a_sentence(visit):
    page = visit("#part=draw", broken={"**/index.json": missing})
    page.wait_for_selector("#failure:not([hidden])")
    assert "models cannot be loaded" in page.locator("#failure").text_content()


def test_opened_from_disk_there_is_a_sentence(context, site):
    page = context.new_page()
    page.goto(f"file://{site.folder}/index.html")
    assert "through a server (make explorer)" in page.locator("#failure:visible").text_content()
    page.close()


def test_a_canvas_that_is_not_read_as_it_was_painted_gives_a_sentence(visit):
    page = visit("#x=4", sizes=[2])
    before = pixels(page, COLUMNS)
    page.evaluate("""() => {  // as some browsers do against fingerprinting
      const real = CanvasRenderingContext2D.prototype.getImageData;
      CanvasRenderingContext2D.prototype.getImageData = function (...given) {
        const image = real.apply(this, given);
        return image.data.forEach((_, i) => (image.data[i] = 256 * Math.random())), image;
      };
    }""")
    stroke(page, SEVEN)
    says(page, ".paper .failure:not([hidden])", "does not let a page read what is drawn")
    becomes(page, COLUMNS, before)  # nothing was made of noise
    page.get_by_label("Test digit 7").click()
    until(page, "$('.paper .failure').hidden")
    changes(page, COLUMNS, before)


def test_the_picture_of_somebody_who_draws(visit, tmp_path, monkeypatch):
    monkeypatch.setattr(explorer_page, "STROKES", [SEVEN[:2]])  # the bar of a seven
    frames = explorer_page.record(visit(sizes=[2]))
    explorer_page.write_gif(frames, path := tmp_path / "explorer.gif")
    assert path.stat().st_size < 2e5
    assert len({frame.tobytes() for frame in frames}) > 5
