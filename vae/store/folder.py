"""A run's folder: its names, its metrics, whether it can be written to, and its lock."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .files import FileError, read_json, remove_leftovers

METRICS_NAME = "metrics.json"
FRAMES_NAME = "frames.npz"
LOCK_NAME = ".lock"
FREE_SPACE = 100 * 2**20  # bytes that a run's folder may come to need


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


def check_directory(directory: Path) -> Path:
    """Raise unless a run can be written to `directory`."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"run_dir={str(directory)!r} is a file: a folder is expected")
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise OSError(f"run_dir={str(directory)!r} is not allowed: {existing} cannot be written to")
    if (free := shutil.disk_usage(existing).free) < FREE_SPACE:
        given = f"run_dir={str(directory)!r} has {free / 2**20:.0f} MiB free"
        raise OSError(f"{given}; a run may need {FREE_SPACE / 2**20:.0f}")
    return directory


@contextlib.contextmanager
def lock(directory: Path, needed: bool = True) -> Iterator[None]:
    """Let one training at a time write to `directory`. Raises `OSError` for a second one."""
    if not needed:  # not the process that writes
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / LOCK_NAME, timeout=0):
            remove_leftovers(directory)
            yield
    except Timeout as error:
        raise OSError(f"run_dir={str(directory)!r} is in use by another training") from error
