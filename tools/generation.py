"""What every shipped model generates: two judges' scores, bounds of log p(x), and a picture.

10,000 draws of each, and reconstructions of the 10,000 test digits, are scored into
`assets/generation.json`. The bounds of the global models go into `assets/bounds.json`.
"""

from functools import partial
from pathlib import Path

import torch
from common import ASSETS, JUDGE, Part, measurement, picture
from judges import FOLDER, SecondJudge
from latents import CHUNK, DEVICE, DRAWS, decode, draw_panels, encode, seeded
from matplotlib.figure import Figure
from models import CONDITIONAL
from torch import Tensor

import vae
from vae import VAE, LatentPrior, load_digits
from vae_show.showcase import REFERENCE, SHARPENED
from vae_store.folder import read_metrics

SIZES = sorted(REFERENCE)
SECOND = FOLDER / SecondJudge.weights_name
BOTH = ("reconstructions", "N(0, I)")
SCORED = ["training digits", "test digits"]
SCORED += [f"latent_{size}, {source}" for size in SIZES
           for source in (*BOTH, "prior, unguided", "prior")]  # fmt: skip
BEFORE_AND_AFTER = [name for pair in SHARPENED.items() for name in reversed(pair)]
SCORED += [f"{name}, {source}" for name in BEFORE_AND_AFTER for source in BOTH]
BOUNDED = [*(f"global_{size}" for size in SIZES), CONDITIONAL]
BOUND_IMAGES, BOUND_SAMPLES = 1000, 500
SCORE_SECONDS, PRIOR_SCORE_SECONDS, BOUND_SECONDS = 90, 230, 370  # prior: 10,000 draws of it
OF_SECOND = ("fid", "recognised", "accuracy", "precision", "recall", "density", "coverage")
LPIPS_IMAGES = 1000
BALANCED = torch.arange(DRAWS) % 10  # every digit as often


def images_of(row: str) -> tuple[Tensor, Tensor | None]:
    """The images that a row scores, (DRAWS, 1, 28, 28) in [-1, 1], and the digits they should be.

    Those are the originals' or what was asked for, or None.
    """
    name, _, source = row.partition(", ")
    if not source:
        images, labels = load_digits("train" if name == "training digits" else "test")
        return vae.scale_images(images[:DRAWS]).to(DEVICE), labels[:DRAWS]
    model = VAE.from_pretrained(ASSETS / name).to(DEVICE)
    if source == "reconstructions":
        images, labels = load_digits("test")
        given = labels if model.config.num_classes else None
        return decode(model, encode(model, images, seeded(), given), given), labels
    if source == "N(0, I)":
        labels = BALANCED if model.config.num_classes else None
        return model.sample(DRAWS, labels, seeded()), labels
    prior, guidance = LatentPrior.from_pretrained(ASSETS / name), 1.0 if "un" in source else None
    z = prior.to(DEVICE).sample(DRAWS, BALANCED, seeded(), guidance=guidance)
    return decode(model, z), BALANCED


def weights(row: str) -> list[Path]:
    """The files of weights that a row of either table tells of."""
    if row.endswith(" digits"):
        return []
    name, _, source = row.partition(", ")
    files = [VAE.weights_name] + [LatentPrior.weights_name] * source.startswith("prior")
    return [ASSETS / name / file for file in files]


def judged(row: str) -> list[Path]:
    """Those, after the judges'."""
    return [JUDGE, SECOND, *weights(row)]


def score(row: str) -> dict:
    """What the judges make of a row's images, and how far reconstructions are from the originals.

    Each training digit would be its own neighbour.
    """
    images, labels = images_of(row)
    scores = judged_twice(images, labels, copies=row != "training digits")
    if row.endswith(BOTH[0]):
        originals = vae.scale_images(load_digits("test").images).to(DEVICE)
        scores["mse"] = vae.mse(originals, images).mean().item()
        scores["lpips"] = lpips_of(originals[:LPIPS_IMAGES], images[:LPIPS_IMAGES])
    return scores


def judged_twice(images: Tensor, labels: Tensor | None = None, copies: bool = True) -> dict:
    """The judge's scores and, as "second", those of another; `copies`: look for them."""
    neighbours = load_digits("train").images.to(images.device) if copies else None
    second = SecondJudge.from_pretrained().to(images.device)
    second = vae.judge_images(images, labels, judge=second)
    own = {key: second[key] for key in OF_SECOND if key in second}
    return vae.judge_images(images, labels, neighbours=neighbours) | {"second": own}


@torch.no_grad()
def lpips_of(x: Tensor, y: Tensor) -> float:
    """The mean LPIPS of pairs."""
    lpips, pairs = vae.LPIPS().to(DEVICE), zip(x.split(CHUNK), y.split(CHUNK), strict=True)
    return torch.cat([lpips(*pair) for pair in pairs]).mean().item()


def bound(name: str) -> dict:
    """The importance-weighted bound on some test digits, beside the ELBO on the same."""
    model, metrics = VAE.from_pretrained(ASSETS / name).to(DEVICE), read_metrics(ASSETS / name)
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
    shown = [row for size in SIZES for row in (f"latent_{size}, prior", f"sharp_{size}")]
    return [*found, picture("generation", [file for row in shown for file in weights(row)], draw)]


def draw(columns: int = 8, rows: int = 5) -> Figure:
    """Draws of each size from N(0, I), from its learned prior, by the sharp decoder on 1x1."""
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
