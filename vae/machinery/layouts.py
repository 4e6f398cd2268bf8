"""How a folder of pictures is laid out: its classes, its parts, and which pictures are a test."""

import hashlib
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..pretrained import FileError

# How names begin that are nobody's class: hidden ones, and helper folders of systems.
HIDDEN = (".", "@eadir", "__macosx", "__pycache__", "#recycle", "$recycle.bin", "lost+found",
          "system volume information")  # fmt: skip
PART = re.compile(  # how a part of a set is called, in any case, with a space, "-" or "_" within
    r"(?:seg[ _-]?)?(?:(?P<train>train(?:ing)?(?:[ _-]?val)?|trn)|(?P<test>test(?:ing|s)?|tst)"
    r"|(?P<valid>val(?:id(?:ation)?)?|dev(?:elopment)?|eval(?:uation)?|hold[ _-]?out)"
    r"|(?P<other>pred(?:ict(?:ions?)?)?|unlabell?ed))"
    r"(?:[ _-]?(?:sets?|data(?:set)?|images?|imgs?|pictures|split|folder))*"
    r"(?:[ _-]?(?:\d+|[ab])|[ _-][a-z])?",
    re.IGNORECASE,
)
PART_WORD = re.compile(r"(?:^|[\W_])(?:train(?:ing)?|test(?:ing)?|val|valid(?:ation)?|eval)"
                       r"(?:$|[\W_\d])", re.IGNORECASE)  # fmt: skip
LAYOUTS = """expected is a folder of one of these layouts:
    pets/1.png                                    pictures
    pets/cat/1.png    pets/dog/2.png              a folder for each class
    pets/train/...    pets/test/...  (or val/)    both parts of the set, each in one of these ways
A class whose name is that of a part (train, test, val, ...) needs another name."""
NO_CLASS = "no class"  # of pictures beside which others have one
TEST_SHARE = 0.1  # of pictures that do not come in train/ and test/
SPLIT_SEED = 0  # decides, with their names, which pictures are for the test, and their order
MOST_CLASSES = 1000
UNKNOWN = (".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".nef", ".raw")  # not Pillow's
NO_DECODER = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS")  # formats that Pillow cannot decode


def pictures_in(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Class and path of each picture in a folder, for each split, in random order.

    `folder` holds pictures, or a folder of pictures for each class, or one part to train on and one
    to test on, with either. Raises `FileError` for another layout.
    """
    folder, inside = _unwrapped(folder)
    parts: dict[str, list[Path]] = {"train": [], "test": [], "valid": [], "other": []}
    for path in inside:
        parts.get(_part_of(path.name), []).append(path)
    test = parts["test"] or parts["valid"]
    if len(parts["train"]) == len(test) == 1:
        found = {"train": _classes_in(*parts["train"]), "test": _classes_in(*test)}
        used = *parts["train"], *test
    else:
        alone = len(parts["train"]) == 1 and len(parts["other"]) == len(inside) - 1
        used = parts["train"] if alone else inside
        files = _classes_in(used[0] if alone else folder)
        positions, classes, _ = zip(*files, strict=True)
        rows = split_rows(positions, classes)
        found = {split: [files[k] for k in chosen] for split, chosen in rows.items()}
    if unused := sorted(path.name for path in inside if path not in used):
        warnings.warn(f"{folder}: {', '.join(unused)} is passed over", stacklevel=2)
    pictures = {split: [(name, path) for _, name, path in part] for split, part in found.items()}
    check_class_count(folder, len({name for part in pictures.values() for name, _ in part}))
    return pictures


def class_order(trained: Iterable, tested: Iterable) -> list:
    """Names or numbers of classes in the order of their labels: those that are trained on first.

    Numbers within names count as numbers: 2 comes before 10, and "img 2" before "img 10".
    """

    def key(name: object) -> tuple:
        parts = re.split(r"(\d+)", str(name))  # text and digits in turn, so that all compare
        return [int(part) if k % 2 else part for k, part in enumerate(parts)], str(name)

    first = set(trained)
    return sorted(first, key=key) + sorted(set(tested) - first, key=key)


def check_class_count(path: Path, classes: int) -> None:
    """Raise `FileError` for more classes than a model can have."""
    if classes > MOST_CLASSES:
        raise FileError(f"{path} has {classes:,} classes; at most {MOST_CLASSES} are allowed")


def _part_of(name: str) -> str | None:
    """The part of a set, a group of `PART`, that has this name; None: a class may have it."""
    match = PART.fullmatch(name)
    return match and match.lastgroup


def _is_hidden(name: str) -> bool:
    return name.lower().startswith(HIDDEN)


def _unwrapped(folder: Path) -> tuple[Path, list[Path]]:
    """A folder, and the folders in it. A folder around a single folder of folders is unwrapped."""
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder; a folder of pictures is expected")
    inside = [path for path in folder.iterdir() if not _is_hidden(path.name)]
    folders = [path for path in inside if path.is_dir()]
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
        raise FileError(f"{held}; {LAYOUTS}")
    found, above = [], set()
    for path in files:  # file systems write accents in different forms
        name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        above |= {path.parent.relative_to(folder)}
        found.append((position_of(name), "" if loose else name.partition("/")[0], path))
    classes = {name for _, name, _ in found}
    parts = [str(path) for path in above if any(map(_part_of, path.parts))]
    if len(classes) > 1 and all(map(PART_WORD.search, classes)):
        parts += classes
    if parts:  # of a set, whose test would be seen
        some = ", ".join(sorted(parts)[:4]) + ", ..." * (len(parts) > 4)
        text = f"{folder} holds {some}: are these parts of a set, or classes?"
        raise FileError(f"{text} Nothing is guessed; {LAYOUTS}")
    return sorted(found)


def _walk(folder: Path) -> list[Path]:
    """All files in a folder and in the folders that are linked there, each once."""

    def stop(error: OSError) -> None:
        raise FileError(f"{error.filename} cannot be read: {error.strerror}") from error

    files, seen = [], set()
    for inside, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        new = (real := os.path.realpath(inside)) not in seen
        seen.add(real)
        folders[:] = [name for name in folders if new and not _is_hidden(name)]
        files += [Path(inside, name) for name in names if new and not _is_hidden(name)]
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
