"""The pictures of the pages: rate and distortion, terms, generation, plain autoencoders."""

import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import trainings
from common import ASSETS, RUNS, Part, fingerprint, is_of, read_json, row, shipped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measures import BALANCED, NOISE, fitted_samples, weights
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scoring import SAMPLES, decode, encode, seeded
from torch import Tensor
from trainings import ABLATION, ALL, BLURRED, PAIRS, SIZES, plain_folders, terms_row

from vae import VAE, LatentPrior, load_digits, scale_images
from vae.machinery.figures import draw_grid, tile, to_png
from vae.machinery.folder import FRAMES_NAME, METRICS_NAME
from vae.machinery.frames import Frames
from vae.machinery.shipped import REFERENCE

CURVE = {BLURRED: "none", trainings.PERCEPTUAL: "0", "w = 0.03": "0.03", "w = 0.2": "0.2",
         ALL: "0.7", "w = 2": "2"}  # fmt: skip
OFFSETS = ((6, 6), (-14, -10), (-3, 9), (-22, -12), (7, 4), (5, -11))  # of its marks
ALONG = (4, 8)  # of the ten digits, those that are shown along each curve
BELOW, ABOVE = (-3, -14), (-30, 4)  # of the points of rate and distortion, for each latent size
LABELS = {2: (BELOW, (-14, -14), BELOW, BELOW), 4: (ABOVE, BELOW, BELOW, BELOW), 16: (ABOVE,) * 4}
SHOWN_PAIR, SHOWN_SAMPLES = "16 on 1x1", 40  # of the plain autoencoders
GRIDS = "latent", "global"  # on 7x7, and on 1x1
LINES = {"plain": "o--", "variational": "o-"}


def parts() -> list[Part]:
    """Every picture, and the files that it shows."""
    curve = [ASSETS / f"{table}.json" for table in ("ablation", "rate_distortion")]
    curve += [ASSETS / f"latent_{size}" / METRICS_NAME for size in REFERENCE]
    terms, curves = ([frames_path(size, variant) for size in SIZES for variant in variants]
                     for variants in (ABLATION, CURVE))  # fmt: skip
    pair = [plain_folders()[f"{SHOWN_PAIR}/{kind}"] / VAE.weights_name for kind in LINES]
    sampled = [file for size in SIZES for name in (f"latent_{size}, prior", f"sharp_{size}")
               for file in weights(name)]  # fmt: skip
    encoded = [ASSETS / f"{kind}_2" / VAE.weights_name for kind in GRIDS]
    return [
        picture("rate_distortion", curve, draw_rate_distortion),
        picture("terms", terms, draw_terms),
        picture("perception_distortion", [ASSETS / "terms.json", *curves], draw_perception),
        picture("autoencoder", [ASSETS / "autoencoder.json", *pair], draw_autoencoder),
        picture("generation", sampled, draw_generation),
        picture("latent_sizes", encoded, draw_latent_sizes),
    ]


def picture(name: str, shown: list[Path], draw: Callable[[], Figure]) -> Part:
    """A picture; it is out of date when a file of those that it shows is another."""
    path = ASSETS / f"{name}.png"

    def done() -> bool:
        if not path.is_file():
            return False
        with Image.open(path) as image:
            return is_of(image.info.get("Shows"), shown)

    def make() -> None:
        info = PngInfo()
        info.add_text("Shows", fingerprint(*shown))
        Image.open(io.BytesIO(to_png(draw()))).save(path, pnginfo=info, optimize=True)

    return Part(f"picture/{name}", done, make)


def curve_points() -> dict[str, dict]:
    """The rows of the rate-distortion curve, with the one that the ablation has."""
    shared = {f"4, beta {trainings.COMMON_BETA}": row(f"ablation/{BLURRED}")}
    return read_json(ASSETS / "rate_distortion.json") | shared


