"""Pixels of pictures: read as people see them, of one size, in grey or in colour."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .files import FileError, as_path
from .progress import Bar

LUMA = (19595, 38470, 7471)  # of red, green and blue, in 65536ths (ITU-R BT.601, as Pillow has it)
PART = 1000  # pictures at once where a conversion takes memory


@lru_cache(maxsize=2)  # a run, its sharper decoder and its prior read the same ones
def read_pictures(files: tuple[tuple[Path, int], ...], size: int,
                  allowed: int) -> tuple[Tensor, list[int]]:  # fmt: skip
    """Pictures (N, 3, size, size), uint8, and which of the files, paths and times, they are.

    So many as are `allowed` may be unreadable. The tensor is not to be changed.
    """
    from PIL import Image

    def read(file: tuple[Path, int]) -> np.ndarray | Exception:
        try:
            return decode(file[0], size)
        except Exception as error:  # Pillow raises what the damage happens to lead to
            return error

    images, failed, kept = torch.empty(len(files), 3, size, size, dtype=torch.uint8), [], []
    taken = f"{images.nbytes / 2**20:,.0f} MB in memory"
    what = f"reading {len(files):,} pictures as {size}x{size}, {taken}"
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for number, picture in enumerate(Bar(pool.map(read, files), what, total=len(files))):
            if isinstance(picture, Exception):
                failed.append(f"{files[number][0]} ({type(picture).__name__}: {picture})")
                continue
            images[len(kept)] = torch.from_numpy(picture.transpose(2, 0, 1))
            kept.append(number)
    if failed:
        of = f"{len(failed):,} of {len(files):,} pictures cannot be read"
        text = f"{of}: {'; '.join(failed[:3])}{'; ...' * (len(failed) > 3)}"
        if len(failed) > allowed or not kept:
            raise FileError(text)
        warnings.warn(text, stacklevel=2)
    return images[: len(kept)], kept


def read_picture(path: str | Path, shape: tuple[int, int, int]) -> Tensor:
    """One picture as a model takes it, uint8 (1, *shape), for `model.config.image_shape`.

    Raises `FileError` (a `ValueError`) for a file that cannot be read.
    """
    path = as_path(path, "path")
    try:
        pixels = torch.tensor(decode(path, shape[1])).movedim(-1, 0)
    except Exception as error:  # Pillow raises what the damage happens to lead to
        raise FileError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return of_channels(pixels[None], shape[0])


def decode(path: Path, size: int) -> np.ndarray:
    """A picture's middle square, resized with antialiasing: uint8 (size, size, 3).

    Upright, as the camera meant; on white, where it is transparent; of an animation the first
    frame; of 16 bits the upper 8.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        opened.draft(None, (4 * size, 4 * size))  # of a JPEG, no more than is needed
        picture = ImageOps.exif_transpose(opened)
        if picture.mode == "F":
            raise ValueError("floating-point values, of which none is known to be white")
        if picture.mode.startswith("I"):
            values = np.asarray(picture)
            shift = 8 if picture.mode != "I" or values.max() > 255 else 0
            picture = Image.fromarray((values >> shift).clip(0, 255).astype(np.uint8))
        if picture.mode[-1:] in "Aa" or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        picture = picture.convert("RGB")
        side = min(picture.size)
        left, top = ((whole - side) // 2 for whole in picture.size)
        picture = picture.crop((left, top, left + side, top + side))
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))


def of_size(images: Tensor, size: int) -> Tensor:
    """The middle squares of images (N, C, H, W), uint8, resized with antialiasing if need be."""
    high, wide = images.shape[2:]
    side = min(high, wide)
    top, left = (high - side) // 2, (wide - side) // 2
    images = images[..., top : top + side, left : left + side]
    if side == size:
        return images.contiguous()
    return F.interpolate(images.contiguous(), (size, size), mode="bicubic", antialias=True)


def of_channels(images: Tensor, channels: int | None) -> Tensor:
    """Images (N, 1 or 3, H, W), uint8, in grey or RGB; None: grey if no picture has a colour.

    A tensor of its own, unless the images are grey already.
    """
    if images.shape[1] == 1:
        return images if channels != 3 else images.repeat(1, 3, 1, 1)
    if channels is None:
        channels = 1 if all((part == part[:, :1]).all() for part in images.split(PART)) else 3
    if channels == 3:
        return images.clone()
    return torch.cat([_grey(part) for part in images.split(PART)])


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.int().unbind(1)
    return ((LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 2**15) >> 16)[:, None].byte()
