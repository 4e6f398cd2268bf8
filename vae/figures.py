"""The pictures of a run: GIFs of reconstructions and latents, curves, samples."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from .data import Digits, scale_images
from .files import write_atomically
from .frames import Frames
from .metrics import mse, psnr, ssim
from .model import VAE, VAEConfig
from .perceptual import LPIPS
from .run import Run

# Ten colours that stay apart for colour-blind readers on white (after Paul Tol's "muted").
COLOURS = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933",
    "#ddcc77", "#cc6677", "#882255", "#aa4499", "#555555",
)  # fmt: skip
DPI = 100
FRAME_MS, LAST_FRAME_MS = 400, 2500
TITLES = {  # of the curves, with units
    "mse": "MSE, images in [-1, 1]",
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "lpips": "LPIPS, on the first test images",
    "perceptual": "LPIPS, on its share of the batch",
    "kl": "KL, the rate (nats per image)",
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


def render(run: Run) -> list[Path]:
    """Draw every picture of a run into its folder; returns their paths."""
    config, frames, history = run.model.config, run.frames, run.metrics["history"]
    name = describe(config, run.metrics["config"]["dataset"])
    pictures = {
        "reconstruction.gif": reconstruction_frames(frames, name),
        "latent.gif": latent_frames(frames, name, config.latent_values),
        "train_metrics.png": plot_curves(history["train"], f"Training, {name}"),
        "test_metrics.png": plot_curves(history["test"], f"Test set, {name}"),
        "samples.png": plot_samples(run.model, name),
    }
    for picture, drawn in pictures.items():
        save = save_gif if picture.endswith(".gif") else save_png
        save(run.directory / picture, drawn)
    return [run.directory / picture for picture in pictures]


def describe(config: VAEConfig, dataset: str) -> str:
    """ "latent size 2 on 7×7", and the data set if it is not MNIST, for titles."""
    shape = f"latent size {config.latent_size} on {config.latent_grid}×{config.latent_grid}"
    return shape + ("" if dataset == "mnist" else f", {dataset}")


def reconstruction_frames(frames: Frames, name: str) -> list[Figure]:
    """One figure an evaluation: ten images above their reconstructions, each with its metrics."""
    originals = torch.from_numpy(frames.originals).unsqueeze(1)
    figures = []
    for epoch, images in zip(frames.epochs, frames.reconstructions, strict=True):
        y = torch.from_numpy(images).unsqueeze(1)
        measured = [measure(originals, y).tolist() for measure in (mse, ssim, psnr)]
        figure = Figure(figsize=(10, 3.3), dpi=DPI)
        figure.suptitle(f"Test images and reconstructions, {name}, epoch {epoch:.2f}", fontsize=15)
        columns = len(frames.originals)
        axes = figure.subplots(2, columns, squeeze=False)
        for column in range(columns):
            for row, image in enumerate((frames.originals[column], images[column])):
                axes[row, column].imshow(image, cmap="gray", vmin=-1, vmax=1)
                axes[row, column].set(xticks=[], yticks=[])
            m, s, p = (values[column] for values in measured)
            axes[1, column].set_xlabel(f"MSE {m:.4f}\nSSIM {s:.3f}\n{p:.1f} dB", fontsize=11)
        axes[0, 0].set_ylabel("original", fontsize=12)
        axes[1, 0].set_ylabel("from z", fontsize=12)
        figure.subplots_adjust(0.03, 0.2, 0.995, 0.88, wspace=0.06, hspace=0.06)
        figures.append(figure)
    return figures


def latent_frames(frames: Frames, name: str, latent_values: int) -> list[Figure]:
    """One figure an evaluation: the test set's latents in the plane, coloured by class."""
    low, high = frames.points.min((0, 1)), frames.points.max((0, 1))
    margin = 0.04 * (high - low) + 1e-6
    labels = {1: ("$z_1$", "index of the image"), 2: ("$z_1$", "$z_2$")}
    label_x, label_y = labels.get(latent_values, ("t-SNE 1", "t-SNE 2"))
    figures = []
    for epoch, points in zip(frames.epochs, frames.points, strict=True):
        figure = Figure(figsize=(8, 7), dpi=DPI)
        axes = figure.add_axes((0.09, 0.08, 0.78, 0.84))
        axes.set_title(f"Latents of {len(points):,} test images, {name}, epoch {epoch:.2f}")
        colours = [COLOURS[label] for label in frames.labels]
        axes.scatter(*points.T, s=9 if len(points) <= 2000 else 4, c=colours, lw=0)
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
        axes.set_xlabel(label_x)
        axes.set_ylabel(label_y)
        dots = [Line2D([], [], marker="o", ls="", color=c, label=i) for i, c in enumerate(COLOURS)]
        axes.legend(handles=dots, title="class", loc="center left", bbox_to_anchor=(1, 0.5))
        figures.append(figure)
    return figures


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


def plot_samples(model: VAE, name: str, seed: int = 0) -> Figure:
    """8x8 images decoded from draws of the prior N(0, I), of all classes in turn if it has any."""
    labels = None
    if model.config.num_classes:
        labels = torch.arange(64) % model.config.num_classes
        labels = labels.to(model.decoder.position.device)
    images = model.sample(64, labels, torch.Generator().manual_seed(seed)).float().cpu().numpy()
    figure = Figure(figsize=(6, 6.4), dpi=DPI)
    figure.suptitle(f"Draws from the prior N(0, I), {name}", fontsize=13)
    axes = figure.add_axes((0.02, 0.01, 0.96, 0.92))
    axes.imshow(tile(images[:, 0], 8), cmap="gray", vmin=-1, vmax=1)
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
    """A row for each two of `digits` (an even number): the straight line between their means.

    At the ends stand the originals. A conditional model is given the nearer end's label.
    """
    labels = digits.labels if model.config.num_classes else None
    x = scale_images(digits.images)
    z = model.encode(x, labels).mode()
    t = torch.linspace(0, 1, steps)
    path = torch.lerp(z[0::2, None], z[1::2, None], t[:, None, None, None]).flatten(0, 1)
    if labels is not None:
        labels = torch.where(t < 0.5, labels[0::2, None], labels[1::2, None]).flatten()
    decoded = model.decode(path, labels).unflatten(0, (-1, steps))
    rows = torch.cat([x[0::2, None], decoded, x[1::2, None]], dim=1)
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


def save_gif(path: Path, figures: list[Figure]) -> None:
    """Write figures as an endless GIF, in one step; the last frame is shown longest."""
    frames = [to_palette(figure) for figure in figures]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]

    def write(temporary: Path) -> None:
        first, *others = frames
        first.save(temporary, save_all=True, append_images=others, duration=durations, loop=0)

    write_atomically(path, write)


def to_palette(figure: Figure) -> Image.Image:
    """A figure's pixels in 64 colours, half the size of a GIF's 256: greys, and COLOURS in shades.

    A palette that is chosen from the pixels would merge classes of few points.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    greys = [np.full(3, grey) for grey in np.linspace(0, 255, 34)]
    colours = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in COLOURS]
    shades = [255 - (255 - colour) * share for colour in colours for share in (1, 0.65, 0.3)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.round([*greys, *shades]).astype(np.uint8).tobytes())
    return image.quantize(palette=palette, dither=Image.Dither.NONE)
