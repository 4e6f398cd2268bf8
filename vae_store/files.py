"""Files that are either whole or not there: atomic writes and checksums."""

import contextlib
import errno
import hashlib
import json
import os
import re
import threading
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

LARGEST = 500 * 2**20  # bytes
TEMPORARY = ".vae-writes-"  # then process, thread and the name of the file that is being written
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class FileError(ValueError):
    """A file is missing, truncated, altered or of the wrong kind. The message names it."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_path(path: str | Path, name: str = "directory") -> Path:
    """`path` with ~ expanded. Raises `ValueError` for what is no path, or an empty one."""
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    text = os.path.expanduser(given) if isinstance(given, str) else ""
    if not text or text[0] == "~" or "\0" in text:  # ~ of nobody stays as it is
        raise ValueError(f"{name}={path!r} is not allowed: a path, as text or as a pathlib.Path")
    return Path(text)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file in one step, by way of a temporary one.

    A reader sees the old file or the new one, never half of it; on any error the old file stays.
    Raises `OSError` naming `path` when there is no space.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{threading.get_native_id()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            _sync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # whose own text names the temporary file
        raise OSError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(directory: Path, names: tuple[str, ...]) -> None:
    """Remove what killed writes of the files `names` left. Only one process may write there."""
    for path in directory.glob(f"{TEMPORARY}*"):
        if re.sub(r"^\d+-\d+-", "", path.name.removeprefix(TEMPORARY)) in names:
            with contextlib.suppress(OSError):
                path.unlink()


def _sync(file: int) -> None:
    """Have a file reach the disk, on file systems that know of that."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in UNSUPPORTED:  # no space, say
            raise


def write_json(path: Path, content: object, indent: int = 1) -> None:
    """Write `content` as JSON, in one step."""
    write_atomically(path, (json.dumps(content, indent=indent) + "\n").encode())


def read_json(path: Path, kind: str) -> object:
    """What a JSON file holds. Raises `FileError`: the file is not a `kind`."""
    try:
        check_size(path)
        return json.loads(path.read_text("utf-8"))
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
    write_atomically(path, save(tensors, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save_tensors` wrote, on the CPU. Raises `FileError` if it is not as it was written.

    The tensors own their memory: the file can be changed, replaced or removed afterwards.
    """
    if not path.is_file():
        raise FileError(f"{path} does not exist")
    check_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}  # out of the file
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
