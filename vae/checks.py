"""What public functions take: images, latents, labels, counts, generators. Each rule stands once.

Whatever does not fit is a `ValueError` that names the argument, its value and what is allowed.
Floating-point tensors may be of any of `FLOATS`: they are cast to the type of what computes.
"""

import operator
import warnings

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_compiling  # or exporting: then there are no values to look at

MNIST_SHAPE = (1, 28, 28)  # of an image: channels, height, width
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
MANY = 10  # so many images without a single value below 0 are hardly all dark ones
HINT = (
    f"{MANY} images or more, and all values lie between 0 and 1: in floating-point images black is "
    "-1 (2 * x - 1 puts it there), in uint8 white is 255"
)


def check_images(images: Tensor, name: str = "images", *, raw: bool = False,
                 shape: tuple[int, int, int] | None = None, smallest: int = 1,
                 most: float = 1, values: bool = True, hint: bool = False) -> None:  # fmt: skip
    """Raise `ValueError` unless `images` is (N >= 1, *shape) in [-1, 1], or uint8 if `raw`.

    `shape`: channels, height and width; None: grey or RGB, height and width at least `smallest`.
    `most`: in place of 1. `values`: look at them, for which a GPU must be waited for. `hint`: warn
    where a whole set seems to lie in [0, 1], which cannot be told for certain.
    """
    expected = "a tensor, floating-point in [-1, 1]"
    if raw:
        check_type(images, name, (*FLOATS, torch.uint8), f"{expected}, or uint8")
    else:
        check_type(images, name, FLOATS, f"{expected} (vae.scale_images turns uint8 into that)")
    channels, high, wide = images.shape[1:] if images.ndim == 4 else (0, 0, 0)
    fits = channels in (1, 3) and min(high, wide) >= smallest
    if not (fits if shape is None else (channels, high, wide) == shape) or not images.shape[0]:
        free = f"1 or 3, H, W), H and W >= {smallest},"
        expected = f"(N >= 1, {free if shape is None else ', '.join(map(str, shape)) + ')'}"
        raise ValueError(f"{name} has shape {tuple(images.shape)}; {expected} is expected")
    if not values or is_compiling():
        return
    is_raw = images.dtype == torch.uint8
    low, high = (value.item() for value in images.detach().aminmax())
    if not is_raw and not (low >= -most and high <= most):  # written so that NaN fails too
        given = f"{name} has values from {low:.4g} to {high:.4g}"
        raise ValueError(f"{given}; [-{most}, {most}] is expected")
    if hint and len(images) >= MANY and (high <= 1 if is_raw else low >= 0):
        warnings.warn(HINT, stacklevel=1)  # from one line, by which Python says it once


def check_pair(x: Tensor, y: Tensor, **how) -> None:
    """Raise `ValueError` unless `x` and `y` are images, as `check_images` has it, of one shape."""
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape != y.shape:
        given = f"x has shape {tuple(x.shape)}, y {tuple(y.shape)}"
        raise ValueError(f"{given}, not the same, which is expected")
    check_images(x, "x", **how)
    check_images(y, "y", **how)


def check_floats(tensor: Tensor, name: str, shape: tuple, values: bool = True) -> None:
    """Raise `ValueError` unless `tensor` is floating-point, of `shape`, and finite.

    `shape`: a letter stands for any size of 1 or more. `values`: as for `check_images`.
    """
    expected = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
    check_type(tensor, name, FLOATS, f"a tensor, floating-point {expected}")
    pairs = zip(tensor.shape, shape, strict=False)
    fits = all(n > 0 if isinstance(wanted, str) else n == wanted for n, wanted in pairs)
    if tensor.ndim != len(shape) or not fits:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; {expected} is expected")
    if values and not is_compiling() and not tensor.isfinite().all():
        raise ValueError(f"{name} has values that are not finite; finite ones are expected")


def as_labels(labels: object, n: int, classes: int, values: bool = True) -> Tensor:
    """`labels` as int64 (n,): from a tensor, a NumPy array, a list, or one number for all of them.

    Raises `ValueError` unless they are whole numbers from 0 to `classes` - 1, n of them. `values`:
    as for `check_images`.
    """
    if not isinstance(labels, Tensor):
        try:
            labels = np.array(labels)
        except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths
            raise ValueError(f"labels={labels!r} is not allowed: {n} whole numbers") from error
        if labels.dtype.kind in "iu":
            labels = torch.from_numpy(labels.astype(np.int64))
    kind, shape = labels.dtype, tuple(labels.shape)
    strided = getattr(labels, "layout", None) == torch.strided
    if kind not in WHOLE or shape not in ((), (n,)) or not strided:
        given = f"labels are {kind} {shape}"
        raise ValueError(f"{given}; int64 ({n},), or one whole number for all, is expected")
    labels = labels.long().expand(n)
    if values and not is_compiling() and not 0 <= labels.min() <= labels.max() < classes:
        given = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"labels from 0 to {classes - 1} are expected, not {given}")
    return labels


def check_classes(labels: Tensor, classes: int, seen: str, every: bool = True) -> None:
    """Raise `ValueError` unless labels are 0 to `classes` - 1, with `every` one there.

    A class that is never seen is never learned.
    """
    there = labels.unique().tolist()
    if (there != list(range(classes))) if every else not 0 <= there[0] <= there[-1] < classes:
        shown = ", ".join(map(str, there[:12])) + ", ..." * (len(there) > 12)
        given = f"the {seen} have {len(there)} classes, {shown}"
        text = f"num_classes={classes} is not allowed: {given}; 0 to num_classes - 1"
        raise ValueError(f"{text}{', each of them,' * every} are expected")


def as_count(value: object, name: str, least: int = 1) -> int:
    """`value` as an int. Raises `ValueError` unless it is a whole number from `least` to 2^63."""
    try:
        count = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = least - 1
    if not least <= count < 2**63:
        raise ValueError(f"{name}={value!r} is not allowed: a whole number, at least {least}")
    return count


def gaussian(*shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws of N(0, 1), float32 on the CPU, so that a seed gives the same ones everywhere."""
    check_generator(generator)
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


def check_generator(generator: torch.Generator | None) -> None:
    """Raise `ValueError` unless `generator` is one of the CPU, or None."""
    on_cpu = isinstance(generator, torch.Generator) and generator.device.type == "cpu"
    if generator is not None and not on_cpu:
        raise ValueError(f"generator={generator!r} is not allowed: torch.Generator() on the CPU")


def check_type(tensor: object, name: str, kinds: tuple, expected: str) -> None:
    """Raise `ValueError`, saying what is `expected`, unless a tensor's type is one of `kinds`."""
    given = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
    if given in kinds and tensor.layout != torch.strided:
        given = tensor.layout
    if given not in kinds:
        raise ValueError(f"{name} is {given}; {expected} is expected")
