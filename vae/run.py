"""A run's folder: what training leaves in it, and how it is read again."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from .files import FileError, read_json, write_atomically
from .frames import Frames
from .model import VAE

METRICS_NAME = "metrics.json"
FRAMES_NAME = "frames.npz"


@dataclass
class Run:
    """A run: its folder, its model (EMA weights), `metrics.json` as a dict, and its frames."""

    directory: Path
    model: VAE
    metrics: dict
    frames: Frames

    @classmethod
    def load(cls, directory: str | Path) -> "Run":
        """Read a run's folder. Raises `FileError` (a `ValueError`) naming the file at fault."""
        directory = Path(directory)
        return cls(
            directory,
            VAE.from_pretrained(directory),
            read_metrics(directory),
            Frames.load(directory / FRAMES_NAME),
        )

    def save(self) -> None:
        """Write everything but the pictures, each file in one step; `metrics.json` comes last."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(self.directory)
        self.frames.save(self.directory / FRAMES_NAME)
        text = json.dumps(self.metrics, indent=1) + "\n"
        write_atomically(self.directory / METRICS_NAME, lambda path: path.write_text(text))


def read_metrics(directory: Path) -> dict:
    """A folder's `metrics.json`. Raises `FileError` (a `ValueError`) naming it."""
    path = directory / METRICS_NAME
    metrics = read_json(path, "a run's metrics")
    try:
        rows = [row for split in ("train", "test") for row in metrics["history"][split]]
        tables = [metrics["test"][kind] for kind in ("sample", "mean")] if "test" in metrics else []
        numbers = [value for row in rows + tables for value in row.values()]
        valid = all(isinstance(value, (int, float)) for value in numbers)
        valid = valid and isinstance(metrics["config"], dict) and all("epoch" in r for r in rows)
    except (TypeError, KeyError, AttributeError):
        valid = False
    if not valid:
        raise FileError(f"{path} is not a run's metrics: its 'config', 'history' or 'test' is not")
    return metrics


def is_finished(directory: Path) -> bool:
    """Whether `directory` holds a run that was trained to its end."""
    return (directory / METRICS_NAME).is_file() and "test" in read_metrics(directory)


def describe_environment(device: torch.device, precision: str, processes: int) -> dict:
    """The versions and the hardware that a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "hardware": _hardware(device),
        "threads": torch.get_num_threads(),
        "mixed_precision": precision,
        "processes": processes,
        "commit": _commit(),
    }


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory in use at any time, in MiB: a GPU's own, or the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _commit() -> str | None:
    """The commit of the checkout that holds this package, "-dirty" where the package differs."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], check=True,
                       capture_output=True)  # fmt: skip
        commit, changes = (
            subprocess.run([*git, *command], check=True, capture_output=True, text=True).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "."))
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or an installed package
        return None
    return commit.strip() + ("-dirty" if changes else "")


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0].split(":")[1].strip() if models else name
    return f"{name}, {os.cpu_count()} cores"
