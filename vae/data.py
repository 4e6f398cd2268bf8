"""Images as tensors. MNIST ships with the package; torchvision has others; or they are yours."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vae_store import pictures, pixels
from vae_store.files import FileError, as_path, sha256
from vae_store.published import TORCHVISION, load_from_torchvision

from .checks import MNIST_SHAPE, as_count, check_type

BATCH = 250  # images at once where nothing is learned; more leave a CPU's caches
DATASETS, OWN = ("mnist", *TORCHVISION), "folder:PATH, or file:PATH.npz"
CLASSES = {  # of data sets whose classes have names
    "fashion_mnist": "T-shirt trousers pullover dress coat sandal shirt sneaker bag boot",
    "kmnist": "o ki su tsu na ha ma ya re wo",
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
}
SPLITS = {"train": "train", "test": "t10k"}
MNIST_FOLDER = Path(__file__).parent / "mnist"
LARGEST_IDX = 16 + 60_000 * 28 * 28  # bytes
MNIST_SHA256 = {  # of the four uncompressed IDX files, as published
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Digits(NamedTuple):
    """`images`: uint8 (N, C, H, W), of MNIST (N, 1, 28, 28). `labels`: int64 (N,), from 0."""

    images: Tensor
    labels: Tensor


def load_digits(split: str, dataset: str = "mnist", root: str | Path = "data", *,
                size: int | None = None, channels: int | None = None) -> Digits:  # fmt: skip
    """Load one split of a data set, "train" (60,000 images of MNIST) or "test" (10,000).

    `dataset`: one of `DATASETS`, "folder:PATH" (pictures, or a folder of them for each class, or
    train/ and test/ of that shape) or "file:PATH.npz" (uint8 `images`, and `labels`). `root`: the
    folder of those that torchvision downloads, and where your own are looked for if nothing is at
    PATH. `size`: height and width that images are cropped and resized to; None: as they are, or 32
    for a folder. `channels`: 1 (grey), 3 (RGB), or None: as the images are.

    Raises `ValueError` for an unknown split or data set, and `FileError` (a `ValueError`) for an
    archive that is missing or not the published one, a download that cannot be done, or pictures
    that cannot be read.
    """
    if split not in tuple(SPLITS):
        raise ValueError(f"split={split!r} is not one of {tuple(SPLITS)}")
    check_dataset(dataset)
    size = None if size is None else as_count(size, "size", 8)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels!r} is not allowed: 1, 3 or None")
    if pictures.is_own(dataset):
        return Digits(*pictures.load_own(split, dataset, root, size, channels))
    if dataset == "mnist":
        images = _read_idx(MNIST_FOLDER / f"{SPLITS[split]}-images-idx3-ubyte.gz")
        labels = _read_idx(MNIST_FOLDER / f"{SPLITS[split]}-labels-idx1-ubyte.gz").long()
        images = images.view(-1, *MNIST_SHAPE)
    else:
        images, labels = load_from_torchvision(split, dataset, as_path(root, "root"))
    if channels is not None:
        images = pixels.of_channels(images, channels)
    return Digits(images if size is None else pixels.of_size(images, size), labels)


def check_dataset(dataset: str) -> None:
    """Raise `ValueError` unless a data set can have this name."""
    if dataset not in DATASETS and not pictures.is_own(dataset):
        raise ValueError(f"dataset={dataset!r} is not allowed: one of {DATASETS}, or {OWN}")


def class_names(dataset: str, root: str | Path = "data") -> list[str]:
    """The names of a data set's classes, if they have some: of a folder, those of its folders."""
    return pictures.own_names(dataset, root) or CLASSES.get(dataset, "").split()


def scale_images(images: Tensor) -> Tensor:
    """uint8 in 0...255 to float32 in [-1, 1], on the device where `images` lies.

    Raises `ValueError` for any other type: what is scaled already would be scaled again.
    """
    check_type(images, "images", (torch.uint8,), "a uint8 tensor, 0 to 255,")
    return images.float().div_(127.5).sub_(1)  # in place on the copy


def binarise(images: Tensor, drawn: Tensor) -> Tensor:
    """Images whose pixels are white (1) with the probability that is their grey, or black (-1).

    `images`: in [-1, 1]; `drawn`: float32, uniform in [0, 1), of the same shape. What is black and
    white already stays so. With new draws in each step it makes the dynamically binarised MNIST
    (Salakhutdinov & Murray, "On the Quantitative Analysis of DBNs", 2008; Burda et al. 2016).
    """
    white = (2 * drawn - 1).to(images.device) < images
    return 2 * white.to(images.dtype) - 1


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
