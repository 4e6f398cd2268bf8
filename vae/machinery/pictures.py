"""Pictures of your own: how files and tensors become images of one size and colour."""

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import shown
from ..metrics import Bar
from ..pretrained import FileError, as_path, reason

UNREADABLE = 0.01  # the largest share of unreadable pictures
# Weights of red, green and blue, in 65536ths: ITU-R BT.601, as Pillow has them.
LUMA = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(3, 1, 1)
PART = 1000  # pictures at once where a conversion takes memory


def read_pictures(found: dict, split: str, size: int) -> tuple[Tensor, list[str]]:
    """A split's pictures, uint8 (N, 3, size, size), and their classes' names.

    `found`: as of `pictures_in`. A warning names unreadable files; if they are more than 1 % of all
    pictures, it is a `FileError`.
    """
    from PIL import Image

    def read(picture: tuple[str, Path]) -> np.ndarray | Exception:
        try:
            return decode(picture[1], size)
        except Exception as error:  # Pillow raises all types of errors for damaged files
            return error

    n, names, failed = len(found[split]), [], []
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    doing = f"reading {n:,} pictures as {size}x{size}, {images.nbytes / 2**20:,.0f} MB in memory"
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pixels = Bar(pool.map(read, found[split]), doing, total=n)
        for (name, path), picture in zip(found[split], pixels, strict=True):
            if isinstance(picture, Exception):
                failed.append(f"{path} ({type(picture).__name__}: {picture})")
            else:
                images[len(names)] = torch.from_numpy(picture.transpose(2, 0, 1))
                names.append(name)
    if failed:
        some = f"{'; '.join(failed[:3])}{'; ...' * (len(failed) > 3)}"
        text = f"{len(failed):,} of {n:,} pictures cannot be read: {some}"
        if len(failed) > int(UNREADABLE * sum(map(len, found.values()))) or not names:
            raise FileError(text)
        warnings.warn(text, stacklevel=2)
    return images[: len(names)], names


def read_picture(picture: object, shape: tuple[int, int, int]) -> Tensor:
    """One picture for a model, uint8 (1, *shape), where `shape` is `model.config.image_shape`.

    `picture`: the path or the bytes of a file, a PIL image, or an array, uint8 (H, W[, 3 or 4]).
    Raises `ValueError` for another shape, and `FileError` (a `ValueError`) for another picture.
    """
    from PIL import Image

    whole = isinstance(shape, tuple | list) and all(type(part) is int for part in shape)
    if not whole or len(shape) != 3 or shape[0] not in (1, 3) or not 0 < shape[1] == shape[2]:
        raise ValueError(f"shape={shown(shape)} is not allowed: (1 or 3, H, H), channels first")
    if not isinstance(picture, bytes | np.ndarray | Image.Image):
        picture = as_path(picture, "picture")
    try:
        pixels = torch.tensor(decode(picture, shape[1])).movedim(-1, 0)
    except Exception as error:  # Pillow raises all types of errors for damaged files
        given = picture if isinstance(picture, Path) else f"picture={shown(picture)}"
        raise FileError(f"{given} cannot be read: {reason(error)}") from error
    return with_channels(pixels[None], shape[0])


def decode(given: object, size: int) -> np.ndarray:
    """A picture's middle square, resized with antialiasing: uint8 (size, size, 3).

    `given`: as of `read_picture`. Turned upright as EXIF says; on white, where it is transparent;
    the first frame of an animation; the upper 8 of 16 bits.
    """
    from PIL import Image, ImageOps

    if isinstance(given, np.ndarray):
        opening = Image.fromarray(given)
    elif isinstance(given, Image.Image):
        opening = given.copy()
    else:
        opening = Image.open(io.BytesIO(given) if isinstance(given, bytes) else given)
    with opening as opened:
        opened.draft(None, (4 * size, 4 * size))  # decodes a JPEG no larger than needed
        picture = ImageOps.exif_transpose(opened)
        if picture.mode == "F":
            raise ValueError("its values are floating-point, and white is not known")
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


def with_size(images: Tensor, size: int) -> Tensor:
    """The middle squares of images (N, C, H, W), uint8, resized with antialiasing."""
    side = min(images.shape[2:])
    top, left = ((whole - side) // 2 for whole in images.shape[2:])
    images = images[..., top : top + side, left : left + side].contiguous()
    if side == size:
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """Images (N, 1 or 3, H, W), uint8, in grey or RGB; None: grey if no picture has a colour.

    A tensor of its own, unless the images are grey already.
    """
    if images.shape[1] == 1:
        return images if channels != 3 else images.repeat(1, 3, 1, 1)
    parts = images.split(PART)
    if channels is None:
        channels = 1 if all((part == part[:, :1]).all() for part in parts) else 3
    if channels == 3:
        return images.clone()
    grey = (((part * LUMA).sum(1, keepdim=True) + 2**15) >> 16 for part in parts)
    return torch.cat([part.byte() for part in grey])
