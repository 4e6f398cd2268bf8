"""Pictures of your own as tensors: a folder of files, or a NumPy archive."""

import hashlib
import os
import unicodedata
import warnings
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import FileError, as_path
from .pixels import of_channels, of_size, read_pictures

FOLDER, FILE = "folder:", "file:"  # what the name of such a data set begins with
TESTS = "test", "val", "valid", "validation"  # what the folder beside train/ may be called
TEST_SHARE = 0.1  # of pictures that do not come in train/ and test/
SPLIT_SEED = 0  # by which, and by their names, they are chosen and put in order
UNREADABLE = 0.01  # share of the pictures from which on it is an error
MOST_CLASSES = 1000
NO_DECODER = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS")  # kinds that Pillow only recognises
UNKNOWN = (".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".nef", ".raw")  # and does not read
USABLE = range(28, 65, 4)  # sizes that a model can have
SIZE = 32  # to which pictures are brought where no size is asked for


def is_own(dataset: str) -> bool:
    """Whether a data set is one's own: "folder:PATH" or "file:PATH"."""
    text = dataset if isinstance(dataset, str) else ""
    return text.startswith((FOLDER, FILE)) and text.partition(":")[2] != ""


def is_file(dataset: str) -> bool:
    return dataset.startswith(FILE)


def dataset_name(dataset: str) -> str:
    """A data set's name, for titles and folders; of your own pictures, the end of the path."""
    if not is_own(dataset):
        return dataset
    path = Path(dataset.partition(":")[2]).expanduser().absolute().resolve()
    return path.stem if is_file(dataset) else path.name


def same_dataset(dataset: str) -> str:
    """What two names of one data set share: of your own, its name and not where it lies."""
    return f"{dataset.partition(':')[0]}:{dataset_name(dataset)}"


def find(dataset: str, root: str | Path) -> Path:
    """The path that a data set names; where nothing is there, its last part in `root`."""
    path = as_path(dataset.partition(":")[2], "dataset")
    moved = as_path(root, "root") / path.name
    if not path.exists() and not moved.exists():
        where = f"{path} does not exist, and {moved} neither (which data_root decides)"
        raise FileError(f"dataset={dataset!r} is not allowed: {where}")
    return path if path.exists() else moved


def load_own(split: str, dataset: str, root: str | Path, size: int | None,
             channels: int | None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Images, uint8 (N, C, size, size), and labels, int64 (N,), all 0 where there are no classes.

    Their order is that of a draw by their names, so that the first of them are of all classes.
    `size`, `channels`: None: 32, or an archive's own size if a model can have it; grey, if no
    picture has a colour. Raises `FileError` (a `ValueError`) for a path without pictures, and for
    too many that cannot be read.
    """
    path = find(dataset, root)
    if is_file(dataset):
        images, labels, _ = load_archive(path, split)
        usable = images.shape[2] == images.shape[3] and images.shape[2] in USABLE
        images = of_size(images, size or (images.shape[2] if usable else SIZE))
        return of_channels(images, channels), labels
    found = pictures_in(path)
    classes = sorted({name for name, _ in found["train"]})
    files = tuple((file, changed_at(file)) for _, file in found[split])
    allowed = int(UNREADABLE * sum(map(len, found.values())))
    images, kept = read_pictures(files, size or SIZE, allowed)
    labels = torch.tensor([classes.index(name) for name, _ in found[split]])
    return of_channels(images, channels), labels[kept]


def count_own(split: str, dataset: str, root: str | Path) -> int:
    """How many pictures a split has, before any is read."""
    path = find(dataset, root)
    return len(load_archive(path, split)[0] if is_file(dataset) else pictures_in(path)[split])


def own_names(dataset: str, root: str | Path) -> list[str]:
    """The names of the classes: of the folders, or an archive's numbers if they have gaps."""
    if not is_own(dataset):
        return []
    if is_file(dataset):
        return load_archive(find(dataset, root), "train")[2]
    return sorted({name for name, _ in pictures_in(find(dataset, root))["train"]} - {""})


def pictures_in(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Class and path of each picture in a folder, for each split, in the order of their draws.

    `folder` holds pictures, or a folder of them for each class, or train/ and test/ of that shape.
    Raises `FileError` for another shape, and for a test class that is not trained on.
    """
    folder, inside = _unwrapped(folder)
    splits = {name.lower(): path for name, path in inside.items()}
    test = next((splits[name] for name in TESTS if name in splits), None)
    if "train" in splits and test is not None:
        parts = {"train": _classes_in(splits["train"]), "test": _classes_in(test)}
        found = {split: [(name, path) for _, name, path in part] for split, part in parts.items()}
    else:
        files = _classes_in(folder)
        of_test = chosen_for_test([draw for draw, *_ in files], [name for _, name, _ in files])
        found = {"train": [], "test": []}
        for (_, name, path), here in zip(files, of_test, strict=True):
            found["test" if here else "train"].append((name, path))
    trained = {name for name, _ in found["train"]}
    if unknown := sorted({name for name, _ in found["test"]} - trained):
        raise FileError(f"{folder} has no training pictures of the test's class {unknown[0]!r}")
    check_count(folder, len(trained))
    return found


def check_count(path: Path, classes: int) -> None:
    """Raise `FileError` for more classes than a model can have."""
    if classes > MOST_CLASSES:
        raise FileError(f"{path} has {classes:,} classes; at most {MOST_CLASSES} are allowed")


def _unwrapped(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A folder and the folders in it; of one that holds nothing but one of classes, the latter."""
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder; one of pictures is expected")
    while True:
        inside = [path for path in folder.iterdir() if not _hidden(path.name)]
        folders = {path.name: path for path in inside if path.is_dir()}
        if len(inside) != 1 or not folders or not any(p.is_dir() for p in inside[0].iterdir()):
            return folder, folders
        folder = inside[0]


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _classes_in(folder: Path) -> list[tuple[float, str, Path]]:
    """Draw, class and path of each picture in a folder, in the order of the draws."""
    from PIL import Image  # which MNIST does not need

    kinds = Image.registered_extensions().items()
    endings = {end for end, kind in kinds if kind in Image.OPEN and kind not in NO_DECODER}
    there = _walk(folder)
    files = [path for path in there if path.suffix.lower() in endings]
    if left_out := [path for path in there if path.suffix.lower() in {*UNKNOWN} - endings]:
        text = f"{len(left_out):,} files in {folder} are of a kind that Pillow does not read"
        warnings.warn(f"{text}, such as {left_out[0].name}", stacklevel=2)
    if not files:
        raise FileError(f"{folder} holds no picture of a kind that Pillow reads")
    loose = [path.name for path in files if path.parent == folder]
    if 0 < len(loose) < len(files):
        held = f"{folder} holds pictures, such as {loose[0]!r}, beside folders of pictures"
        raise FileError(f"{held}: one of the two is expected")
    found = []
    for path in files:  # a Mac writes accents in another form than others
        name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        found.append((draw(name), "" if loose else name.partition("/")[0], path))
    return sorted(found)


def _walk(folder: Path) -> list[Path]:
    """All files in a folder, and in those that are linked there, none of them twice."""

    def stop(error: OSError) -> None:
        raise FileError(f"{error.filename} cannot be read: {error.strerror}") from error

    files, seen = [], set()
    for place, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        about = os.stat(place)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = [name for name in folders if not _hidden(name)]
        files += [Path(place, name) for name in names if not _hidden(name)]
    return files


def draw(name: str) -> float:
    """A number in [0, 1) that depends on a picture's name alone."""
    digest = hashlib.sha256(f"{SPLIT_SEED}/{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def changed_at(path: Path) -> int:
    """When a file was changed, by which it is read again; 0 if that cannot be known."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def chosen_for_test(draws: list[float], classes: list) -> list[bool]:
    """Which of some pictures are kept for the test: about a tenth, decided by each one's draw.

    So most stay where they are when others come or go. Of each class one at least is left to train
    on, and one at least of all is for the test. Raises `FileError` for a single picture.
    """
    if len(draws) < 2:
        raise FileError(f"{len(draws)} picture is there; 2 or more are expected")
    of_class = defaultdict(list)
    for number, name in enumerate(classes):
        of_class[name].append(number)
    spared = {max(members, key=draws.__getitem__) for members in of_class.values()}
    free = [k for k in range(len(draws)) if k not in spared] or list(spared)
    first = min(free, key=draws.__getitem__)
    return [k == first or (place < TEST_SHARE and k not in spared) for k, place in enumerate(draws)]


def load_archive(path: Path, split: str) -> tuple[Tensor, Tensor, list[str]]:
    """Images of an .npz, uint8 (N, 1 or 3, H, W), labels from 0 on, int64 (N,), and their names."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz")
        with np.load(path, allow_pickle=False) as archive:
            images = archive["images"]
            labels = archive.get("labels")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    given = f"{images.dtype} {images.shape}"
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3):
        images = np.moveaxis(images, -1, 1)
    fits = images.ndim == 4 and images.shape[1] in (1, 3) and images.size > 0
    if images.dtype != np.uint8 or not fits:
        expected = "uint8 (N, H, W), (N, H, W, 3) or (N, 3, H, W) is expected"
        raise FileError(f"{path} has images {given}; {expected}")
    labels = np.zeros(len(images), np.int64) if labels is None else labels
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or labels.min() < 0:
        given = f"{path} has labels {labels.dtype} {labels.shape}"
        raise FileError(f"{given}; {len(images)} whole numbers from 0 are expected")
    values, labels = np.unique(labels, return_inverse=True)
    check_count(path, len(values))
    names = [] if values[-1] < len(values) else [str(value) for value in values]
    draws = [draw(str(k)) for k in range(len(images))]
    test = np.array(chosen_for_test(draws, labels.tolist()))
    order = np.argsort(draws)
    chosen = order[(test if split == "test" else ~test)[order]]
    return torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen]), names