def draw_rate_distortion() -> Figure:
    """KL against PSNR: a line for each latent size (MSE + KL), a star for each shipped model."""
    figure = Figure(figsize=(7.5, 5.4), dpi=120, layout="constrained")
    axis, points = figure.subplots(), curve_points().values()
    star = {"marker": "*", "markeredgecolor": "black", "linestyle": ""}
    for colour, size in zip(("C0", "C1", "C2"), SIZES, strict=True):
        reference, full = REFERENCE[size][-1], shipped(f"latent_{size}")
        own = sorted((p for p in points if p["latent_size"] == size), key=lambda p: p["test"]["kl"])
        marks = [(p["test"], p["beta"], at) for p, at in zip(own, LABELS[size], strict=True)]
        marks.append((full["test"], full["config"]["beta"], (8, -4) if size > 2 else (-38, -3)))
        places = [(test["kl"], test["sample"]["psnr"]) for test, *_ in marks]
        axis.plot(*zip(*places[:-1], strict=True), "o-", color=colour, label=f"latent size {size}")
        axis.plot(*places[-1], color=colour, markersize=14, **star)
        for place, (_, beta, offset) in zip(places, marks, strict=True):
            axis.annotate(f"β={beta:g}", place, offset, textcoords="offset points", fontsize=9,
                          color=colour)  # fmt: skip
        axis.axhline(reference, color=colour, linestyle=":", linewidth=1)
        axis.text(0.99, reference + 0.1, f"reference, {size}", color=colour, fontsize=9,
                  ha="right", transform=axis.get_yaxis_transform())  # fmt: skip
    axis.plot([], [], color="white", markersize=12, **star,
              label="shipped model: all four terms, trained longer")  # fmt: skip
    axis.plot([], [], ":", color="grey", label="reference's PSNR (it has no KL)")
    axis.set(xlabel="rate: KL(q(z|x) ‖ p(z)), nats per image", ylabel="PSNR of z ~ q(z|x), dB")
    title = "MNIST's 10,000 test digits; points: MSE + KL, one pass over 24,000 digits"
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.margins(x=0.1, y=0.1)
    handles = axis.get_legend_handles_labels()[0]
    figure.legend(handles=handles[:3], fontsize=9, loc="outside lower center", ncols=3)
    axis.legend(handles=handles[3:], fontsize=9, loc="upper left")
    return figure


def frames_path(size: int, variant: str) -> Path:
    return RUNS / terms_row(size, variant) / FRAMES_NAME


def draw_terms() -> Figure:
    """For each size: some test digits, and what each variant makes of them."""
    figure = Figure(figsize=(6, 7.2), dpi=110, layout="constrained")
    for axis, size in zip(figure.subplots(len(SIZES), 1), SIZES, strict=True):
        frames = {variant: Frames.load(frames_path(size, variant)) for variant in ABLATION}
        rows = {"original": frames[ALL].originals}
        rows |= {trainings.TOLD[k]: own.reconstructions[-1] for k, own in frames.items()}
        axis.set_title(f"{size} latent values")
        axis.set_anchor("E")  # the names need the room on the left
        draw_grid(axis, np.concatenate(list(rows.values())), 10, {}, dict(enumerate(rows)), 11)
    return figure


def draw_perception() -> Figure:
    """For each size: MSE against digit-FID of reconstructions, and two digits along the curve."""
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    curves, strips = figure.subplots(2, len(SIZES), height_ratios=(2, 1))
    for curve, strip, size in zip(curves, strips, SIZES, strict=True):
        rows = [row(terms_row(size, variant)) for variant in CURVE]
        points = [(own["sample"]["mse"], own["reconstructions"]["fid"]) for own in rows]
        curve.plot(*zip(*points, strict=True), "o-")
        for point, mark, offset in zip(points, CURVE.values(), OFFSETS, strict=True):
            curve.annotate(mark, point, offset, textcoords="offset points", fontsize=9)
        curve.set(xlabel="MSE (distortion)", yscale="log", xmargin=0.2, ymargin=0.15)
        curve.set_title(f"{size} latent values, {rows[0]['kl']:.0f} nats", fontsize=11)
        curve.grid(alpha=0.3, which="both")
        frames = [Frames.load(frames_path(size, variant)) for variant in CURVE]
        columns = [frames[0].originals, *(own.reconstructions[-1] for own in frames)]
        digits = np.stack([own[n] for n in ALONG for own in columns])
        names = dict(enumerate(["x", *CURVE.values()]))
        draw_grid(strip, digits, len(columns), names, {}, 9)
    curves[0].set_ylabel("digit-FID (perception)")
    return figure


