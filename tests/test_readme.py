"""The README and the other pages: their tables, links, images and code."""

import json
import re

import pytest
import readme
from common import ROOT

import vae

PAGES = readme.PAGES


def test_the_tables_are_those_of_the_files_that_they_come_from():
    pages = {page: page.read_text("utf-8") for page in PAGES}
    assert readme.filled() == pages, "run `make notebooks`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_lead_somewhere(page):
    text = page.read_text("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    relative = [target for target in targets if not re.match(r"https://", target)]
    assert relative or page.name != "README.md"
    for target in relative:
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"(?m)^#+ (.+)$", there.read_text("utf-8"))
            names = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in titles]
            assert anchor in names, target  # as GitHub names them


def test_the_readmes_examples_run_with_every_kind_of_shipped_model(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = "".join(page.read_text("utf-8") for page in PAGES)
    first, second = re.findall(r"```python\n(.*?)```", text, re.S)
    assert max(len(code.strip().splitlines()) for code in (first, second)) <= 12
    kinds = {}  # a model of each: their sizes alone differ
    for path in sorted((ROOT / "assets").glob("*/config.json")):
        if path.parent.name != "second_judge":
            config = json.loads(path.read_text("utf-8")) | {"latent_size": 0}
            kinds[json.dumps(config)] = path.parent.name
    for name in kinds.values():
        exec(first.replace("latent_2", name).replace(":100]", ":7]"), made := {})
        assert made["y"].shape == (8, *made["model"].config.image_shape), name
    assert capsys.readouterr().out.count("'sample': {'mse'") == len(kinds) == 7
    exec(second, {})
    assert float(capsys.readouterr().out) >= 0.8


def test_the_pages_say_which_shipped_models_are_whole_runs():
    whole = {path.parent.name for path in (ROOT / "assets").glob("*/frames.npz")}
    for name in whole:
        vae.Run.load(ROOT / "assets" / name)
    told = r"Of these folders (.*?) have the files of a run"
    patterns = re.findall(r"`(.+?)`", re.search(told, text_of("how-to.md"), re.S)[1])
    named = [*(ROOT / "assets").glob("[lgcs]*_*/config.json")]
    assert whole == {p.parent.name for p in named if any(p.parent.match(one) for one in patterns)}


def text_of(page):
    return (ROOT / "docs" / page).read_text("utf-8")


def test_the_pages_stay_short():
    """What was tried, in `notes.md`, is not counted."""
    text, listed = (ROOT / "README.md").read_text("utf-8"), text_of("README.md")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert all(page == "README.md" or f"({page})" in listed for page in pages)
    assert len(text.splitlines()) <= 190
    assert len(pages) <= 11
    assert sum(len(text_of(page).split()) for page in pages - {"notes.md"}) <= 13_000
    shown = set(re.findall(r'(?:\(|src=")(assets/[^)"]+\.(?:png|gif))', text))
    assert len(shown) > 10
    assert sum((ROOT / picture).stat().st_size for picture in shown) <= 4e6
    words = "heed", "has a say", "have a say", "bears noise"
    assert not [w for w in words for page in PAGES if w in page.read_text("utf-8")]


def test_every_test_that_the_pages_name_is_there():
    there = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    for page in PAGES:
        for name, cut in re.findall(r"`(test_\w+)(…?)`", page.read_text("utf-8")):
            assert f"def {name}" + ("" if cut else "(") in there, (page.name, name)
