"""The pictures of a run: curves, samples, the latent plane, the way between two images."""

import functools
import io
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae.checks import check_images, gaussian
from vae.data import Digits, in_unit_range
from vae.metrics import mse
from vae.model import VAE
from vae.perceptual import LPIPS
from vae.prior import LatentPrior
from vae_store.files import write_atomically

from .frames import flat
from .names import class_name
from .names import dataset_name as dataset_name  # where the notebooks find these two
from .names import describe as describe

DPI = 100
ROUNDING = 1e-4  # of a value: less is no change, as of a rate that stays
TITLES = {  # of the curves, with units
    "mse": "MSE, images in [-1, 1]",
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "lpips": "LPIPS, on the first test images",
    "perceptual": "LPIPS, on its share of the batch",
    "kl": "KL, the rate (nats per image)",
    "marginal": "Marginal KL, less a constant (nats)",
    "nll": "−log p(x|z) (nats per image)",
    "neg_elbo": "−ELBO (nats per image)",
    "generator": "Generator: mean fake logit, negated",
    "adaptive_weight": "Adaptive weight of the generator's term",
    "discriminator": "Discriminator: hinge loss (2 = collapsed)",
    "accuracy_real": "Discriminator: share right on real",
    "accuracy_fake": "Discriminator: share right on fake",
    "penalty_weight": "Discriminator: weight of its R1 penalty",
    "gradient_norm": "Gradient norm before clipping",
    "images_per_second": "Training speed (images/s)",
}
ONE_AT_A_TIME = threading.RLock()  # of threads that draw: they share one style
MOST_ROWS = 30  # of classes in one picture
LOGARITHMIC = ("mse", "lpips", "perceptual", "adaptive_weight", "penalty_weight")


def own_style(function: Callable) -> Callable:
    """Let pictures not depend on the user's matplotlibrc, which is as it was afterwards."""

    @functools.wraps(function)
    def styled(*args, **kwargs):
        with ONE_AT_A_TIME, matplotlib.style.context("default"):
            return function(*args, **kwargs)

    return styled


@own_style
def plot_curves(rows: list[dict], title: str, columns: int = 3) -> Figure:
    """Every quantity in a history (rows with "epoch" and values) over the epochs."""
    names = [name for name in TITLES if any(name in row for row in rows)]
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.4 * columns, 2.9 * lines + 0.5), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=14)
    for number, name in enumerate(names, start=1):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axes = figure.add_subplot(lines, columns, number)
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
        axes.set(xlabel="epoch", yscale="log" if name in LOGARITHMIC else "linear")
        axes.set_title(TITLES[name], fontsize=10)
        axes.grid(alpha=0.3)
        first, values = points[0][1], [value for _, value in points]
        if name.startswith("accuracy"):
            axes.set_ylim(0, 1)
        elif max(values) - min(values) < ROUNDING * abs(first):  # no scale shows what is none
            axes.set_ylim(first - 0.1 * abs(first), first + 0.1 * abs(first))
    return figure


def plot_samples(model: VAE, name: str, seed: int = 0, prior: LatentPrior | None = None) -> Figure:
    """8x8 images decoded from draws of N(0, I), or of a learned prior; of all classes in turn."""
    classes = model.config.num_classes or (prior.config.num_classes if prior else 0)
    labels = torch.arange(64) % classes if classes else None
    images = model.sample(64, labels, torch.Generator().manual_seed(seed), prior)
    source = "N(0, I)" if prior is None else "the learned prior"
    return plot_grid(images, 8, f"Draws from {source}, {name}")


@torch.no_grad()
def plot_digits(model: VAE, name: str, prior: LatentPrior | None = None, seed: int = 0,
                columns: int = 10, names: Sequence[str] = ()) -> Figure:  # fmt: skip
    """Each row is a class that was asked for, each column one draw of noise: style, held.

    `model` is conditional, or `prior` a learned prior of its latents. `names`: of the classes, if
    they have some. Raises `ValueError`.
    """
    classes = model.config.num_classes if prior is None else prior.config.num_classes
    if not classes:
        raise ValueError("model.config.num_classes=0 and prior=None: one of them must know digits")
    generator = torch.Generator().manual_seed(seed)
    noise = gaussian(columns, *model.config.latent_shape, generator=generator)
    rows = min(classes, MOST_ROWS)
    noise, labels = noise.repeat(rows, 1, 1, 1), torch.arange(rows).repeat_interleave(columns)
    z = noise if prior is None else prior.sample(len(noise), labels, noise=noise)
    images = model.decode(z, labels if model.config.num_classes else None)
    source = "z ~ N(0, I)" if prior is None else "the learned prior"
    some = f", the first {rows} of {classes} classes" if rows < classes else ""
    kind = "class" if names or classes != 10 else "digit"
    title = f"A {kind} a row, a style a column{some}\n{source}, {name}"
    down = {row: class_name(row, names) for row in range(rows)} if names else None
    return plot_grid(images, columns, title, down=down)


