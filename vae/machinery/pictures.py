"""Pictures of your own: which files a folder holds, and how they become images of one size."""

import hashlib
import os
import unicodedata
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..pretrained import FileError, as_path, reason
from .machine import Bar

TESTS = "test", "val", "valid", "validation"  # names of the folder beside train/
TEST_SHARE = 0.1  # of pictures that do not come in train/ and test/
SPLIT_SEED = 0  # decides, with their names, which pictures are for the test, and their order
UNREADABLE = 0.01  # the largest share of unreadable pictures
MOST_CLASSES = 1000
NO_DECODER = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS")  # formats that Pillow cannot decode
LUMA = (19595, 38470, 7471)  # weights of red, green, blue, in 65536ths (ITU-R BT.601, as Pillow's)
PART = 1000  # pictures at once where a conversion takes memory


def pictures_in(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Class and path of each picture in a folder, for each split, in random order.

    `folder` holds pictures, or a folder of pictures for each class, or train/ and test/ with
    either. Raises `FileError` for another layout, and for a class that only the test has.
    """
    folder, inside = _unwrapped(folder)
    splits = {name.lower(): path for name, path in inside.items()}
    test = next((splits[name] for name in TESTS if name in splits), None)
    if "train" in splits and test is not None:
        parts = {"train": _classes_in(splits["train"]), "test": _classes_in(test)}
        found = {split: [(name, path) for _, name, path in part] for split, part in parts.items()}
    else:
        files = _classes_in(folder)
        chosen = chosen_for_test(
            [position for position, *_ in files], [name for _, name, _ in files]
        )
        found = {"train": [], "test": []}
        for (_, name, path), for_test in zip(files, chosen, strict=True):
            found["test" if for_test else "train"].append((name, path))
    trained = {name for name, _ in found["train"]}
    if unknown := sorted({name for name, _ in found["test"]} - trained):
        raise FileError(f"{folder} has no training pictures of the test's class {unknown[0]!r}")
    check_class_count(folder, len(trained))
    return found


def check_class_count(path: Path, classes: int) -> None:
    """Raise `FileError` for more classes than a model can have."""
    if classes > MOST_CLASSES:
        raise FileError(f"{path} has {classes:,} classes; at most {MOST_CLASSES} are allowed")


def _unwrapped(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A folder, and the folders in it by name. A folder around a single folder is unwrapped."""
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder; a folder of pictures is expected")
    while True:
        inside = [path for path in folder.iterdir() if not _hidden(path.name)]
        folders = {path.name: path for path in inside if path.is_dir()}
        if len(inside) != 1 or not folders or not any(p.is_dir() for p in inside[0].iterdir()):
            return folder, folders
        folder = inside[0]


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _classes_in(folder: Path) -> list[tuple[float, str, Path]]:
    """Position, class and path of each picture in a folder, sorted by position."""
    from PIL import Image  # MNIST does not need it

    formats = Image.registered_extensions().items()
    endings = {end for end, name in formats if name in Image.OPEN and name not in NO_DECODER}
    files = [path for path in _walk(folder) if path.suffix.lower() in endings]
    if not files:
        raise FileError(f"{folder} holds no picture in a format that Pillow reads")
    loose = [path.name for path in files if path.parent == folder]
    if 0 < len(loose) < len(files):
        held = f"{folder} holds pictures, such as {loose[0]!r}, beside folders of pictures"
        raise FileError(f"{held}: one of the two is expected")
    found = []
    for path in files:  # file systems write accents in different forms
        name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        found.append((position_of(name), "" if loose else name.partition("/")[0], path))
    return sorted(found)


def _walk(folder: Path) -> list[Path]:
    """All files in a folder and in the folders that are linked there, each once."""

    def stop(error: OSError) -> None:
        raise FileError(f"{error.filename} cannot be read: {error.strerror}") from error

    files, seen = [], set()
    for inside, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        status = os.stat(inside)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not _hidden(name)]
        files += [Path(inside, name) for name in names if not _hidden(name)]
    return files


def position_of(name: str) -> float:
    """A picture's position in the random order: in [0, 1), decided by its name alone."""
    digest = hashlib.sha256(f"{SPLIT_SEED}/{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def chosen_for_test(positions: list[float], classes: list) -> list[bool]:
    """Which pictures are kept for the test: about a tenth, those with the lowest positions.

    So most of them stay where they are when others come or go. Each class keeps a picture to train
    on, and the test gets at least one. Raises `FileError` for a single picture.
    """
    if len(positions) < 2:
        raise FileError(f"{len(positions)} picture is there; 2 or more are expected")
    members = defaultdict(list)
    for number, name in enumerate(classes):
        members[name].append(number)
    spared = {max(numbers, key=positions.__getitem__) for numbers in members.values()}
    free = [k for k in range(len(positions)) if k not in spared] or list(spared)
    first = min(free, key=positions.__getitem__)
    return [k == first or (position < TEST_SHARE and k not in spared)
            for k, position in enumerate(positions)]  # fmt: skip


def read_pictures(files: list[Path], size: int, total: int) -> tuple[Tensor, list[int]]:
    """Pictures (N, 3, size, size), uint8, and the numbers of their files.

    A warning names unreadable files; if they are more than 1 % of `total`, it is a `FileError`.
    """
    from PIL import Image

    def read(file: Path) -> np.ndarray | Exception:
        try:
            return decode(file, size)
        except Exception as error:  # Pillow raises all types of errors for damaged files
            return error

    images, failed, kept = torch.empty(len(files), 3, size, size, dtype=torch.uint8), [], []
    memory = f"{images.nbytes / 2**20:,.0f} MB in memory"
    doing = f"reading {len(files):,} pictures as {size}x{size}, {memory}"
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for number, picture in enumerate(Bar(pool.map(read, files), doing, total=len(files))):
            if isinstance(picture, Exception):
                failed.append(f"{files[number]} ({type(picture).__name__}: {picture})")
                continue
            images[len(kept)] = torch.from_numpy(picture.transpose(2, 0, 1))
            kept.append(number)
    if failed:
        of = f"{len(failed):,} of {len(files):,} pictures cannot be read"
        text = f"{of}: {'; '.join(failed[:3])}{'; ...' * (len(failed) > 3)}"
        if len(failed) > int(UNREADABLE * total) or not kept:
            raise FileError(text)
        warnings.warn(text, stacklevel=2)
    return images[: len(kept)], kept


def read_picture(path: str | Path, shape: tuple[int, int, int]) -> Tensor:
    """One picture for a model, uint8 (1, *shape), where `shape` is `model.config.image_shape`.

    Raises `FileError` (a `ValueError`) for a file that cannot be read.
    """
    path = as_path(path, "path")
    try:
        pixels = torch.tensor(decode(path, shape[1])).movedim(-1, 0)
    except Exception as error:  # Pillow raises all types of errors for damaged files
        raise FileError(f"{path} cannot be read: {reason(error)}") from error
    return with_channels(pixels[None], shape[0])


def decode(path: Path, size: int) -> np.ndarray:
    """A picture's middle square, resized with antialiasing: uint8 (size, size, 3).

    Turned upright as EXIF says; on white, where it is transparent; the first frame of an animation;
    the upper 8 of 16 bits.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
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
    high, wide = images.shape[2:]
    side = min(high, wide)
    top, left = (high - side) // 2, (wide - side) // 2
    images = images[..., top : top + side, left : left + side]
    if side == size:
        return images.contiguous()
    return F.interpolate(images.contiguous(), (size, size), mode="bicubic", antialias=True)


def with_channels(images: Tensor, channels: int | None) -> Tensor:
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
