"""Digits as tensors. MNIST ships with the package; the others come through torchvision."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vae_store.files import FileError, as_path, sha256

from .checks import IMAGE_SIZE, check_type

PIXELS = IMAGE_SIZE * IMAGE_SIZE
BATCH = 500  # images at once where nothing is learned
DATASETS = ("mnist", "fashion_mnist", "kmnist", "emnist_digits")
SPLITS = {"train": "train", "test": "t10k"}
MNIST_FOLDER = Path(__file__).parent / "mnist"
LARGEST_IDX = 16 + 60_000 * PIXELS  # bytes
MNIST_SHA256 = {  # of the four uncompressed IDX files, as published
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Digits(NamedTuple):
    """`images`: uint8 (N, 1, 28, 28), 0 is background. `labels`: int64 (N,), from 0."""

    images: Tensor
    labels: Tensor


def load_digits(split: str, dataset: str = "mnist", root: str | Path = "data") -> Digits:
    """Load one split of a data set, "train" (60,000 images of MNIST) or "test" (10,000).

    `dataset`: one of `DATASETS`. `root`: the folder of those that torchvision downloads. Raises
    `ValueError` for an unknown split or data set, and `FileError` (a `ValueError`) for an archive
    that is missing or not the published one, or a download that cannot be done.
    """
    if split not in tuple(SPLITS):
        raise ValueError(f"split={split!r} is not one of {tuple(SPLITS)}")
    if dataset not in DATASETS:
        raise ValueError(f"dataset={dataset!r} is not one of {DATASETS}")
    if dataset != "mnist":
        return _load_from_torchvision(split, dataset, as_path(root, "root"))
    images = _read_idx(MNIST_FOLDER / f"{SPLITS[split]}-images-idx3-ubyte.gz")
    labels = _read_idx(MNIST_FOLDER / f"{SPLITS[split]}-labels-idx1-ubyte.gz")
    return Digits(images.view(-1, 1, IMAGE_SIZE, IMAGE_SIZE), labels.long())


def scale_images(images: Tensor) -> Tensor:
    """uint8 in 0...255 to float32 in [-1, 1], on the device where `images` lies.

    Raises `ValueError` for any other type: what is scaled already would be scaled again.
    """
    check_type(images, "images", (torch.uint8,), "a uint8 tensor, 0 to 255,")
    return images.float().div_(127.5).sub_(1)  # in place on the copy


def batches(size: int, *columns: Tensor | None) -> Iterator[tuple]:
    """The rows of some tensors, `size` at a time; a column that is None stays None."""
    for start in range(0, len(columns[0]), size):
        yield tuple(c if c is None else c[start : start + size] for c in columns)


def in_unit_range(images: Tensor) -> Tensor:
    """uint8 images scaled to [-1, 1], any others as they are."""
    return scale_images(images) if images.dtype == torch.uint8 else images


def _read_idx(path: Path) -> Tensor:
    """The bytes of a gzip-compressed IDX file, (N,), if it has the published checksum."""
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST_IDX)  # no more, whatever the archive would expand to
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} cannot be read ({error}); reinstall the package") from error
    if sha256(data) != MNIST_SHA256[path.stem]:
        raise FileError(f"{path} is not the published file (SHA-256); reinstall the package")
    header = 4 + 4 * data[3]  # the number of dimensions, then each as four bytes
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header)


def _load_from_torchvision(split: str, dataset: str, root: Path) -> Digits:
    from torchvision import datasets  # half a second that MNIST does not need

    name = {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "emnist_digits": "EMNIST"}[dataset]
    part = {"split": "digits"} if dataset == "emnist_digits" else {}
    try:
        loaded = getattr(datasets, name)(root, train=split == "train", download=True, **part)
        images, labels = loaded.data.unsqueeze(1), loaded.targets.long()
        if images.shape != (len(labels), 1, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"images {tuple(images.shape)} for {len(labels)} labels")
    except Exception as error:  # torchvision raises what the damage happens to lead to
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FileError(
            f"dataset={dataset!r} could not be downloaded or read by torchvision ({reason}). Put "
            f"its unpacked IDX files, under torchvision's names, into {root / name / 'raw'} (the "
            "folder is root, or --data-root) and try again."
        ) from error
    if dataset == "emnist_digits":  # EMNIST stores its images transposed
        images = images.transpose(2, 3).contiguous()
    return Digits(images, labels)
