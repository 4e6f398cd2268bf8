"""What the tools share: places, tables, the parts of `assets/`, and how long things take."""

import io
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from vae import TrainConfig, Trainer
from vae.judge.classifier import FOLDER
from vae_store.files import sha256, write_atomically, write_json
from vae_store.folder import METRICS_NAME, is_finished, read_metrics
from vae_store.settings import from_saved

ROOT = Path(__file__).parent.parent
ASSETS, RUNS = ROOT / "assets", ROOT / "runs" / "results"
JUDGE = FOLDER / "model.safetensors"
PROBE, PROBE_STEPS = "latent_16", 20  # five rounds of the terms that count every fourth step
FULL_SECONDS = 1500  # of a training in full of which there is no record


@dataclass
class Part:
    """Something that `assets/` shows, made by `make` unless it is `done`."""

    kind: str
    name: str
    seconds: float  # on the machine that trained the shipped models
    done: Callable[[], bool]
    make: Callable[[], object]
    command: str = ""

    def __post_init__(self):
        self.group = self.name.partition("/")[0]
        alone = f"python tools/results.py --only {shlex.quote(self.name)}"
        self.command = self.command or alone


def training(name: str, flags: str, usual: float, keep: Callable | None = None,
             verb: str = "train") -> Part:  # fmt: skip
    """A training in `runs/results`, unless it is finished there, and `keep(name)` to ship it.

    `usual`: its seconds, where there is no record of a CPU's. `verb`: the command, or "sharpen".
    """
    folder, place = RUNS / name, shlex.quote(str(RUNS.relative_to(ROOT) / name))
    command = f"python -m vae {verb} {flags} --resume --run-dir {place}"

    def done() -> bool:
        shipped = is_finished(ASSETS / name) or bool(row(name))
        return shipped or (keep is None and is_finished(folder))

    def make() -> None:
        if not is_finished(folder):
            run(command)
        if keep:
            keep(name)

    record = read_json(ASSETS / name / METRICS_NAME) or row(name)
    if record.get("environment", {}).get("device") == "cuda":  # of another kind of machine
        record = {}
    return Part(verb, name, record.get("seconds", {}).get("all", usual), done, make, command)


def measurement(name: str, seconds: float, weights: list[Path], measure: Callable) -> Part:
    """A row of a table, which `measure()` gives; out of date when the weights are others.

    `weights`: of what is measured, after those of the judge, if it is judged.
    """
    return Part(
        "measure", name, seconds,
        done=lambda: bool(row(name)) and is_of(row(name).get("weights"), weights),
        make=lambda: keep_row(name, measure() | {"weights": fingerprint(*weights)}),
    )  # fmt: skip


def picture(name: str, shown: list[Path], draw: Callable[[], Figure]) -> Part:
    """A picture; out of date when a file of those that it shows is another."""
    path = ASSETS / f"{name}.png"

    def done() -> bool:
        if not path.is_file():
            return False
        with Image.open(path) as image:
            return is_of(image.info.get("Shows"), shown)

    def make() -> None:
        figure, note = draw(), {"Shows": fingerprint(*shown)}
        figure.savefig(buffer := io.BytesIO(), format=path.suffix[1:], metadata=note)
        write_atomically(path, buffer.getvalue())

    return Part("draw", f"picture/{name}", 10, done, make)


def run(command: str) -> None:
    """Run a `python ...` in a process of its own, in the repository. Raises if it fails."""
    subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=ROOT, check=True)


def read_json(path: Path) -> dict:
    """A table: rows by their names; empty where there is no file yet."""
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
    rows = place = read_json(ASSETS / f"{table}.json")
    for key in keys:
        place = place.setdefault(key, {})
    place[last] = content
    write_json(ASSETS / f"{table}.json", rows)


def fingerprint(*files: Path) -> str:
    """Of what was measured with and drawn from: where it differs, a row is out of date."""
    return sha256(b"".join(path.read_bytes() for path in files))[:16]


def is_of(mark: str | None, files: list[Path]) -> bool:
    """Whether `mark` is the fingerprint of the files."""
    missing = [file for file in files if not file.is_file()]
    if missing:  # runs are not shipped: what was made of one that is not here stays as it is
        return all(file.is_relative_to(RUNS) for file in missing)
    return mark == fingerprint(*files)


def build_trainer(config: TrainConfig) -> Trainer:
    """A trainer to take steps with: it leaves nothing on disk."""
    with tempfile.TemporaryDirectory() as folder:
        return Trainer(config, folder)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, waiting for the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_steps(trainer: Trainer, steps: int) -> float:
    """Seconds for one training step, averaged over `steps`."""
    taken = seconds(lambda: [trainer.optimize() for _ in range(steps)], trainer.device)
    trainer.log.recent.clear()
    return taken / steps


def in_turns(work: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what each call returns; within a round they take turns."""
    found = {name: [] for name in work}
    for _ in range(rounds):
        for name, measure in work.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def slowness() -> float:
    """How many times as long as PROBE's recorded one a training step takes here; 1 without it."""
    if not is_finished(ASSETS / PROBE):
        return 1.0
    metrics = read_metrics(ASSETS / PROBE)
    recorded = metrics["seconds"]["training"] / metrics["history"]["test"][-1]["step"]
    config = from_saved(TrainConfig, metrics["config"])
    trainer = build_trainer(replace(config, adversarial_start=0.0))  # as three steps of four are
    time_steps(trainer, 4)  # the first are slower
    return time_steps(trainer, PROBE_STEPS) / recorded
