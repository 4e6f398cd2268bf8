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
from .prior import LatentPrior
from .run import Run

# Ten colours that stay apart for colour-blind readers on white (after Paul Tol's "muted").
COLOURS = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933",
    "#ddcc77", "#cc6677", "#882255", "#aa4499", "#555555",
)  # fmt: skip
DPI = 100
FRAME_MS, LAST_FRAME_MS = 400, 2500
INTERPOLATION_FRAMES, INTERPOLATION_MS = 13, 150  # from one digit to the next
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


def render(run: Run) -> list[Path]:
    """Draw every picture of a run into its folder; returns their paths."""
    config, frames, history = run.model.config, run.frames, run.metrics["history"]
    name = describe(config, run.metrics["config"]["dataset"])
    examples = Digits(torch.from_numpy(frames.originals)[:, None], torch.from_numpy(frames.classes))
    between = interpolation_frames(run.model, examples, name)
    gifs = {  # file: frames, and how long each and the last is shown
        "reconstruction.gif": (reconstruction_frames(frames, name), FRAME_MS, LAST_FRAME_MS),
        "latent.gif": (latent_frames(frames, name, config.latent_values), FRAME_MS, LAST_FRAME_MS),
        "interpolation.gif": (between, INTERPOLATION_MS, INTERPOLATION_MS),
    }
    pngs = {
        "train_metrics.png": plot_curves(history["train"], f"Training, {name}"),
        "test_metrics.png": plot_curves(history["test"], f"Test set, {name}"),
        "samples.png": plot_samples(run.model, name),
    }
    if config.latent_values == 2 and not config.num_classes:
        pngs["manifold.png"] = plot_manifold(run.model, name)
    if config.num_classes:
        pngs["digits.png"] = plot_digits(run.model, name)
    for picture, drawn in gifs.items():
        save_gif(run.directory / picture, *drawn)
    for picture, figure in pngs.items():
        save_png(run.directory / picture, figure)
    return [run.directory / picture for picture in (*gifs, *pngs)]


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


def interpolation_frames(model: VAE, digits: Digits, name: str) -> list[Figure]:
    """Figures in which each of some digits becomes the next, and then itself again.

    `digits.images`: (N, 1, 28, 28) in [-1, 1].
    """
    here, there = digits, Digits(digits.images.roll(-1, 0), digits.labels.roll(-1))
    n = len(digits.images)
    way = "along the sphere" if _on_sphere(model) else "along a straight line"
    columns = n // 2 if n % 2 == 0 else n
    times = np.linspace(0, 1, INTERPOLATION_FRAMES).tolist()
    figures = [
        plot_grid(images, columns, f"Each digit becomes the next, {way}\n{name}")
        for images in decode_between(model, here, there, times)
    ]
    return figures + figures[-2:0:-1]


@torch.no_grad()
def decode_between(model: VAE, first: Digits, second: Digits, times: list[float]) -> list[Tensor]:
    """Decode points on the way between the means of two batches of images, a batch for each time.

    `times`: shares of the way, 0 to 1. On a grid the way is a straight line, place by place.
    Global latents, whose prior lies near a sphere, go along it (White 2016, "Sampling Generative
    Networks"), or the middle would be nearer to the origin than a draw ever is. `first.images`,
    `second.images`: (B, 1, 28, 28) in [-1, 1]. A conditional model is given the nearer end's label.
    """
    device, conditional = model.decoder.position.device, model.config.num_classes > 0
    labels = [end.labels.to(device) if conditional else None for end in (first, second)]
    a, b = (
        model.encode(end.images.to(device), given).mode()
        for end, given in zip((first, second), labels, strict=True)
    )
    between = slerp if _on_sphere(model) else torch.lerp
    return [model.decode(between(a, b, t), labels[t >= 0.5]) for t in times]


def _on_sphere(model: VAE) -> bool:
    """Whether the prior lies near a sphere: one vector, of two values or more."""
    return model.config.latent_grid == 1 and model.config.latent_size > 1


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation from `a` to `b`, (B, ...), each row one vector (Shoemake 1985, 3.3).

    The direction goes along the arc, sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b for unit
    vectors with the angle w between them, while the length goes from one to the other in
    proportion.
    """
    shape, a, b = a.shape, a.flatten(1), b.flatten(1)
    length = torch.lerp(a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True), t)
    a, b = F.normalize(a), F.normalize(b)
    angle = torch.acos((a * b).sum(1, keepdim=True).clamp(-1, 1))
    along = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    along = torch.where(angle > 1e-4, along, torch.lerp(a, b, t))  # parallel: nothing to turn
    return (length * F.normalize(along)).view(shape)


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """(N, H, W) to one image of N / columns rows, with a grey line around each."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=-0.5)
    height, width = padded.shape[1:]
    rows = padded.reshape(-1, columns, height, width).swapaxes(1, 2)
    return rows.reshape(-1, columns * width)


def save_png(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, in one step."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))


def save_gif(path: Path, figures: list[Figure], frame_ms: int, last_ms: int) -> None:
    """Write figures as an endless GIF, in one step; each is shown so many milliseconds."""
    frames = [to_palette(figure) for figure in figures]
    durations = [frame_ms] * (len(frames) - 1) + [last_ms]

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
