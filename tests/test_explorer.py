"""The page in `explorer/`: its numbers are PyTorch's, and a visitor can do what it says.

Needs Node and a Chromium. Where they are not there, tests are skipped, which says so; they must be
there if EXPLORER_TESTS is "must", as `.ci/run` sets it.
"""

import base64
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import explorer_models as explorer
import pytest
import torch
from common import ASSETS, ROOT
from explorer_page import (
    BROWSERS,
    browser,
    look,
    places,
    record,
    serve,
    wait_until_ready,
    write_gif,
)

import vae
from vae.checks import gaussian
from vae.judge import Judge

HERE = ROOT / "explorer"
MODELS = list(explorer.read_json(explorer.LIST))
DIGITS = 100
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
TYPES = {torch.float32: "float32", torch.int64: "int64"}

pytestmark = pytest.mark.unix


def needed(names, what):
    """The first of these programs that is there; the tests are skipped without one, or fail."""
    found = next(filter(None, (shutil.which(name, path=PATH) for name in names)), None)
    if not found and os.environ.get("EXPLORER_TESTS") == "must":
        pytest.fail(f"{what} is not installed, and EXPLORER_TESTS=must")
    return found or pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="session")
def folder():
    """The page's models, made where they are missing."""
    explorer.main([])
    return explorer.OUT


