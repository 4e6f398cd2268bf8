"""Files that are either whole or not there: atomic writes and checksums."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError


class FileError(ValueError):
    """A file is missing, truncated, altered or of the wrong kind. The message names it."""


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary_path)` and move the result to `path` in one step.

    A reader sees the old file or the new one, never half of it. On any error the temporary file
    is removed and the old file stays. Raises `OSError` naming `path` when there is no space.
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
