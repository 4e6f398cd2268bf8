"""Files that are either whole or not there: atomic writes and checksums."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

LARGEST = 500 * 2**20  # bytes


class FileError(ValueError):
    """A file is missing, truncated, altered or of the wrong kind. The message names it."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary_path)` and move the result to `path` in one step.

    A reader sees the old file or the new one, never half of it; on any error the old file stays.
    Raises `OSError` naming `path` when there is no space.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # safetensors writes 0600, which others cannot read
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path} could not be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of writes that were killed. Only one process may write there."""
    for path in directory.glob(".*.*.*"):
        if re.fullmatch(r"\.\w+\.\d+\.\w+", path.name):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: object, indent: int = 1) -> None:
    """Write `content` as JSON, in one step."""
    text = json.dumps(content, indent=indent) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path, kind: str) -> object:
    """What a JSON file holds. Raises `FileError`: the file is not a `kind`."""
    try:
        check_size(path)
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # deeply nested
        raise FileError(f"{path} is not {kind}: {error}") from error


def check_size(path: Path) -> None:
    """Raise `FileError` for a file that is larger than any that this package writes."""
    if (size := path.stat().st_size) > LARGEST:
        raise FileError(f"{path} has {size:,} bytes; at most {LARGEST:,} are expected")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file that holds the checksum of what is in it, in one step."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    metadata = {"format": "pt", "sha256": _digest(tensors, metadata)} | metadata
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save_tensors` wrote, on the CPU. Raises `FileError` if it is not as it was written."""
    if not path.is_file():
        raise FileError(f"{path} does not exist")
    check_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path} cannot be read, is it whole? ({error})") from error
    own = {key: value for key, value in metadata.items() if key not in ("format", "sha256")}
    if metadata.get("sha256") != _digest(tensors, own):
        raise FileError(f"{path} is not as it was written: its SHA-256 differs")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise FileError(f"{path} holds values that are not finite in {name}")
    return tensors, own


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, and over the metadata."""
    parts = []
    for key, tensor in sorted(tensors.items()):
        parts.append(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():  # an empty one cannot be seen as bytes
            parts.append(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    parts += [f"{key} {value}".encode() for key, value in sorted(metadata.items())]
    return sha256(b"".join(parts))
