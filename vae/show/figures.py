"""The pictures of a run: curves, samples, the latent plane, interpolations."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from ..data import Digits, scale_images
from ..metrics import mse
from ..model import VAE, VAEConfig
from ..perceptual import LPIPS
from ..prior import LatentPrior
from ..store.files import write_atomically
from .interpolation import decode_between

DPI = 100
TITLES = {  # of the curves, with units
    "mse": "MSE, images in [-1, 1]",
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "lpips": "LPIPS, on the first test images",
    "perceptual": "LPIPS, on its share of the batch",
    "kl": "KL, the rate (nats per image)",
    "marginal": "−log p(couplings(z)), less a constant (nats)",
    "nll": "Calibrated NLL of the distortion (nats)",
    "neg_elbo": "−ELBO, calibrated (nats per image)",
    "generator": "Generator: mean fake logit, negated",
    "adaptive_weight": "Adaptive weight of the generator's term",
    "discriminator": "Discriminator: hinge loss (2 = collapsed)",
    "accuracy_real": "Discriminator: share right on real patches",
    "accuracy_fake": "Discriminator: share right on fake patches",
    "penalty_weight": "Discriminator: weight of its R1 penalty",
    "gradient_norm": "Gradient norm before clipping",
    "images_per_second": "Training speed (images/s)",
}
LOGARITHMIC = ("mse", "lpips", "perceptual", "adaptive_weight", "penalty_weight")


def describe(config: VAEConfig, dataset: str) -> str:
    """ "latent size 2 on 7×7", and the data set if it is not MNIST, for titles."""
    shape = f"latent size {config.latent_size} on {config.latent_grid}×{config.latent_grid}"
    return shape + ("" if dataset == "mnist" else f", {dataset}")


def plot_curves(rows: list[dict], title: str) -> Figure:
    """Every quantity in a history (rows with "epoch" and values) over the epochs."""
    names = [name for name in TITLES if any(name in row for row in rows)]
    columns = 3
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.9 * lines + 0.5), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=14)
    for axes, name in zip(figure.subplots(lines, columns, squeeze=False).flat, names, strict=False):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
        axes.set_title(TITLES[name], fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if name in LOGARITHMIC:
            axes.set_yscale("log")
        if name.startswith("accuracy"):
            axes.set_ylim(0, 1)
    for axes in figure.axes[len(names) :]:
        axes.remove()
    return figure


def plot_samples(model: VAE, name: str, seed: int = 0, prior: LatentPrior | None = None) -> Figure:
    """8x8 images decoded from draws of N(0, I), or of a learned prior; of all classes in turn."""
    labels = torch.arange(64) % 10 if model.config.num_classes or prior else None
    images = model.sample(64, labels, torch.Generator().manual_seed(seed), prior)
    source = "N(0, I)" if prior is None else "the learned prior"
    return plot_grid(images, 8, f"Draws from {source}, {name}")


def plot_digits(
    model: VAE, name: str, prior: LatentPrior | None = None, seed: int = 0, columns: int = 10
) -> Figure:
    """Each row is a digit that was asked for, each column one draw of noise: style, held.

    `model` is conditional, or `prior` a learned prior of its latents. Raises `ValueError`.
    """
    classes = model.config.num_classes if prior is None else prior.config.num_classes
    if not classes:
        raise ValueError("model.config.num_classes=0 and prior=None: one of them must know digits")
    shape = model.config.latent_shape
    noise = torch.randn(columns, *shape, generator=torch.Generator().manual_seed(seed))
    noise = noise.repeat(classes, 1, 1, 1)
    labels = torch.arange(classes).repeat_interleave(columns)
    device = model.decoder.position.device
    with torch.no_grad():
        z = noise if prior is None else prior.sample(len(noise), labels, noise=noise)
        given = labels.to(device) if model.config.num_classes else None
        images = model.decode(z.to(device), given)
    source = "z ~ N(0, I)" if prior is None else "the learned prior"
    return plot_grid(images, columns, f"A digit a row, a style a column\n{source}, {name}")


@torch.no_grad()
def plot_manifold(model: VAE, name: str, side: int = 20) -> Figure:
    """What a latent of two values holds: the decoded quantiles of N(0, 1) in both, side x side.

    The quantiles (k - 0.5) / side of each value, so that every image stands for as much of the
    prior (Kingma & Welling 2014, fig. 4). Raises `ValueError` for another latent or label.
    """
    if model.config.latent_values != 2 or model.config.num_classes:
        raise ValueError(
            f"{model.config.latent_values} latent values, num_classes={model.config.num_classes}: "
            "two values and no classes are expected"
        )
    quantiles = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    down, across = torch.meshgrid(-quantiles, quantiles, indexing="ij")
    z = torch.stack([across, down], -1).reshape(-1, *model.config.latent_shape)
    images = model.decode(z.to(model.decoder.position.device))
    figure = plot_grid(images, side, f"The plane of z, by quantiles of N(0, I), {name}", 9)
    (axes,) = figure.axes
    axes.set_axis_on()
    places = [side * 30 * (k + 0.5) / side - 0.5 for k in range(0, side, 3)]
    names = [f"{quantiles[k]:.1f}" for k in range(0, side, 3)]
    axes.set_xticks(places, names, fontsize=8)
    axes.set_yticks(places, [f"{-quantiles[k]:.1f}" for k in range(0, side, 3)], fontsize=8)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    axes.set_position((0.08, 0.07, 0.9, 0.86))
    return figure


def plot_grid(images: Tensor, columns: int, title: str, width: float = 6) -> Figure:
    """Images (N, 1, 28, 28) in rows of `columns`, `width` inches wide, under a title."""
    tiles = tile(images.float().cpu().numpy()[:, 0], columns)
    picture, head = width * tiles.shape[0] / tiles.shape[1], 0.25 + 0.25 * len(title.split("\n"))
    figure = Figure(figsize=(width, picture + head), dpi=DPI)
    figure.suptitle(title, fontsize=13, y=1 - 0.12 / (picture + head), va="top")
    axes = figure.add_axes((0.01, 0.01, 0.98, picture / (picture + head) - 0.01))
    axes.imshow(tiles, cmap="gray", vmin=-1, vmax=1)
    axes.set_axis_off()
    return figure


def plot_examples(digits: Digits, title: str, columns: int = 12) -> Figure:
    """The first images of each class, a row for each."""
    classes = digits.labels.unique().tolist()
    rows = [digits.images[digits.labels == c][:columns, 0] for c in classes]
    figure = Figure(figsize=(0.62 * columns, 0.62 * len(rows) + 0.4), dpi=DPI)
    figure.suptitle(title, fontsize=12)
    for axis, label, images in zip(figure.subplots(len(rows), 1).flat, classes, rows, strict=True):
        axis.imshow(tile(scale_images(images).numpy(), len(images)), cmap="gray", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[], frame_on=False)
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
    figure.subplots_adjust(0.06, 0.01, 0.99, 0.94, hspace=0.02)
    return figure


@torch.no_grad()
def plot_distances(images: Tensor, lpips: LPIPS) -> Figure:
    """Images (B, 1, 28, 28) in [-1, 1] beside a blur and a shift: how far MSE and LPIPS find them.

    The blur is by a 3x3 window; the shift is by one pixel to the right.
    """
    edge = F.pad(images, (1, 1, 1, 1), value=-1)
    versions = {
        "original": images,
        "blurred": F.avg_pool2d(edge, 3, stride=1),
        "moved by one pixel": edge[..., 1:-1, :-2],
    }
    figure = Figure(figsize=(2.4 * len(versions), 1.7 * len(images) + 1.2), dpi=DPI)
    figure.suptitle("Which is nearer to the original?", fontsize=12)
    axes = figure.subplots(len(images), len(versions), squeeze=False)
    for column, (version, changed) in zip(axes.T, versions.items(), strict=True):
        column[0].set_title(version, fontsize=10)
        distances = zip(mse(images, changed), lpips(images, changed), strict=True)
        for axis, image, (error, distance) in zip(column, changed, distances, strict=True):
            axis.imshow(image[0], cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"MSE {error:.3f}, LPIPS {distance:.3f}", fontsize=8)
    figure.tight_layout(pad=0.6)
    return figure


@torch.no_grad()
def plot_interpolation(model: VAE, digits: Digits, name: str, steps: int = 9) -> Figure:
    """A row for each two of `digits` (an even number): the way between their means.

    At the ends stand the originals. A conditional model is given the nearer end's label.
    """
    x = scale_images(digits.images)
    first, second = (Digits(x[k::2], digits.labels[k::2]) for k in (0, 1))
    times = torch.linspace(0, 1, steps).tolist()
    decoded = torch.stack(decode_between(model, first, second, times), 1).cpu()
    rows = torch.cat([first.images[:, None], decoded, second.images[:, None]], dim=1)
    pairs = len(rows)
    figure = Figure(figsize=(0.75 * (steps + 2), 0.75 * pairs + 0.75), dpi=DPI)
    figure.suptitle(f"From one image to another, {name}", fontsize=12)
    axes = figure.add_axes((0.01, 0.3 / (0.75 * pairs + 0.75), 0.98, pairs / (pairs + 1)))
    axes.imshow(tile(rows.flatten(0, 1)[:, 0].numpy(), steps + 2), cmap="gray", vmin=-1, vmax=1)
    axes.set(yticks=[], frame_on=False)
    ends = [14.5, 29.5 + 15, 30 * (steps + 1) - 15.5, 30 * (steps + 1) + 14.5]
    axes.set_xticks(ends, ["original", "t = 0", "t = 1", "original"], fontsize=9)
    axes.tick_params(length=0)
    return figure


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """(N, H, W) to one image of N / columns rows, with a grey line around each."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=-0.5)
    height, width = padded.shape[1:]
    rows = padded.reshape(-1, columns, height, width).swapaxes(1, 2)
    return rows.reshape(-1, columns * width)


def save_png(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, in one step."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))