def draw_panels(axes: Iterable[Axes], panels: dict[str, Tensor], columns: int) -> None:
    """The images (N, 1, 28, 28) of each title, tiled, in a panel of their own."""
    for axis, (title, images) in zip(axes, panels.items(), strict=True):
        axis.imshow(tile(images[:, 0].cpu().numpy(), columns), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()


def draw_autoencoder() -> Figure:
    """The curves over the noise, and samples of the largest global pair."""
    figure = Figure(figsize=(11, 6.3), dpi=90, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.2, 1))
    titles = {"mse": "MSE of the reconstruction", "accuracy": "share read as the digit it was"}
    for axis, (key, title) in zip(top.subplots(1, 2), titles.items(), strict=True):
        for (colour, pair), kind in itertools.product(enumerate(PAIRS), LINES):
            noise, label = row(f"autoencoder/{pair}/{kind}")["noise"], f"{pair}, {kind}"
            values = [noise[str(share)][key] for share in NOISE]
            style = {"color": f"C{colour}", "label": label.replace("x", "×"), "ms": 4}
            axis.plot(NOISE, values, LINES[kind], **style)
        name = "noise on the latent, in its standard deviations"
        axis.set(xscale="log", xlabel=name, title=title)
        axis.set_xticks(NOISE, [f"{share:g}" for share in NOISE], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    top.legend(*axis.get_legend_handles_labels(), fontsize=10, loc="outside lower center", ncols=4)
    plain, variational = (VAE.from_pretrained(plain_folders()[f"{SHOWN_PAIR}/{kind}"])
                          for kind in LINES)  # fmt: skip
    generator, count = seeded(), SHOWN_SAMPLES
    unit = torch.randn(count, *plain.config.latent_shape, generator=generator)
    codes = encode(plain, load_digits("train").images[:SAMPLES], generator)
    fitted = fitted_samples(codes, generator)[:count]
    panels = {
        "16 on 1×1, plain, N(0, I)": decode(plain, unit),
        "16 on 1×1, plain, fitted Gaussian": decode(plain, fitted),
        "16 on 1×1, variational, N(0, I)": decode(variational, unit),
    }
    draw_panels(bottom.subplots(1, 3), panels, count // 4)
    return figure


def draw_generation(columns: int = 8, rows: int = 5) -> Figure:
    """Samples of each size from N(0, I), from its learned prior, by the sharp decoder on 1x1."""
    n = columns * rows
    figure = Figure(figsize=(11, 7.2), dpi=90, layout="constrained")
    for line, size in zip(figure.subplots(len(SIZES), 3), SIZES, strict=True):
        grid, whole = (VAE.from_pretrained(ASSETS / f"{k}_{size}") for k in ("latent", "sharp"))
        prior = LatentPrior.from_pretrained(ASSETS / f"latent_{size}")
        panels = {
            "7×7, N(0, I)": grid.sample(n, None, seeded()),
            "7×7, learned prior": grid.sample(n, BALANCED[:n], seeded(), prior),
            "1×1, sharpened, N(0, I)": whole.sample(n, None, seeded()),
        }
        draw_panels(line, {f"latent size {size} on {k}": v for k, v in panels.items()}, columns)
    return figure


@torch.no_grad()
def draw_latent_sizes() -> Figure:
    """A test digit through a latent of size 2: on a grid of 7x7, and on one of 1x1."""
    figure = Figure(figsize=(9.5, 4), dpi=105, layout="constrained")
    lines = figure.subplots(2, 7, width_ratios=(2, 1.5, 2, 2, 0.1, 1.5, 2))
    x = scale_images(load_digits("test").images[:1])
    arrow = {"ha": "center", "va": "center", "fontsize": 11,
             "bbox": {"boxstyle": "rarrow,pad=0.4", "fc": "white"}}  # fmt: skip
    for axes, kind in zip(lines, GRIDS, strict=True):
        model = VAE.from_pretrained(ASSETS / f"{kind}_2")
        size, grid = model.config.latent_shape[:2]
        z = model.encode(x).mode()
        for axis, image in ((axes[0], x), (axes[6], model.decode(z))):
            axis.imshow(image[0, 0], cmap="gray", vmin=-1, vmax=1)
            axis.set_title("28×28 pixels", fontsize=11)
        for axis, channel in zip(axes[2:4], z[0], strict=True):
            axis.imshow(channel, cmap="PuOr", vmin=-2.5, vmax=2.5)
            for (down, across), value in np.ndenumerate(channel.numpy()):
                look = {"fontsize": 7.5 if grid > 1 else 16, "ha": "center", "va": "center"}
                axis.text(across, down, f"{value:.1f}", color="wk"[int(abs(value) < 1.4)], **look)
            axis.set_xlim(-0.5 - (grid == 1), grid - 0.5 + (grid == 1))  # a cell is smaller
        shape = f"latent z: {size}×{grid}×{grid} = {z.numel()} values"
        axes[2].set_title(shape, fontsize=11, loc="left")
        axes[1].text(0.5, 0.5, "encoder", **arrow)
        axes[5].text(0.5, 0.5, "decoder", **arrow)
        for axis in axes:
            axis.set_axis_off()
    return figure
