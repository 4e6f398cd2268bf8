"""The README and the other pages: their tables, links, images and code."""

import re

import pytest
import readme
from results import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_tables_are_those_of_the_files_that_they_come_from():
    text = readme.README.read_text()
    assert readme.filled(text) == text, "run `make notebooks`"


def headings(text):
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    relative = [target for target in targets if not re.match(r"https://", target)]
    assert relative or page.name != "README.md"
    for target in relative:
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), target
        assert not anchor or anchor in headings(there.read_text()), target


def test_the_readmes_examples_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"```python\n(.*?)```", readme.README.read_text(), re.S)
    assert len(examples) == 2
    for code in examples:
        assert len(code.strip().splitlines()) <= 11
        exec(code, {})
    reconstructed, read = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert "'sample': {'mse'" in reconstructed
    assert float(read) >= 0.8
