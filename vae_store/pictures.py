"""Pictures of your own as tensors: a folder of files, or a NumPy archive."""

import hashlib
import os
import unicodedata
import warnings
import zipfile
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vae_store.files import FileError, as_path

from .progress import Bar

FOLDER, FILE = "folder:", "file:"  # what the name of such a data set begins with
SPLITS = ("train", "test")
TEST_SHARE = 0.1  # of pictures that do not come in train/ and test/
SPLIT_SEED = 0  # by which, and by their names, they are chosen
UNREADABLE = 0.01  # share of the pictures from which on it is an error
USABLE = range(28, 65, 4)  # sizes that a model can have
SIZE = 32  # to which pictures are brought where no size is asked for
LUMA = (19595, 38470, 7471)  # of red, green and blue, in 65536ths (ITU-R BT.601, as Pillow has it)


def is_own(dataset: str) -> bool:
    """Whether a data set is one's own: "folder:PATH" or "file:PATH"."""
    text = dataset if isinstance(dataset, str) else ""
    return text.startswith((FOLDER, FILE)) and text.partition(":")[2] != ""


def is_file(dataset: str) -> bool:
    return dataset.startswith(FILE)


def find(dataset: str, root: str | Path) -> Path:
    """The path that a data set names; where nothing is there, its last part in `root`."""
    path = as_path(dataset.partition(":")[2], "dataset")
    moved = as_path(root, "root") / path.name
    return moved if moved.exists() and not path.exists() else path


