"""Pictures of your own: which files a folder holds, and how they become images of one size."""

import hashlib
import os
import unicodedata
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..metrics import Bar
from ..pretrained import FileError, as_path, reason

HIDDEN = ".", "__MACOSX"  # how names begin that are passed over
TESTS = "test", "val", "valid", "validation"  # names of the folder beside train/
TEST_SHARE = 0.1  # of pictures that do not come in train/ and test/
SPLIT_SEED = 0  # decides, with their names, which pictures are for the test, and their order
UNREADABLE = 0.01  # the largest share of unreadable pictures
MOST_CLASSES = 1000
UNKNOWN = (".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".nef", ".raw")  # not Pillow's
NO_DECODER = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS")  # formats that Pillow cannot decode
# Weights of red, green and blue, in 65536ths: ITU-R BT.601, as Pillow has them.
LUMA = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(3, 1, 1)
PART = 1000  # pictures at once where a conversion takes memory


def pictures_in(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Class and path of each picture in a folder, for each split, in random order.

    `folder` holds pictures, or a folder of pictures for each class, or train/ and test/ with
    either. Raises `FileError` for another layout, and for a class that only the test has.
    """
    folder, inside = _unwrapped(folder)
    test = next((inside[name] for name in TESTS if name in inside), None)
    if "train" in inside and test is not None:
        parts = {"train": _classes_in(inside["train"]), "test": _classes_in(test)}
    else:
        files = _classes_in(folder)
        positions, classes, _ = zip(*files, strict=True)
        rows = split_rows(positions, classes)
        parts = {split: [files[k] for k in chosen] for split, chosen in rows.items()}
    found = {split: [(name, path) for _, name, path in part] for split, part in parts.items()}
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
    inside = [path for path in folder.iterdir() if not path.name.startswith(HIDDEN)]
    folders = {path.name.lower(): path for path in inside if path.is_dir()}
    around = len(inside) == len(folders) == 1 and any(p.is_dir() for p in inside[0].iterdir())
    return _unwrapped(inside[0]) if around else (folder, folders)


def _classes_in(folder: Path) -> list[tuple[float, str, Path]]:
    """Position, class and path of each picture in a folder, sorted by position."""
    from PIL import Image  # MNIST does not need it

    formats = Image.registered_extensions().items()
    endings = {end for end, name in formats if name in Image.OPEN and name not in NO_DECODER}
    files = _walk(folder)
    if lost := [path for path in files if path.suffix.lower() in {*UNKNOWN} - endings]:
        warnings.warn(f"Pillow cannot read {len(lost)} files, such as {lost[0]}", stacklevel=2)
    files = [path for path in files if path.suffix.lower() in endings]
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
        new = (real := os.path.realpath(inside)) not in seen
        seen.add(real)
        folders[:] = [name for name in folders if new and not name.startswith(HIDDEN)]
        files += [Path(inside, name) for name in names if new and not name.startswith(HIDDEN)]
    return files


def position_of(name: str) -> float:
    """A picture's position in the random order: in [0, 1), decided by its name alone."""
    digest = hashlib.sha256(f"{SPLIT_SEED}/{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_rows(positions: Sequence[float], classes: Sequence) -> dict[str, list[int]]:
    """The numbers of the pictures of each split, in the order of their positions.

    The test gets about a tenth, those with the lowest positions: most of them stay where they are
    when others come or go. It gets at least one, and each class keeps one to train on. Raises
    `FileError` for a single picture.
    """
    if len(positions) < 2:
        raise FileError(f"{len(positions)} picture is there; 2 or more are expected")
    order = sorted(range(len(positions)), key=positions.__getitem__)
    spared = set({classes[k]: k for k in order}.values())  # the last of each class
    free = [k for k in order if k not in spared] or order[:1]
    test = {k for k in free if k == free[0] or positions[k] < TEST_SHARE}
    return {"train": [k for k in order if k not in test], "test": [k for k in order if k in test]}


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
