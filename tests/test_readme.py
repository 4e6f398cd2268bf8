"""The README and the other pages: their tables, links, images and code."""

import re

import pytest
import readme
from common import ROOT

PAGES = readme.PAGES


def test_the_tables_are_those_of_the_files_that_they_come_from():
    pages = {page: page.read_text("utf-8") for page in PAGES}
    assert readme.filled(dict(pages)) == pages, "run `make notebooks`"


def headings(text):
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


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
        assert not anchor or anchor in headings(there.read_text("utf-8")), target


def test_the_readmes_examples_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = "".join(page.read_text("utf-8") for page in PAGES)
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(examples) == 2
    for code in examples:
        assert len(code.strip().splitlines()) <= 11
        exec(code, {})
    reconstructed, read = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert "'sample': {'mse'" in reconstructed
    assert float(read) >= 0.8


def test_the_readme_is_short_and_every_page_of_the_docs_is_listed():
    text, listed = (
        page.read_text("utf-8") for page in (ROOT / "README.md", ROOT / "docs" / "README.md")
    )
    assert len(text.splitlines()) <= 250
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in listed
    words = "heed", "has a say", "have a say", "bears noise"
    assert not [w for w in words for page in PAGES if w in page.read_text("utf-8")]


def test_every_test_that_the_pages_name_is_there():
    there = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    for page in PAGES:
        for name, cut in re.findall(r"`(test_\w+)(…?)`", page.read_text("utf-8")):
            assert f"def {name}" + ("" if cut else "(") in there, (page.name, name)
