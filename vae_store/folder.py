"""A run's folder: its names, its metrics, whether it can be written to, and its lock."""

import contextlib
import inspect
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .checkpoint import CHECKPOINT_NAME, PRIOR_CHECKPOINT_NAME, check_begun
from .files import UNSUPPORTED, FileError, read_json, remove_leftovers

METRICS_NAME, PRIOR_METRICS_NAME = "metrics.json", "prior_metrics.json"
FRAMES_NAME, PRIOR_PICTURE_NAME = "frames.npz", "prior_samples.png"
LOCK_NAME = ".lock"
PICTURES = ("reconstruction.gif", "latent.gif", "interpolation.gif", "train_metrics.png",
            "test_metrics.png", "samples.png", "digits.png", "manifold.png")  # fmt: skip
# All that the two trainings write: nothing else is ever removed or replaced. One of the first two
# is there from the first step on.
OF_A_RUN = (METRICS_NAME, CHECKPOINT_NAME, "config.json", "model.safetensors", FRAMES_NAME,
            *PICTURES)  # fmt: skip
OF_A_PRIOR = (PRIOR_METRICS_NAME, PRIOR_CHECKPOINT_NAME, "prior.json", "prior.safetensors")
FILES = (*OF_A_RUN, *OF_A_PRIOR, PRIOR_PICTURE_NAME)
FREE_SPACE = 100 * 2**20  # bytes that a run's folder may come to need


def read_metrics(directory: Path) -> dict:
    """A folder's `metrics.json`. Raises `FileError` (a `ValueError`) naming it."""
    path = directory / METRICS_NAME
    check_begun(path, CHECKPOINT_NAME)
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


def own_images(directory: Path) -> int | None:
    """How many pictures of your own a run was trained on; None if on others, or if it is no run."""
    there = (directory / METRICS_NAME).is_file()
    return read_metrics(directory).get("train_images") if there else None


def is_finished(directory: Path) -> bool:
    """Whether `directory` holds a run that was trained to its end."""
    return (directory / METRICS_NAME).is_file() and "test" in read_metrics(directory)


def check_directory(directory: Path) -> None:
    """Raise unless a run can be written to `directory`, and would replace no file but a run's."""
    given = f"run_dir={str(directory)!r}"
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{given} is not allowed: {existing} is a file, a folder is expected")
    for names in (OF_A_RUN, OF_A_PRIOR):
        foreign = [name for name in names if os.path.lexists(directory / name)]
        if foreign and not any((directory / name).is_file() for name in names[:2]):
            held = f"{given} is not allowed: it has {', '.join(foreign)}"
            raise ValueError(f"{held}, which no training wrote there: name another folder")
    if not os.access(existing, os.W_OK):
        raise OSError(f"{given} is not allowed: {existing} cannot be written to")
    try:
        space = shutil.disk_usage(existing)
    except OSError:  # not every file system knows
        return
    if space.total and space.free < FREE_SPACE:
        text = f"{given} has {space.free / 2**20:.0f} MiB free"
        raise OSError(f"{text}; a run may need {FREE_SPACE / 2**20:.0f}")


@contextlib.contextmanager
def lock(directory: Path, needed: bool = True) -> Iterator[None]:
    """Let one training at a time write to `directory`. Raises `OSError` for a second one.

    Where the file system has no locks, a warning says so.
    """
    if not needed:  # not the process that writes
        yield
        return
    given = f"run_dir={str(directory)!r}"
    held = _file_lock(directory / LOCK_NAME)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout as error:
        raise OSError(f"{given} is in use by another training") from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in UNSUPPORTED:
            raise OSError(f"{given} cannot be written to: {error.strerror or error}") from error
        warnings.warn(f"{given} has no locks: start one training at a time there", stacklevel=2)
    try:
        remove_leftovers(directory, FILES)
        yield
    finally:
        held.release()


def _file_lock(path: Path) -> FileLock:
    # newer versions would take a file for a lock, which whoever is killed leaves behind
    newer = "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters
    return FileLock(path, timeout=0, **({"fallback_to_soft": False} if newer else {}))