def load_own(split: str, dataset: str, root: str | Path, size: int | None,
             channels: int | None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Images, uint8 (N, C, size, size), and labels, int64 (N,), all 0 where there are no classes.

    `size`, `channels`: None: 32, or an archive's own size if a model can have it; grey, if no
    picture has a colour. Raises `FileError` (a `ValueError`) for a path without pictures, and for
    too many that cannot be read.
    """
    path = find(dataset, root)
    if is_file(dataset):
        images, labels = load_archive(path, split)
        usable = images.shape[2] == images.shape[3] and images.shape[2] in USABLE
        images = of_size(images, size or (images.shape[2] if usable else SIZE))
        return of_channels(images, channels), labels
    found = pictures_in(path)
    classes = sorted({name for part in found.values() for name, _ in part})
    files = tuple((file, file.stat().st_mtime_ns) for _, file in found[split])
    images, kept = read_pictures(files, size or SIZE)
    labels = torch.tensor([classes.index(name) for name, _ in found[split]])
    return of_channels(images, channels), labels[kept]


def count_own(split: str, dataset: str, root: str | Path) -> int:
    """How many pictures a split has, before any is read."""
    path = find(dataset, root)
    return len(load_archive(path, split)[0] if is_file(dataset) else pictures_in(path)[split])


def folder_names(dataset: str, root: str | Path) -> list[str]:
    """The names of the folders in a folder, which are its classes; or none."""
    if not dataset.startswith(FOLDER):
        return []
    found = pictures_in(find(dataset, root))
    return sorted({name for part in found.values() for name, _ in part} - {""})


def pictures_in(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Class and path of each picture in a folder, for each split, in the order of their names.

    `folder` holds pictures, or a folder of them for each class, or train/ and test/ of that shape.
    """
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder; one of pictures is expected")
    parts = {split: folder / split for split in SPLITS}
    if all(part.is_dir() for part in parts.values()):
        return {split: _classes_in(part) for split, part in parts.items()}
    files = _classes_in(folder)
    names = [unicodedata.normalize("NFC", file.relative_to(folder).as_posix()) for _, file in files]
    test = chosen_for_test(names, [name for name, _ in files])
    chosen = {True: "test", False: "train"}
    return {
        chosen[here]: [file for file, of_test in zip(files, test, strict=True) if of_test == here]
        for here in chosen
    }


def _classes_in(folder: Path) -> list[tuple[str, Path]]:
    from PIL import Image  # which MNIST does not need

    endings = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = [(path.relative_to(folder).parts, path) for path in folder.rglob("*")]
    files = [(parts, path) for parts, path in files if path.suffix.lower() in endings
             and not any(part.startswith((".", "__MACOSX")) for part in parts)]  # fmt: skip
    files = sorted((parts, path) for parts, path in files if path.is_file())
    if not files:
        raise FileError(f"{folder} holds no picture of a kind that Pillow reads")
    if len({len(parts) > 1 for parts, _ in files}) > 1:
        loose = next(path.name for parts, path in files if len(parts) == 1)
        held = f"{folder} holds pictures, such as {loose!r}, beside folders of pictures"
        raise FileError(f"{held}: one of the two is expected")
    return [(parts[0] if len(parts) > 1 else "", path) for parts, path in files]


def chosen_for_test(names: list[str], classes: list) -> list[bool]:
    """Which of some pictures are kept for the test: about a tenth, decided by each one's name.

    So a picture stays where it is when others come or go. Of each class one at least is left to
    train on, and one at least of all is for the test. Raises `FileError` for a single picture.
    """
    if len(names) < 2:
        raise FileError(f"{len(names)} picture is there; 2 or more are expected")
    draws = [hashlib.sha256(f"{SPLIT_SEED}/{name}".encode()).digest() for name in names]
    places = [int.from_bytes(draw[:8], "big") / 2**64 for draw in draws]  # in [0, 1)
    of_class = defaultdict(list)
    for number, name in enumerate(classes):
        of_class[name].append(number)
    spared = {max(members, key=places.__getitem__) for members in of_class.values()}
    free = [k for k in range(len(names)) if k not in spared] or list(spared)
    first = min(free, key=places.__getitem__)
    return [
        k == first or (place < TEST_SHARE and k not in spared) for k, place in enumerate(places)
    ]


@lru_cache(maxsize=2)  # a run, its sharper decoder and its prior read the same ones
def read_pictures(files: tuple[tuple[Path, int], ...], size: int) -> tuple[Tensor, list[int]]:
    """Pictures (N, 3, size, size), uint8, and which of the files, paths and times, they are."""
    from PIL import Image

    def read(file: tuple[Path, int]) -> np.ndarray | Exception:
        try:
            return decode(file[0], size)
        except Exception as error:  # Pillow raises what the damage happens to lead to
            return error

    images, failed, kept = torch.empty(len(files), 3, size, size, dtype=torch.uint8), [], []
    what = f"reading {len(files):,} pictures, {images.nbytes / 2**20:,.0f} MB in memory"
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
        if len(failed) > UNREADABLE * len(files):
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


def load_archive(path: Path, split: str) -> tuple[Tensor, Tensor]:
    """The images of an .npz, uint8 (N, 1 or 3, H, W), and its labels, int64 (N,)."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is missing, or not an .npz")
        with np.load(path, allow_pickle=False) as archive:
            images = archive["images"]
            labels = archive["labels"] if "labels" in archive else np.zeros(len(images), np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    shape = images.shape
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3):
        images = np.moveaxis(images, -1, 1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        given = f"{path} has images {images.dtype} {shape}"
        raise FileError(f"{given}; uint8 (N, H, W), (N, H, W, 3) or (N, 3, H, W) is expected")
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or labels.min() < 0:
        given = f"{path} has labels {labels.dtype} {labels.shape}"
        raise FileError(f"{given}; {len(images)} whole numbers from 0 are expected")
    test = np.array(chosen_for_test([str(k) for k in range(len(images))], labels.tolist()))
    chosen = test if split == "test" else ~test
    return torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen].astype(np.int64))


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
    """Images (N, 1 or 3, H, W), uint8, in grey or RGB; None: grey if no picture has a colour."""
    if images.shape[1] == 1:
        return images if channels != 3 else images.repeat(1, 3, 1, 1)
    if channels is None:
        channels = 1 if all((part == part[:, :1]).all() for part in images.split(1000)) else 3
    if channels == 3:
        return images
    red, green, blue = images.int().unbind(1)
    grey = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 2**15) >> 16
    return grey[:, None].to(torch.uint8)
