"""What each loss term does to a digit that passes through a few numbers, and what that costs.

Decoders of the models on 1x1 are trained on for one pass, each time with other weights: the rate
is the same in all, since encoder and couplings stay. `assets/terms.json` has the rows.
"""

import statistics
from functools import partial
from pathlib import Path

import numpy as np
from common import ASSETS, FULL_SECONDS, RUNS, Part, measurement, picture, row, training
from generation import BOTH, judged, lpips_of, made_by
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from models import GLOBAL

from vae import VAE
from vae.show.figures import tile
from vae.show.frames import Frames
from vae.show.showcase import REFERENCE, SHARPENED
from vae.store.folder import FRAMES_NAME, read_metrics

SIZES = sorted(REFERENCE)
ABLATED, SEEDS = 4, (0, 1, 2)  # numbers for an image, and seeds, of the ablation
BLURRED, ALL = "MSE + KL", "all four"
VARIANTS = {"+ perceptual": "--w-adversarial 0", "+ adversarial": "--w-perceptual 0", ALL: ""}
WEIGHTS = (0.1, 0.3, 3)  # of the adversarial term on the curve, beside 0 and 1
CURVE = ("+ perceptual", "w = 0.1", "w = 0.3", ALL, "w = 3")  # in the order of the weights
MARKS = (BLURRED, "0", "0.1", "0.3", "1", "3")  # what stands at the points: the weight
DIGIT = 4  # of the ten, and the one after it, that are shown along each curve
SHORT_SECONDS, MEASURE_SECONDS = 200, 100
SHOWN = 8  # digits in a row of the pictures


def base(size: int, seed: int) -> Path:
    """The folder of the model whose decoder is trained on."""
    if seed == SEEDS[0]:
        return ASSETS / SHARPENED[f"sharp_{size}"]
    return RUNS / "terms" / f"base, {size}, seed {seed}"


def bases() -> dict[str, str]:
    """The trainings of models that are not shipped, and their flags."""
    return {f"terms/base, {ABLATED}, seed {seed}": f"--latent-size {ABLATED} {GLOBAL} --seed {seed}"
            for seed in SEEDS[1:]}  # fmt: skip


def runs() -> dict[tuple[int, int, str], str]:
    """Size, seed and variant of each decoder, and the flags of `python -m vae sharpen`."""
    weights = {f"w = {w}": f"--w-adversarial {w}" for w in WEIGHTS}
    found = {(size, SEEDS[0], variant): flags for size in SIZES
             for variant, flags in (VARIANTS | weights).items()}  # fmt: skip
    return found | {(ABLATED, seed, variant): flags for seed in SEEDS[1:]
                    for variant, flags in VARIANTS.items()}  # fmt: skip


def name_of(size: int, seed: int, variant: str) -> str:
    return f"terms/{size}, seed {seed}/{variant}"


def folder_of(size: int, seed: int, variant: str) -> Path:
    return base(size, seed) if variant == BLURRED else RUNS / name_of(size, seed, variant)


def parts() -> list[Part]:
    """The trainings, what is measured of each model, and the pictures."""
    found = [training(name, flags, FULL_SECONDS) for name, flags in bases().items()]
    measured = [(size, SEEDS[0], BLURRED) for size in SIZES]
    measured += [(ABLATED, seed, BLURRED) for seed in SEEDS[1:]]
    for key, flags in runs().items():
        size, seed, _ = key
        place = base(size, seed).relative_to(ASSETS.parent)
        given = f"'{place}' --budget quick --seed {seed} {flags}".strip()
        found.append(training(name_of(*key), given, SHORT_SECONDS, verb="sharpen"))
        measured.append(key)
    for key in measured:
        weights = [folder_of(*key) / VAE.weights_name]
        made = MEASURE_SECONDS, weights, partial(measure, *key)
        found.append(measurement(name_of(*key), *made))
    frames = [folder_of(size, SEEDS[0], v) / FRAMES_NAME for size in SIZES for v in VARIANTS]
    curves = [ASSETS / "terms.json"]
    curves += [folder_of(size, SEEDS[0], v) / FRAMES_NAME for size in SIZES for v in CURVE]
    return [*found, picture("terms", frames, draw_terms),
            picture("perception_distortion", curves, draw_curves)]  # fmt: skip


