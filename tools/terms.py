"""What each loss term does to a digit that passes through a few numbers, and what that costs.

The decoders of the shipped models on 1x1 are trained on for one pass over 24,000 digits, each time
with other weights of the loss terms. Encoder, couplings and so the rate are the same in all. Each
is measured into `assets/terms.json`.
"""

import shlex
import statistics
from pathlib import Path

import numpy as np
from common import ASSETS, RUNS, Part, keep_row, picture, row, training
from latents import DEVICE, DRAWS, decode, encode, seeded
from matplotlib.figure import Figure

from vae import VAE, judge_images, load_digits
from vae_show.figures import draw_grid
from vae_show.frames import Frames
from vae_show.showcase import REFERENCE, SHARPENED
from vae_store.folder import FRAMES_NAME, read_metrics

SIZES = sorted(REFERENCE)
ABLATED, SEEDS = 4, (0, 1, 2)  # numbers for an image, and seeds, of the ablation
BLURRED, PERCEPTUAL, ALL = "MSE + KL", "+ perceptual", "all four"
TERMS = {BLURRED: "--w-perceptual 0 --w-adversarial 0", PERCEPTUAL: "--w-adversarial 0",
         "+ adversarial": "--w-perceptual 0", ALL: ""}  # fmt: skip
WEIGHTS = (0.03, 0.2, 2)  # of the adversarial term on the curve, beside none and the default
CURVE = {BLURRED: "no LPIPS", PERCEPTUAL: "0", "w = 0.03": "0.03", "w = 0.2": "0.2", ALL: "0.7",
         "w = 2": "2"}  # fmt: skip
PLACES = ((6, 6), (-14, -10), (-3, 9), (-22, -12), (7, 4), (5, -11))  # of its marks
SEEN = {  # what a person sees in assets/terms.png at four numbers (look again!)
    BLURRED: "soft and grey, an average",
    PERCEPTUAL: "edges a little harder, grey still, a fine pattern of dots",
    "+ adversarial": "black and white, as if written",
    ALL: "no difference from + adversarial",
}
KEPT = ("fid", "recognised", "accuracy", "grey", "precision", "recall", "density", "coverage")
SHORT_SECONDS = 260
SHOWN = 8  # digits in a row of the picture
ALONG = (4, 8)  # of the ten digits, those that are shown along each curve


def runs() -> dict[str, str]:
    """Every short training, as "terms/size, seed/variant", and the flags of `sharpen`."""
    weights = {f"w = {w:g}": f"--w-adversarial {w:g}" for w in WEIGHTS}
    found = {}
    for seed in SEEDS:
        for size in SIZES if seed == SEEDS[0] else (ABLATED,):
            for variant, flags in (TERMS | weights if seed == SEEDS[0] else TERMS).items():
                before = f"assets/{SHARPENED[f'sharp_{size}']}"
                given = f"{before} --budget quick --seed {seed} {flags}".strip()
                found[name_of(size, variant, seed)] = given
    return found


def name_of(size: int, variant: str, seed: int = SEEDS[0]) -> str:
    return f"terms/{size}, seed {seed}/{variant}"


def parts() -> list[Part]:
    """The trainings, each of which becomes a row, and the pictures."""
    found = [
        training(name, flags, SHORT_SECONDS, keep, "sharpen") for name, flags in runs().items()
    ]
    frames = [frames_path(size, variant) for size in SIZES for variant in {**TERMS, **CURVE}]
    found.append(picture("terms", frames, draw_terms))
    curves = [ASSETS / "terms.json", *frames]
    return [*found, picture("perception_distortion", curves, draw_curves)]


def keep(name: str) -> None:
    """Write a run's row."""
    keep_row(name, measure(name))


def measure(name: str) -> dict:
    """What became of a run's reconstructions, of its draws and of its discriminator."""
    model = VAE.from_pretrained(RUNS / name).to(DEVICE)
    metrics, test = read_metrics(RUNS / name), {}
    images, labels = load_digits("test")
    made = {"reconstructions": (decode(model, encode(model, images, seeded())), labels),
            "N(0, I)": (model.sample(DRAWS, None, seeded()), None)}  # fmt: skip
    for source, scored in made.items():
        scores = judge_images(*scored)
        test[source] = {key: scores[key] for key in KEPT if key in scores}
    last = metrics["history"]["train"][-1]
    watched = ("discriminator", "accuracy_real", "accuracy_fake")
    watched = {key: last[key] for key in watched if key in last}
    command = f"python -m vae sharpen {runs()[name]} --run-dir {shlex.quote('runs/' + name)}"
    about = {key: metrics["environment"][key] for key in ("commit", "hardware", "torch")}
    rate = {"sample": metrics["test"]["sample"], "kl": metrics["test"]["kl"]}
    return {"command": command} | rate | test | watched | about


def spread(variant: str, value) -> tuple[float, float]:
    """Mean and standard deviation over the ablation's seeds of `value(row)`."""
    values = [value(row(name_of(ABLATED, variant, seed))) for seed in SEEDS]
    return statistics.mean(values), statistics.stdev(values)


def frames_path(size: int, variant: str) -> Path:
    return RUNS / name_of(size, variant) / FRAMES_NAME


def draw_terms() -> Figure:
    """For each size: some test digits, and what each variant makes of them."""
    figure = Figure(figsize=(11, 2.75), dpi=110, layout="constrained")
    for axis, size in zip(figure.subplots(1, len(SIZES)), SIZES, strict=True):
        frames = {variant: Frames.load(frames_path(size, variant)) for variant in TERMS}
        rows = {"original": frames[ALL].originals}
        rows |= {variant: own.reconstructions[-1] for variant, own in frames.items()}
        axis.set_title(f"{size} numbers for an image")
        names = dict(enumerate(rows)) if size == SIZES[0] else {}
        digits = np.concatenate([own[:SHOWN] for own in rows.values()])
        draw_grid(axis, digits, SHOWN, {}, names, 11)
    return figure


def draw_curves() -> Figure:
    """For each size: MSE against digit-FID of reconstructions, and two digits along the curve."""
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    curves, strips = figure.subplots(2, len(SIZES), height_ratios=(2, 1))
    for curve, strip, size in zip(curves, strips, SIZES, strict=True):
        rows = [row(name_of(size, variant)) for variant in CURVE]
        points = [(own["sample"]["mse"], own["reconstructions"]["fid"]) for own in rows]
        curve.plot(*zip(*points, strict=True), "o-")
        for point, mark, place in zip(points, CURVE.values(), PLACES, strict=True):
            curve.annotate(mark, point, place, textcoords="offset points", fontsize=9)
        curve.set(xlabel="MSE (distortion)", yscale="log", xmargin=0.2, ymargin=0.15)
        curve.set_title(f"{size} numbers for an image, {rows[0]['kl']:.0f} nats", fontsize=11)
        curve.grid(alpha=0.3, which="both")
        frames = [Frames.load(frames_path(size, variant)) for variant in CURVE]
        columns = [frames[0].originals, *(own.reconstructions[-1] for own in frames)]
        digits = np.stack([own[n] for n in ALONG for own in columns])
        names = dict(enumerate(["original", *CURVE.values()]))
        draw_grid(strip, digits, len(columns), names, {}, 7)
    curves[0].set_ylabel("digit-FID (perception)")
    return figure
