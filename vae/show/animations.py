"""The GIFs of a run, frame by frame: reconstructions, latents, digits that become each other."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ..data import Digits
from ..metrics import mse, psnr, ssim
from ..model import VAE
from ..store.files import write_atomically
from .figures import DPI, decode_between, on_sphere, own_style, plot_grid
from .frames import Frames

# Ten colours that stay apart for colour-blind readers on white (after Paul Tol's "muted").
COLOURS = ("#332288", "#88ccee", "#44aa99", "#117733", "#999933",
           "#ddcc77", "#cc6677", "#882255", "#aa4499", "#555555")  # fmt: skip
MARKS, MOST_NAMED = "os^Dv*", 30  # of more than ten classes; how many the legend has room for
INTERPOLATION_FRAMES = 13  # from one digit to the next


def reconstruction_frames(frames: Frames, name: str) -> list[Figure]:
    """One figure an evaluation: ten images above their reconstructions, each with its metrics."""
    originals = torch.from_numpy(frames.originals).unsqueeze(1)
    figures = []
    for epoch, images in zip(frames.epochs, frames.reconstructions, strict=True):
        y = torch.from_numpy(images).unsqueeze(1)
        measured = zip(*(measure(originals, y) for measure in (mse, ssim, psnr)), strict=True)
        names = [f"MSE {m:.4f}\nSSIM {s:.3f}\n{p:.1f} dB" for m, s, p in measured]
        title = f"Test images and reconstructions, {name}, epoch {epoch:.2f}"
        under, beside = dict(enumerate(names)), {0: "original", 1: "from z"}
        figures.append(plot_grid(torch.cat([originals, y]), len(y), title, 9.3, under, beside))
    return figures


@own_style
def latent_frames(frames: Frames, name: str, latent_values: int) -> list[Figure]:
    """One figure an evaluation: the test set's latents in the plane, coloured by class."""
    low, high = frames.points.min((0, 1)), frames.points.max((0, 1))
    margin = 0.04 * (high - low) + 1e-6
    (left, bottom), (right, top) = low - margin, high + margin
    names = {1: ("$z_1$", "index of the image"), 2: ("$z_1$", "$z_2$")}
    across, up = names.get(latent_values, ("t-SNE 1", "t-SNE 2"))
    classes, rank = np.unique(frames.labels, return_inverse=True)
    # ten classes have a colour each; more of them, another mark as well
    looks = [(COLOURS[i % 10], MARKS[i // 10 % len(MARKS)]) for i in range(len(classes))]
    shown = list(zip(classes, looks, strict=True))[:MOST_NAMED]
    dots = [Line2D([], [], marker=mark, ls="", color=c, label=i) for i, (c, mark) in shown]
    groups = []  # of points with one mark: which they are, and their colours
    for start in range(0, len(classes), 10):
        some = (rank >= start) & (rank < start + 10)
        groups.append((some, [looks[i][0] for i in rank[some]], looks[start][1]))
    figures, size = [], 9 if len(rank) <= 2000 else 4
    for epoch, points in zip(frames.epochs, frames.points, strict=True):
        figure = Figure(figsize=(8, 7), dpi=DPI)
        axes = figure.add_axes((0.1, 0.08, 0.77, 0.84))
        axes.set_title(f"Latents of {len(points):,} test images, {name}, epoch {epoch:.2f}")
        for some, colours, mark in groups:
            axes.scatter(*points[some].T, s=size, c=colours, lw=0, marker=mark)
        axes.set(xlim=(left, right), ylim=(bottom, top), xlabel=across, ylabel=up)
        title = "class" if len(shown) == len(classes) else f"{len(shown)} of {len(classes)}"
        style = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "labelspacing": 0.4}
        axes.legend(handles=dots, title=title, fontsize=10 if len(shown) <= 20 else 8, **style)
        figures.append(figure)
    return figures


def interpolation_frames(model: VAE, digits: Digits, name: str) -> list[Figure]:
    """Each of some digits, (N, 1, 28, 28) in [-1, 1], becomes the next, and then itself again."""
    there = Digits(digits.images.roll(-1, 0), digits.labels.roll(-1))
    way = "along the sphere" if on_sphere(model) else "along a straight line"
    title, n = f"Each digit becomes the next, {way}\n{name}", len(digits.images)
    between = decode_between(model, digits, there, np.linspace(0, 1, INTERPOLATION_FRAMES).tolist())
    figures = [plot_grid(images, n // 2 if n % 2 == 0 else n, title) for images in between]
    return figures + figures[-2:0:-1]


def save_gif(path: Path, figures: list[Figure], frame_ms: int, last_ms: int) -> None:
    """Write figures as an endless GIF, in one step; each is shown so many milliseconds."""
    frames = np.stack([to_palette(figure) for figure in figures])
    durations = [frame_ms] * (len(frames) - 1) + [last_ms]
    options = {"extension": ".gif", "plugin": "pillow", "mode": "P", "palette": PALETTE.tobytes()}
    options["duration"] = durations if len(frames) > 1 else last_ms  # Pillow: no list for one frame
    write_atomically(path, iio.imwrite("<bytes>", frames, loop=0, **options))


@own_style
def to_palette(figure: Figure) -> np.ndarray:
    """A figure's pixels as the numbers of the nearest colours in PALETTE: uint8 (H, W)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    palette = Image.new("P", (1, 1))
    palette.putpalette(PALETTE.tobytes())
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    return np.asarray(image.quantize(palette=palette, dither=Image.Dither.NONE))


def _palette() -> np.ndarray:
    """64 colours: greys, and COLOURS in shades. One from the pixels would merge rare classes."""
    greys = [np.full(3, grey) for grey in np.linspace(0, 255, 34)]
    colours = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in COLOURS]
    shades = [255 - (255 - colour) * share for colour in colours for share in (1, 0.65, 0.3)]
    return np.round([*greys, *shades]).astype(np.uint8)


PALETTE = _palette()