def measure(size: int, seed: int, variant: str) -> dict:
    """Both judges on reconstructions and draws of a model, and its own test metrics."""
    folder = folder_of(size, seed, variant)
    model, metrics = VAE.from_pretrained(folder), read_metrics(folder)
    found = {"test": metrics["test"], "latent_size": size, "seed": seed}
    for source in BOTH:
        images, labels = made_by(model, source)
        found[source] = judged(images, labels)
        found[source] |= lpips_of(images) if source == "reconstructions" else {}
    last = metrics["history"]["train"][-1]
    watched = ("discriminator", "accuracy_real", "accuracy_fake")
    if variant != BLURRED:
        found["discriminator"] = {key: last[key] for key in watched if key in last}
    about = ("commit", "hardware", "torch")
    return found | {key: metrics["environment"][key] for key in about}


def frames_of(size: int, variant: str) -> Frames:
    return Frames.load(folder_of(size, SEEDS[0], variant) / FRAMES_NAME)


def draw_terms() -> Figure:
    """For each size: some test digits, and what each variant makes of them."""
    figure = Figure(figsize=(11, 2.9), dpi=110, layout="constrained")
    for axis, size in zip(figure.subplots(1, len(SIZES)), SIZES, strict=True):
        frames = {variant: frames_of(size, variant) for variant in VARIANTS}
        rows = {"original": frames[ALL].originals, BLURRED: frames[ALL].reconstructions[0]}
        rows |= {variant: own.reconstructions[-1] for variant, own in frames.items()}
        axis.set_title(f"{size} numbers for an image", fontsize=12)
        show_rows(axis, rows, SHOWN, labelled=size == SIZES[0])
    return figure


def show_rows(axis: Axes, rows: dict[str, np.ndarray], columns: int, labelled: bool) -> None:
    """Digits, (N, 28, 28) for each row, the first `columns` of them, and the rows' names."""
    picture = tile(np.concatenate([digits[:columns] for digits in rows.values()]), columns)
    axis.imshow(picture, cmap="gray", vmin=-1, vmax=1)
    height = picture.shape[0] / len(rows)
    places = [height * (n + 0.5) - 0.5 for n in range(len(rows))]
    axis.set_yticks(places, rows if labelled else [""] * len(rows), fontsize=11)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.set(frame_on=False)


def draw_curves() -> Figure:
    """MSE against digit-FID of the reconstructions, and one digit along each curve."""
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    axis, *strips = figure.subplot_mosaic(
        [["curve", size] for size in SIZES], width_ratios=(1.25, 1)
    ).values()
    for colour, size, strip in zip(("C0", "C1", "C2"), SIZES, strips, strict=True):
        names = (BLURRED, *CURVE)
        rows = [row(name_of(size, SEEDS[0], variant)) for variant in names]
        places = [(r["test"]["sample"]["mse"], r["reconstructions"]["fid"]) for r in rows]
        rate = f"{size} numbers, {rows[0]['test']['kl']:.0f} nats"
        axis.plot(*zip(*places, strict=True), "o-", color=colour, label=rate)
        for number, place in enumerate(places):
            axis.annotate(MARKS[number], place, (5, 4), textcoords="offset points", fontsize=8,
                          color=colour)  # fmt: skip
        shown = [frames_of(size, variant).reconstructions[-1] for variant in CURVE]
        first = frames_of(size, CURVE[0])
        digits = [first.originals, first.reconstructions[0], *shown]
        marks = [f"{mark}" for mark in ("original", *MARKS)]
        picture = np.stack([own[DIGIT] for own in digits] + [own[DIGIT + 1] for own in digits])
        strip.imshow(tile(picture, len(digits)), cmap="gray", vmin=-1, vmax=1)
        strip.set_title(f"{size} numbers", fontsize=10, color=colour)
        strip.set_xticks([30 * (n + 0.5) - 0.5 for n in range(len(marks))], marks, fontsize=8)
        strip.set_yticks([])
        strip.tick_params(length=0)
        strip.set(frame_on=False)
    axis.set(xscale="log", yscale="log", xlabel="MSE of reconstructions (distortion)",
             ylabel="digit-FID of reconstructions (perception)")  # fmt: skip
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=9)
    return figure


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over the seeds."""
    return statistics.mean(values), statistics.stdev(values)