@torch.no_grad()
def plot_manifold(model: VAE, name: str, side: int = 20) -> Figure:
    """The plane of a latent of two values, decoded at `side` quantiles of N(0, 1) of each.

    Every image stands for as much of the prior (Kingma & Welling 2014, fig. 4). Raises `ValueError`
    for another latent.
    """
    values, classes = model.config.latent_values, model.config.num_classes
    if values != 2 or classes:
        given = f"{values} latent values, num_classes={classes}"
        raise ValueError(f"{given}: two values and no classes are expected")
    places = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    quantiles = torch.special.ndtri(places)
    down, across = torch.meshgrid(-quantiles, quantiles, indexing="ij")
    z = torch.stack([across, down], -1).reshape(-1, *model.config.latent_shape)
    images = model.decode(z)
    across = {k: f"{quantiles[k]:.1f}" for k in range(0, side, 3)}
    down = {k: f"{-quantiles[k]:.1f}" for k in across}
    across[side // 2], down[side // 2] = "\n$z_1$", "$z_2$"
    title = f"The plane of z, by quantiles of N(0, I), {name}"
    return plot_grid(images, side, title, 9, across, down)


def plot_examples(digits: Digits, title: str, columns: int = 12,
                  names: Sequence[str] = ()) -> Figure:  # fmt: skip
    """The first images of each class, a row for each; `names`: of the classes."""
    rows, down, labels = [], {}, torch.as_tensor(digits.labels)
    check_images(digits.images, "digits.images", raw=True)
    for row, label in enumerate(labels.unique().tolist()[:MOST_ROWS]):
        own = in_unit_range(digits.images[labels == label][:columns])
        rows.append(F.pad(own, (0,) * 7 + (columns - len(own),), value=-0.5))
        down[row] = class_name(label, names)
    return plot_grid(torch.cat(rows), columns, title, 7.5, down=down if len(down) > 1 else None)


@own_style
def plot_grid(images: Tensor, columns: int, title: str, width: float = 6,
              across: dict[int, str] | None = None,
              down: dict[int, str] | None = None) -> Figure:  # fmt: skip
    """Images (N, 1 or 3, H, W) in rows of `columns`, `width` inches wide, under a title.

    `across`, `down`: what to write under columns and beside rows, by their number.
    """
    check_images(images, raw=True)
    if len(images) % columns:
        raise ValueError(f"columns={columns} is not allowed: {len(images)} images do not fill rows")
    images, across, down = in_unit_range(images), across or {}, down or {}
    images = flat(images.detach().float().cpu()).numpy()
    longest = max((len(line) for name in down.values() for line in name.split("\n")), default=-2)
    left = 0.15 + 0.075 * longest
    foot = max((0.15 + 0.17 * len(name.split("\n")) for name in across.values()), default=0)
    picture, head = width * (len(images) // columns) / columns, 0.25 + 0.25 * len(title.split("\n"))
    wide, high = width + left + 0.1, picture + head + foot + 0.05
    figure = Figure(figsize=(wide, high), dpi=DPI)
    figure.suptitle(title, fontsize=13, y=1 - 0.12 / high, va="top")
    axes = figure.add_axes(((left + 0.05) / wide, foot / high, width / wide, picture / high))
    draw_grid(axes, images, columns, across, down)
    return figure


def draw_grid(axes: Axes, images: np.ndarray, columns: int, across: dict[int, str],
              down: dict[int, str], size: float = 9) -> None:  # fmt: skip
    """As `plot_grid`, on axes that are there: images (N, H, W), names in letters of `size`."""
    draw_tiles(axes, images, columns)
    axes.set(frame_on=False)
    axes.tick_params(length=0, labelsize=size)
    cell = images.shape[-1] + 2  # an image and the line around it
    for names, set_ticks in ((across, axes.set_xticks), (down, axes.set_yticks)):
        set_ticks([cell * (k + 0.5) - 0.5 for k in names], list(names.values()))


def draw_tiles(axes: Axes, images: np.ndarray, columns: int) -> None:
    """Images in [-1, 1], grey (N, H, W) or RGB (N, 3, H, W), as `tile` has them, on axes."""
    picture = tile(images, columns)
    picture = picture if picture.ndim == 2 else np.clip((picture + 1) / 2, 0, 1)
    axes.imshow(picture, cmap="gray", vmin=-1, vmax=1)


@torch.no_grad()
def plot_distances(images: Tensor, lpips: LPIPS) -> Figure:
    """How far MSE and LPIPS find a 3x3 blur and a shift of images (B, C, H, W) in [-1, 1]."""
    images = in_unit_range(images)
    edge, names = F.pad(images, (1, 1, 1, 1), value=-1), {}
    versions = {"original": images, "blurred": F.avg_pool2d(edge, 3, stride=1)}
    versions["moved by one pixel"] = edge[..., 1:-1, :-2]
    for row, (version, changed) in enumerate(versions.items()):
        distance, error = lpips(images, changed).mean(), mse(images, changed).mean()
        names[row] = f"{version}\nMSE {error:.3f}\nLPIPS {distance:.3f}"
    title = "Which is nearer to the original?"
    return plot_grid(torch.cat(list(versions.values())), len(images), title, 4, down=names)


@torch.no_grad()
def plot_interpolation(model: VAE, digits: Digits, name: str, steps: int = 9) -> Figure:
    """A row for each two of `digits`: both, and the way between their means.

    One that is left has no row, and one alone is both ends of its own.
    """
    some = [part.repeat_interleave(2, 0) if len(part) == 1 else part for part in digits]
    x, labels = (part[: len(part) // 2 * 2] for part in (in_unit_range(some[0]), some[1]))
    first, second = (Digits(x[k::2], labels[k::2]) for k in (0, 1))
    between = decode_between(model, first, second, torch.linspace(0, 1, steps).tolist())
    rows = torch.stack([first.images, *(images.cpu() for images in between), second.images], 1)
    names = {0: "original", 1: "t = 0", steps: "t = 1", steps + 1: "original"}
    title = f"From one image to another, {name}"
    return plot_grid(rows.flatten(0, 1), steps + 2, title, 0.75 * (steps + 2), across=names)


@torch.no_grad()
def decode_between(model: VAE, first: Digits, second: Digits, times: list[float]) -> list[Tensor]:
    """Decode points on the way between the means of two batches of images, a batch for each time.

    `times`: shares of the way, 0 to 1. On a grid the way is a straight line. Global latents, whose
    prior lies near a sphere, go along it (White 2016, "Sampling Generative Networks"), or the
    middle would be nearer to the origin than a draw ever is. Images are (B, C, H, W) in [-1, 1].
    A conditional model is given the nearer end's label.
    """
    labels = [end.labels if model.config.num_classes else None for end in (first, second)]
    a = model.encode(first.images, labels[0]).mode()
    b = model.encode(second.images, labels[1]).mode()
    between = slerp if on_sphere(model) else torch.lerp
    return [model.decode(between(a, b, t), labels[t >= 0.5]) for t in times]


def on_sphere(model: VAE) -> bool:
    """Whether the prior lies near a sphere: one vector, of two values or more."""
    return model.config.latent_grid == 1 and model.config.latent_size > 1


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation from `a` to `b`, (B, ...), each row one vector (Shoemake 1985, 3.3).

    The direction is sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b for unit vectors with the angle
    w between them; the length goes in proportion from one to the other.
    """
    shape, a, b = a.shape, a.flatten(1), b.flatten(1)
    length = torch.lerp(a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True), t)
    a, b = F.normalize(a), F.normalize(b)
    angle = torch.acos((a * b).sum(1, keepdim=True).clamp(-1, 1))
    along = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    along = torch.where(angle > 1e-4, along, torch.lerp(a, b, t))  # parallel: nothing to turn
    return (length * F.normalize(along)).view(shape)


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """(N, H, W) to one image of N / columns rows, with a grey line around each; so in RGB."""
    if images.ndim == 4:  # (N, 3, H, W): the colours come last
        return np.stack([tile(images[:, colour], columns) for colour in range(3)], axis=-1)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=-0.5)
    rows = padded.reshape(-1, columns, *padded.shape[1:]).swapaxes(1, 2)
    return rows.reshape(-1, columns * padded.shape[2])


@own_style
def to_png(figure: Figure) -> bytes:
    """A figure as a PNG file's bytes."""
    figure.savefig(buffer := io.BytesIO(), format="png")
    return buffer.getvalue()


def save_png(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, in one step."""
    write_atomically(path, to_png(figure))
