"""The GIFs of a run, frame by frame: reconstructions, latents, digits that become each other."""

import math
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image

from vae.data import Digits
from vae.model import VAE
from vae_store.files import write_atomically

from .figures import DPI, decode_between, draw_tiles, on_sphere, own_style, plot_grid
from .frames import Frames
from .names import class_name

# Ten colours that stay apart for colour-blind readers on white (after Paul Tol's "muted").
COLOURS = ("#332288", "#88ccee", "#44aa99", "#117733", "#999933",
           "#ddcc77", "#cc6677", "#882255", "#aa4499", "#555555")  # fmt: skip
MARKS, MOST_NAMED = "os^Dv*", 30  # of more than ten classes; how many are named at their centres
MOST_LISTED = 15  # of classes with names, which are listed below
INTERPOLATION_FRAMES = 13  # from one digit to the next
NAME = {"path_effects": [withStroke(linewidth=4, foreground="white")], "fontsize": 20,
        "weight": "bold", "ha": "center", "va": "center"}  # fmt: skip


@own_style
def reconstruction_frames(frames: Frames, name: str) -> list[Figure]:
    """Ten images, each above its reconstruction, and the curves so far: a figure for each frame."""
    columns, figures, curves = min(5, len(frames.classes)), [], _curves(frames)
    for t, images in enumerate(frames.reconstructions):
        what = "test images, and each one's reconstruction below it"
        figure = _page(name, what, frames.epochs[t], curves, t)
        for start in range(0, len(images), columns):
            some = slice(start, start + columns)
            both = np.concatenate([frames.originals[some], images[some]])
            axes = figure.add_axes((0.03, 0.21 if start else 0.55, 0.94, 0.34))
            draw_tiles(axes, both, len(both) // 2)
            wide = (images.shape[-1] + 2) * columns
            axes.set(xlim=(-0.5, wide - 0.5), frame_on=False, xticks=[], yticks=[])
        figures.append(figure)
    return figures


@own_style
def latent_frames(frames: Frames, name: str, latent_values: int,
                  names: Sequence[str] = ()) -> list[Figure]:  # fmt: skip
    """The test set's latents in the plane, and the curves so far: a figure for each frame.

    Classes stand where their points are; if they have `names`, these stand below.
    """
    frames.project()
    low, high = frames.points.min((0, 1)), frames.points.max((0, 1))
    margin = 0.04 * (high - low) + 1e-6
    low, high = low - margin, high + margin
    how = {1: "z and index", 2: "z as it is"}.get(latent_values, "t-SNE")
    classes, rank = np.unique(frames.labels, return_inverse=True)
    # ten classes have a colour each; more of them, another mark as well
    looks = [(COLOURS[i % 10], MARKS[i // 10 % len(MARKS)]) for i in range(len(classes))]
    groups = []  # of points with one mark: which they are, and their colours
    for start in range(0, len(classes), 10):
        some = (rank >= start) & (rank < start + 10)
        groups.append((some, [looks[i][0] for i in rank[some]], looks[start][1]))
    named = classes[:MOST_LISTED].tolist() if names and len(classes) > 1 else []
    figures, curves, ticks = [], _curves(frames), (-2, 0, 2)  # in standard deviations of the prior
    for t, points in enumerate(frames.points):
        of_class = " by class" if len(classes) > 1 else ""
        what = f"latents of {len(points):,} test images{of_class}, {how}"
        figure = _page(name, what, frames.epochs[t], curves, t)
        low_edge = 0.19 + 0.03 * math.ceil(len(named) / 3)
        axes = figure.add_axes((0.03, low_edge, 0.94, 0.91 - low_edge))
        axes.set(xticks=ticks if latent_values <= 2 else [])
        axes.set(yticks=ticks if latent_values == 2 else [])
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))  # also where that is less
        axes.tick_params(direction="in", pad=-18, labelsize=10, colors="grey")
        for some, colours, mark in groups:
            axes.scatter(*points[some].T, s=9, c=colours, lw=0, marker=mark)
        for k, label in enumerate(named):
            place = 0.05 + 0.32 * (k % 3), low_edge - 0.03 * (k // 3 + 1)
            colour, mark = looks[classes.tolist().index(label)]
            figure.text(*place, class_name(label, names), fontsize=11)
            point = Line2D([place[0] - 0.015], [place[1] + 0.009], color=colour, marker=mark)
            figure.add_artist(point)
        numbered = [] if named or len(classes) == 1 else classes[:MOST_NAMED]
        centres = [np.median(points[rank == i], 0) for i in range(len(numbered))]
        centres = (np.reshape(centres, (-1, 2)) - low) / (high - low)
        for label, place in zip(numbered, apart(centres), strict=True):
            axes.text(*place, label, transform=axes.transAxes, **NAME)
        figures.append(figure)
    return figures


def apart(places: np.ndarray, least: float = 0.07) -> np.ndarray:
    """Places (N, 2), pushed from each other until no two are nearer than `least`."""
    for _ in range(50):
        between = places[:, None] - places
        distance = np.linalg.norm(between, axis=-1, keepdims=True) + 1e-9
        places = places + (between / distance * np.clip(least - distance, 0, None)).sum(1) / 2
    return places


def _curves(frames: Frames) -> dict[str, np.ndarray]:
    """What is drawn below each frame, by its title; the rate is left out where it is not known."""
    curves = {"PSNR {:.1f} dB": frames.psnr(), "KL {:.0f} nats": frames.kl}
    return {title: values for title, values in curves.items() if np.isfinite(values).all()}


def _page(name: str, what: str, epoch: float, curves: dict[str, np.ndarray], t: int) -> Figure:
    """A figure of 480 x 640 pixels, readable on a phone: titles, and below the curves up to `t`."""
    figure = Figure(figsize=(4.8, 6.4), dpi=DPI)
    figure.text(0.5, 0.985, name, ha="center", va="top", fontsize=15, weight="bold")
    figure.text(0.5, 0.94, what, ha="center", va="top", fontsize=12)
    shown = f"epoch {epoch:.2g}" if epoch < 10 else f"epoch {epoch:.0f}"
    figure.text(0.5, 0.012, shown, ha="center", fontsize=14)
    for k, (title, values) in enumerate(curves.items()):
        axes = figure.add_axes((0.05 + 0.48 * k, 0.045, 0.44, 0.095), xticks=[], yticks=[])
        axes.plot(values[: t + 1], color=COLOURS[0], marker="o", markevery=[t], clip_on=False)
        room, end = 0.1 * np.ptp(values) + 1e-6, len(values) - 0.5
        axes.set(xlim=(-0.5, end), ylim=(values.min() - room, values.max() + room))
        axes.set_title(title.format(values[t]), fontsize=14, loc="left", pad=3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def interpolation_frames(model: VAE, digits: Digits, name: str,
                         thing: str = "digit") -> list[Figure]:  # fmt: skip
    """Each of some images, (N, C, H, W) in [-1, 1], becomes the next, and then itself again."""
    there = Digits(digits.images.roll(-1, 0), digits.labels.roll(-1))
    way = "along the sphere" if on_sphere(model) else "along a straight line"
    title, n = f"Each {thing} becomes the next, {way}\n{name}", len(digits.images)
    between = decode_between(model, digits, there, np.linspace(0, 1, INTERPOLATION_FRAMES).tolist())
    figures = [plot_grid(images, n // 2 if n % 2 == 0 else n, title) for images in between]
    return figures + figures[-2:0:-1]


def save_gif(path: Path, figures: list[Figure], frame_ms: int, last_ms: int,
             rgb: bool = False) -> None:  # fmt: skip
    """Write figures as an endless GIF, in one step; each is shown so many milliseconds.

    `rgb`: they show pictures in colour, and the last one's own colours join the palette.
    """
    palette = PALETTE
    if rgb:
        own = Image.fromarray(pixels_of(figures[-1])).quantize(256 - len(palette))
        palette = np.concatenate([palette, np.reshape(own.getpalette(), (-1, 3)).astype(np.uint8)])
    frames = np.stack([to_palette(figure, palette) for figure in figures])
    durations = [frame_ms] * (len(frames) - 1) + [last_ms]
    options = {"extension": ".gif", "plugin": "pillow", "mode": "P", "palette": palette.tobytes()}
    options["duration"] = durations if len(frames) > 1 else last_ms  # Pillow: no list for one frame
    write_atomically(path, iio.imwrite("<bytes>", frames, loop=0, **options))


@own_style
def pixels_of(figure: Figure) -> np.ndarray:
    """A figure's pixels: uint8 (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def to_palette(figure: Figure, colours: np.ndarray) -> np.ndarray:
    """A figure's pixels as the numbers of the nearest of the colours: uint8 (H, W)."""
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.tobytes())
    image = Image.fromarray(pixels_of(figure))
    return np.asarray(image.quantize(palette=palette, dither=Image.Dither.NONE))


def _palette() -> np.ndarray:
    """64 colours: greys, and COLOURS in shades. One from the pixels would merge rare classes."""
    greys = [np.full(3, grey) for grey in np.linspace(0, 255, 34)]
    colours = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in COLOURS]
    shades = [255 - (255 - colour) * share for colour in colours for share in (1, 0.65, 0.3)]
    return np.round([*greys, *shades]).astype(np.uint8)


PALETTE = _palette()
