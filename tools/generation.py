"""What every shipped model generates: the judge's scores, bounds of log p(x), and a picture.

10,000 draws of each, and reconstructions and real digits as floors, are scored into
`assets/generation.json`. The bounds of the global models go into `assets/bounds.json`.
"""

from functools import partial
from pathlib import Path

import torch
from common import ASSETS, JUDGE, Part, measurement, picture
from latents import DRAWS, decode, draw_panels, encode, seeded
from matplotlib.figure import Figure
from models import CONDITIONAL
from torch import Tensor

import vae
from vae import VAE, LatentPrior, load_digits
from vae.show.showcase import REFERENCE
from vae.store.folder import read_metrics

SIZES = sorted(REFERENCE)
SOURCES = {"latent": ("reconstructions", "N(0, I)", "prior, unguided", "prior"),
           "global": ("reconstructions", "N(0, I)")}  # fmt: skip
SCORED = ["training digits", "test digits"]
SCORED += [f"{k}_{size}, {source}" for k in SOURCES for size in SIZES for source in SOURCES[k]]
SCORED += [f"{CONDITIONAL}, N(0, I)"]
BOUNDED = [*(f"global_{size}" for size in SIZES), CONDITIONAL]
BOUND_IMAGES, BOUND_SAMPLES = 1000, 500
SCORE_SECONDS, PRIOR_SCORE_SECONDS, BOUND_SECONDS = 45, 190, 370  # prior: 10,000 draws of it
BALANCED = torch.arange(DRAWS) % 10  # every digit as often


def images_of(row: str) -> tuple[Tensor, Tensor | None]:
    """The images that a row scores, (DRAWS, 1, 28, 28) in [-1, 1], and the digits asked for."""
    name, _, source = row.partition(", ")
    if not source:
        images, labels = load_digits("train" if name == "training digits" else "test")
        return vae.scale_images(images[:DRAWS]), labels[:DRAWS]
    model = VAE.from_pretrained(ASSETS / name)
    if source == "reconstructions":
        images, labels = load_digits("test")
        given = labels if model.config.num_classes else None
        return decode(model, encode(model, images, seeded(), given), given), None
    if source == "N(0, I)":
        labels = BALANCED if model.config.num_classes else None
        return model.sample(DRAWS, labels, seeded()), labels
    prior, guidance = LatentPrior.from_pretrained(ASSETS / name), 1.0 if "un" in source else None
    z = prior.sample(DRAWS, BALANCED, seeded(), guidance=guidance)
    return decode(model, z), BALANCED


def weights(row: str) -> list[Path]:
    """The files of weights that a row of either table tells of."""
    if row.endswith(" digits"):
        return []
    name, _, source = row.partition(", ")
    files = [VAE.weights_name] + [LatentPrior.weights_name] * source.startswith("prior")
    return [ASSETS / name / file for file in files]


def judged(row: str) -> list[Path]:
    """Those, after the judge's."""
    return [JUDGE, *weights(row)]


def score(row: str) -> dict:
    """What the judge makes of a row's images. Each training digit is its own neighbour."""
    neighbours = None if row == "training digits" else load_digits("train").images
    return vae.judge_images(*images_of(row), neighbours=neighbours)


def bound(name: str) -> dict:
    """The importance-weighted bound on some test digits, beside the ELBO on the same."""
    model, metrics = VAE.from_pretrained(ASSETS / name), read_metrics(ASSETS / name)
    images, labels = load_digits("test")
    some = images[:BOUND_IMAGES], metrics["test"]["sample"]["mse"], labels[:BOUND_IMAGES]
    many, one = (
        vae.importance_weighted_bound(model, *some, samples=samples).mean().item()
        for samples in (BOUND_SAMPLES, 1)
    )
    counts = {"samples": BOUND_SAMPLES, "images": BOUND_IMAGES}
    used = vae.active_units(model, images, labels)
    return {"neg_bound": -many, "neg_elbo_one_draw": -one} | counts | {"active_units": used}


def parts() -> list[Part]:
    """Every row of both tables, and the picture."""
    found = []
    for row in SCORED:
        seconds = PRIOR_SCORE_SECONDS if "prior" in row else SCORE_SECONDS
        found.append(measurement(f"generation/{row}", seconds, judged(row), partial(score, row)))
    for row in BOUNDED:
        found.append(measurement(f"bounds/{row}", BOUND_SECONDS, weights(row), partial(bound, row)))
    shown = [row for size in SIZES for row in (f"latent_{size}, prior", f"global_{size}")]
    return [*found, picture("generation", [file for row in shown for file in weights(row)], draw)]


def draw(columns: int = 8, rows: int = 5) -> Figure:
    """Draws of each size from N(0, I), from its learned prior, on 1x1."""
    n = columns * rows
    figure = Figure(figsize=(11, 7.2), dpi=90, layout="constrained")
    for line, size in zip(figure.subplots(len(SIZES), 3), SIZES, strict=True):
        grid, whole = (VAE.from_pretrained(ASSETS / f"{k}_{size}") for k in ("latent", "global"))
        prior = LatentPrior.from_pretrained(ASSETS / f"latent_{size}")
        panels = {
            "7×7, N(0, I)": grid.sample(n, None, seeded()),
            "7×7, learned prior": grid.sample(n, BALANCED[:n], seeded(), prior),
            "1×1, N(0, I)": whole.sample(n, None, seeded()),
        }
        draw_panels(line, {f"latent size {size} on {k}": v for k, v in panels.items()}, columns)
    return figure
