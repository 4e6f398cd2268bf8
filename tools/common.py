"""What the tools share: folders, tables, and the parts of `assets/` that `results.py` makes."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vae.machinery.folder import read_metrics
from vae.machinery.judge import FOLDER
from vae.pretrained import sha256, write_json

ROOT = Path(__file__).parent.parent
ASSETS, RUNS = ROOT / "assets", ROOT / "runs" / "results"
JUDGE = FOLDER / "model.safetensors"


class Part(NamedTuple):
    """Something that `assets/` shows: `make` makes it where it is not `done`."""

    name: str  # "group/name"
    done: Callable[[], bool]
    make: Callable[[], object]
    command: str = ""  # other than that of `results.py`


def measurement(name: str, weights: list[Path], measure: Callable[[], dict]) -> Part:
    """A row that `measure` gives; it is out of date when files of `weights` are others."""
    return Part(
        name,
        lambda: bool(row(name)) and is_of(row(name).get("weights"), weights),
        lambda: keep_row(name, measure() | {"weights": fingerprint(*weights)}),
    )


def run(command: str, program: str | Path = sys.executable, **variables: str) -> None:
    """Run a `python ...` in a process of its own, in the repository. Raises if it fails."""
    words, environment = shlex.split(command)[1:], os.environ | variables
    subprocess.run([program, *words], cwd=ROOT, check=True, env=environment)


def shipped(name: str) -> dict:
    """The metrics of a run in `assets/`."""
    return read_metrics(ASSETS / name)


def read_json(path: Path) -> dict:
    """A file of rows by their names; empty where there is no file yet."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def row(name: str) -> dict:
    """The row "table/key" of `assets/table.json`, or "table/key/key"; empty where there is none."""
    table, *keys = name.split("/")
    found = read_json(ASSETS / f"{table}.json")
    for key in keys:
        found = found.get(key, {})
    return found


def keep_row(name: str, content: dict) -> None:
    """Write the row `name`."""
    table, *keys, last = name.split("/")
    rows = inner = read_json(ASSETS / f"{table}.json")
    for key in keys:
        inner = inner.setdefault(key, {})
    inner[last] = content
    write_json(ASSETS / f"{table}.json", rows)


def fingerprint(*files: Path) -> str:
    """A mark of the files: where it differs, what was made of them is out of date."""
    return sha256(b"".join(path.read_bytes() for path in files))[:16]


def is_of(mark: str | None, files: list[Path]) -> bool:
    """Whether `mark` is the fingerprint of the files."""
    missing = [file for file in files if not file.is_file()]
    if missing:  # runs are not shipped: what was made of one that is not here stays as it is
        return all(file.is_relative_to(RUNS) for file in missing)
    return mark == fingerprint(*files)


def table(name: str, rows: list[Mapping]) -> str:
    """A Markdown table: the heading in `tables.md`, and its lines for each of the rows."""
    text = Path(__file__).with_name("tables.md").read_text("utf-8")
    heading, *forms = text.partition(f"<!-- {name} -->\n")[2].partition("\n\n")[0].splitlines()
    lines = [heading, "| " + " | ".join(["---"] * (heading.count(" | ") + 1)) + " |"]
    for values in rows:
        for form in forms:
            cells = (cell(one, values) for one in form.strip("| ").split(" | "))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(form: str, values: Mapping) -> str:
    """The text of a form, or a dash where it names a value that is not there."""
    try:
        return form.strip().format_map(values)
    except KeyError:
        return "–"