@pytest.fixture(scope="session")
def index(folder):
    return json.loads((folder / "index.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def packages():
    """npm, when what the page is built with is installed."""
    npm = needed(["npm"], "Node")
    parts = [f"BIN={Path(sys.executable).parent}", "explorer/node_modules/.package-lock.json"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-o", "install", *parts], cwd=ROOT, env=clean, check=True)
    return npm


@pytest.fixture(scope="session")
def site(folder, packages, tmp_path_factory):
    """The built page on a server: its address, which is never the root of a forge's, its folder."""
    root = tmp_path_factory.mktemp("site")
    out = root / "some" / "fork"
    command = [packages, "run", "build", "--", "--outDir", out, "--emptyOutDir"]
    ran = subprocess.run(command, cwd=HERE, env=os.environ | {"PATH": PATH}, capture_output=True)
    assert ran.returncode == 0, ran.stdout.decode()
    with serve(root) as url:
        yield SimpleNamespace(url=f"{url}some/fork/", folder=out)


@functools.lru_cache
def given():
    """Test digits in [-1, 1], with their labels."""
    images, labels = vae.load_digits("test")
    return vae.scale_images(images[:DIGITS]), labels[:DIGITS]


@functools.lru_cache
def as_the_page_has_it(name):
    """A model, or the judge, with the rounded weights of the page."""
    return explorer.judge() if name == "judge" else explorer.load(ASSETS / name)[0]


def prior():
    name = next(name for name in MODELS if (ASSETS / name / "prior.json").is_file())
    return name, explorer.load(ASSETS / name)[1]


def noise(model, n=DIGITS, seed=1):
    return gaussian(n, *model.config.latent_shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected, tolerance=1e-3):
    """Within what the page promises, relative to values above 1."""
    torch.testing.assert_close(found.view(expected.shape), expected, rtol=tolerance, atol=tolerance)


# Node: every file, on every digit ------------------------------------------------------------


def in_node(folder, jobs):
    """What the page's runtime computes of (file, inputs): for each, tensors by their names."""

    def packed(tensor):
        data = base64.b64encode(tensor.contiguous().numpy().tobytes()).decode()
        return {"type": TYPES[tensor.dtype], "dims": list(tensor.shape), "data": data}

    asked = [{"file": file, "inputs": {k: packed(v) for k, v in inputs.items()}}
             for file, inputs in jobs]  # fmt: skip
    command = [needed(["node"], "Node"), "tests/run.mjs", folder]
    ran = subprocess.run(command, cwd=HERE, input=json.dumps(asked).encode(), capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    return [{name: torch.frombuffer(bytearray(base64.b64decode(data)), dtype=torch.float32)
             for name, data in answer.items()} for answer in json.loads(ran.stdout)]  # fmt: skip


@torch.no_grad()
def test_every_file_gives_in_node_what_pytorch_gives(folder, index, packages):
    x, labels = given()
    jobs, expected = [(index["judge"]["file"], {"image": x})], [{"logits": explorer.judge()(x)}]
    for row in index["models"]:
        model, files = as_the_page_has_it(row["name"]), row["files"]
        told = {"label": labels} if row["classes"] else {}
        token = model.class_token(told.get("label"), DIGITS)
        q = model.encode(x, *told.values()).gaussian
        code = model.encoder(x, token).chunk(2, dim=1)[0]
        z = noise(model)
        jobs.append((files["encoder"]["file"], {"image": x} | told))
        expected.append({"mean": code, "logvar": q.logvar})
        jobs.append((files["decoder"]["file"], {"code": code} | told))
        expected.append({"image": model.decoder(code, token)})
        if "couplings" in files:
            jobs.append((files["couplings"]["file"], {"code": code, "z": z} | told))
            latent, log_det = model.couplings.inverse(code, token)
            u = model.couplings(z, token)
            expected.append({"latent": latent, "log_det": log_det, "u": u})
        if "prior" in files:
            _, network = prior()
            t, z = torch.linspace(0, 1, DIGITS), noise(model)
            jobs.append((files["prior"]["file"], {"latent": z, "t": t, "label": labels}))
            expected.append({"velocity": network(z, t, labels)})
    for answer, right in zip(in_node(folder, jobs), expected, strict=True):
        for name, tensor in right.items():
            close(answer[name], tensor)


# What rounding does ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_rounded_weights_change_no_digit(name):
    effect = explorer.rounding(ASSETS / name, DIGITS)
    assert effect["difference"] < 0.01
    assert abs(effect["mse"]) < 0.02
    assert effect["changed"] == 0


@torch.no_grad()
def test_the_rounded_judge_reads_as_the_judge():
    x = vae.scale_images(vae.load_digits("test").images[:2000])
    before, after = Judge.from_pretrained()(x), explorer.judge()(x)
    assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.999


def test_files_are_few_and_small(folder, index, site):
    """First view under 1.5 MB, and with the runtime and all models under 12 MB."""
    assert {row["name"] for row in index["models"]} == set(MODELS)
    size = {path: path.stat().st_size for path in site.folder.rglob("*") if path.is_file()}
    assert sum(size.values()) < 12e6
    heavy = {path for path in size if path.name.endswith((".onnx.gz", ".wasm.gz"))}
    assert sum(bytes_ for path, bytes_ in size.items() if path not in heavy) < 1.5e6


def test_a_model_that_is_trained_appears(tmp_path, monkeypatch):
    for name in ("sharp_2", "latent_2", "second_judge", "emoji"):
        shutil.copytree(ASSETS / name, tmp_path / name)
    monkeypatch.setattr(explorer, "ASSETS", tmp_path)
    assert list(explorer.models()) == ["sharp_2", "latent_2"]
    (tmp_path / "sharp_2").rename(tmp_path / "another")
    assert explorer.models()["another"]["terms"] == "all"


# In a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium():
    executable = needed(BROWSERS, "Chromium")
    pytest.importorskip("playwright")
    with browser(executable) as found:
        yield found


@pytest.fixture
def visit(chromium, site):
    """A function that opens the page. In the end nothing may have gone wrong that none expected."""
    contexts, wrong = [], []

    def open_page(hash_="", prepare=None, expected=(), **options):
        contexts.append(context := chromium.new_context(**options))
        page = context.new_page()

        def note(text):
            if not any(one in text for one in expected):
                wrong.append(text)

        def ask(request):
            if not request.url.startswith((site.url, "blob:", "data:")):
                wrong.append(request.url)

        page.on("console", lambda message: note(message.text))
        page.on("pageerror", lambda error: note(str(error)))
        page.on("request", ask)
        if prepare:
            prepare(page)
        page.goto(site.url + hash_)
        if "part=" not in hash_:
            wait_until_ready(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def pixels(page, selector):
    """What is painted on canvases, as text by which they can be told apart."""
    return page.eval_on_selector_all(selector, "all => all.map((one) => one.toDataURL())")


def until(page, condition, given=None):
    """Wait for what JavaScript says of `given`; `$` finds an element, `$$` all of them."""
    short = "const $$ = (s) => [...document.querySelectorAll(s)], $ = (s) => $$(s)[0];"
    page.wait_for_function(f"(given) => {{ {short} return {condition}; }}", arg=given)


def changes(page, selector, before):
    """Wait until every one of these canvases is another than before."""
    until(
        page, "$$(given[0]).every((one, i) => one.toDataURL() !== given[1][i])", [selector, before]
    )


def becomes(page, selector, after):
    """Wait until these canvases are as they were once."""
    until(
        page, "$$(given[0]).every((one, i) => one.toDataURL() === given[1][i])", [selector, after]
    )


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


SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]
COLUMNS = ".column canvas"

IN_BROWSER = """
async ([name, z]) => {
  const { catalog, encode, decode, decodeCode, judge, given } = window.explorer;
  const model = catalog.models.find((one) => one.name === name);
  const found = { z: [], kl: [], drawn: [] };
  for (const [i, digit] of given.labels.entries()) {
    const q = await encode(model, given.images.slice(784 * i, 784 * i + 784), digit);
    found.z.push(...q.z);
    found.kl.push(q.kl);
    found.drawn.push(...await decodeCode(model, q.code, digit));
  }
  found.read = (await judge(catalog, given.images)).flat();
  found.draws = [...await decode(model, z, given.labels)];
  return found;
}
"""
GIVE = "([x, labels]) => window.explorer.given = { images: Float32Array.from(x), labels }"


@torch.no_grad()
def test_the_page_computes_what_pytorch_computes(visit):
    page, (x, labels), read = visit(), given(), explorer.judge()(given()[0]).softmax(1)
    page.evaluate(GIVE, [x.flatten().tolist(), labels.tolist()])
    for name in MODELS:
        model = as_the_page_has_it(name)
        told, z = labels if model.config.num_classes else None, noise(model)
        found = page.evaluate(IN_BROWSER, [name, z.flatten().tolist()])
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
        close(
            torch.tensor(rates),
            torch.stack([q.kl(one.expand_as(q.mean)) for one in normals]).mean(0),
        )


@torch.no_grad()
def test_the_page_follows_the_flow_as_pytorch_does(visit):
    page, (name, network) = visit(), prior()
    z = gaussian(10, *network.latent_shape, generator=torch.Generator().manual_seed(2))
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
    page = visit()
    before = pixels(page, COLUMNS)
    assert len(before) == 5  # as the models see it; 2, 4, 16 and 98 numbers
    stroke(page, SEVEN)
    changes(page, COLUMNS, before)
    says(page, ".column dd", "7")
    until(page, "location.hash.includes('x=')")
    x = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('x')")
    image = page.evaluate("(x) => [...explorer.imageOf(explorer.catalog, x)]", x)
    image = torch.tensor(image).view(28, 28) + 1
    rows, columns = (image.sum(1 - axis).nonzero().flatten() for axis in (0, 1))
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    assert 19 <= longest <= 21  # as MNIST's, which are 20 by 20, centred by mass
    centre = [(image.sum(1 - axis) * torch.arange(28)).sum() / image.sum() for axis in (0, 1)]
    assert all(abs(value - 14) <= 0.6 for value in centre)
    assert 60 < image.sum() / 2 < 160  # of 104 on average: a stroke as wide as theirs


@pytest.mark.parametrize("width", [360, 1400])
def test_every_part_by_touch_at_both_widths(width, visit):
    page = visit(viewport={"width": width, "height": 800}, has_touch=True)
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    page.touchscreen.tap(box["x"] + 50, box["y"] + 50)
    until(page, "location.hash.includes('x=')")
    look(page, "walk")
    before = pixels(page, "#here")
    page.locator("#plane").scroll_into_view_if_needed()
    box = page.locator("#plane").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + 20)
    changes(page, "#here", before)
    look(page, "flow")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_term_switched_off_and_the_same_draws(visit):
    page = visit()
    drawing, draws, by_all = (pixels(page, name) for name in ("#pad", ".strip canvas", COLUMNS))
    two, rate = (f".column[data-numbers='2'] {part}" for part in ("canvas", "dd:nth-of-type(2)"))
    for label, says_ in (("MSE alone", "none"), ("MSE + KL", "nats")):
        page.get_by_label(label).check()
        changes(page, two, by_all[1:2])
        changes(
            page, ".strip canvas", [*draws[:36], *[""] * 12]
        )  # of 98 numbers there is one model
        says(page, rate, says_)
    assert pixels(page, "#pad") == drawing
    page.get_by_label("all four terms").check()
    becomes(page, COLUMNS, by_all)
    becomes(page, ".strip canvas", draws)
    page.get_by_role("button", name="Draw others").click()
    changes(page, ".strip canvas", draws)


def test_a_walk_on_the_plane_and_between_digits(visit):
    page = visit()
    look(page, "walk")
    before = pixels(page, "#here")
    page.locator("#plane").scroll_into_view_if_needed()
    box = page.locator("#plane").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 160, steps=4)
    page.mouse.up()
    changes(page, "#here", before)
    until(page, "location.hash.includes('z=')")
    before = pixels(page, "#here")
    page.locator("#plane").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    changes(page, "#here", before)
    page.get_by_label("16 numbers", exact=True).check()
    until(page, "$$('#sliders input').length === 16")
    page.get_by_role("button", name="To my digit").click()
    page.locator("#from").select_option("4")
    page.locator("#to").select_option("9")
    for share, digit in (("0", "4"), ("1", "9")):
        page.locator("#along").fill(share)
        says(page, "#here-words", f"Read as {digit}")


def test_ask_for_a_class_and_keep_the_style(visit):
    page = visit("#at=16-told&x=3")
    look(page, "walk")
    assert len(set(pixels(page, "#told canvas"))) == 10
    page.locator("#told input").nth(4).check()
    says(page, "#here-words", "Read as 4")
    assert pixels(page, "#here") == pixels(page, "#told canvas")[4:5]


def test_watch_the_flow(visit):
    page = visit("#part=flow")
    look(page, "flow")
    page.get_by_label("8", exact=True).check()
    says(page, "#flow-words", "read as 8")
    last = pixels(page, "#now")
    page.locator("#time").fill("0")
    changes(page, "#now", last)
    assert "Noise" in page.locator("#flow-words").text_content()
    film = pixels(page, "#film canvas")
    assert len(set(film)) == 9
    page.locator("#guidance").fill("3")
    changes(page, "#film button:last-child canvas", film[-1:])
    page.get_by_role("button", name="Other noise").click()
    changes(page, "#film canvas", film)


def test_a_view_is_opened_again_from_its_address(visit):
    page = visit("#terms=kl&at=4&z=1,-1,0.5,2&ask=6&noise=5&w=2&t=4&x=5&seed=9")
    look(page, "walk")
    look(page, "flow")
    page.wait_for_timeout(500)  # for what is still drawn, and for the address
    shown = pixels(page, "canvas")
    again = visit(page.evaluate("location.hash"))
    for part in ("flow", "walk", "draw"):
        look(again, part)
    becomes(again, "canvas", shown)
    values = [again.locator(f"#{name}").input_value() for name in ("time", "guidance")]
    assert [*values, again.locator("#sliders input").nth(3).input_value()] == ["4", "2", "2"]


def test_an_address_that_makes_no_sense_is_the_start(visit):
    strange = "#terms=x&at=../..&z=9,a&ask=77&w=-3&t=1e9&x=%00&seed=&part=nowhere&say=10"
    first, second = visit(), visit(strange)
    for page in (first, second):
        look(page, "walk")
        look(page, "flow")
    becomes(second, "canvas", pixels(first, "canvas"))
    third = visit("#at=3-told&z=1,2,3&x=AAAA")  # as such an address could be, and is not here
    look(third, "walk")


def test_it_goes_on_without_a_network(visit):
    page = visit(expected=["ERR_INTERNET_DISCONNECTED"])
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


@pytest.mark.parametrize("what", ["missing", "half", "no model", "a page"])
def test_a_broken_model_gives_a_sentence_and_leaves_the_rest_alive(what, visit, site, index):
    row = next(row for row in index["models"] if row["numbers"] == 4 and row["terms"] == "all")
    file = row["files"]["encoder"]["file"]
    content = (site.folder / "models" / file).read_bytes()
    body = {"missing": b"", "half": content[: len(content) // 2], "no model": b"x" * 5000,
            "a page": b"<!doctype html><p>Not found"}[what]  # fmt: skip
    status = 404 if what == "missing" else 200

    def break_file(page):
        page.context.route(f"**/{file}", lambda route: route.fulfill(status=status, body=body))

    page = visit(prepare=break_file, expected=["404"])
    sentence = page.locator(".column[data-numbers='4'] .failure")
    sentence.wait_for()
    assert "The model of 4 numbers cannot be used" in sentence.text_content()
    assert page.locator(".failure:visible").count() == 1
    others = ".column:not([data-numbers='4']) canvas"
    before = pixels(page, others)
    stroke(page, SEVEN)
    changes(page, others, before)


@pytest.mark.parametrize(("path", "repository"), [
    ("some/fork/", "somebody/some"), ("", "somebody/somebody.github.io")])  # fmt: skip
def test_links_lead_to_the_repository_on_whose_pages_it_stands(path, repository, chromium, site):
    page = chromium.new_page()
    port = site.url.split(":")[2].split("/")[0]
    page.route(
        "**/*",
        lambda route: route.continue_(
            url=site.url + route.request.url.split("/", 3)[3].removeprefix(path)
        ),
    )
    page.goto(f"http://somebody.github.io:{port}/{path}")
    link = page.locator("#links a")
    link.wait_for()
    assert f"colab.research.google.com/github/{repository}/blob/main/" in link.get_attribute("href")
    shown = page.get_by_text("this repository").get_attribute("href")
    assert shown == f"https://github.com/{repository}"
    page.close()


def test_without_models_there_is_a_sentence(chromium, site):
    page = chromium.new_page()
    page.route("**/index.json", lambda route: route.fulfill(status=404))
    page.goto(site.url)
    page.wait_for_selector("#failure:not([hidden])")
    assert "models cannot be loaded" in page.locator("#failure").text_content()
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1400, "dark")])
def test_nobody_is_kept_out(width, scheme, visit):
    """The rules of WCAG that axe can check: names of controls, contrast, roles, order of titles."""
    page = visit("#at=16-told", viewport={"width": width, "height": 900}, color_scheme=scheme)
    look(page, "walk")
    look(page, "flow")
    page.add_script_tag(path=HERE / "node_modules" / "axe-core" / "axe.min.js")
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    assert not [(one["id"], node["html"][:200]) for one in found for node in one["nodes"]]


def test_what_is_not_looked_at_is_not_loaded(visit, index):
    asked = []
    page = visit(prepare=lambda page: page.on("request", lambda one: asked.append(one.url)))
    page.wait_for_timeout(500)
    late = [file["file"] for row in index["models"] for kind, file in row["files"].items()
            if row["classes"] or kind == "prior" or row["terms"] == "plain"]  # fmt: skip
    assert not [url for url in asked if url.endswith(tuple(late))]
    look(page, "flow")
    assert [url for url in asked if url.endswith(late[-1])]


def test_the_picture_of_somebody_who_draws(visit, tmp_path):
    frames = record(visit())
    write_gif(frames, path := tmp_path / "explorer.gif")
    assert path.stat().st_size < 2e6
    assert len({frame.tobytes() for frame in frames}) > 20
