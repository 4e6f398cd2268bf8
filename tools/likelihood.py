"""How likely digits are: -log p(x) of models of black and white digits, beside published numbers.

Two models with a Bernoulli likelihood are trained, and shipped. The importance-weighted bound of
every test digit goes into `assets/likelihood.json`. Of two numbers, log p(x) is known besides, by a
sum over the plane: what the bound should come to.
"""

import math
import time
from functools import partial

import torch
from autoencoder import BARE
from common import (
    ASSETS,
    FULL_SECONDS,
    RUNS,
    Part,
    fingerprint,
    measurement,
    read_json,
    row,
    training,
)
from latents import DEVICE, decode, seeded
from models import publish
from torch import Tensor

from vae import VAE, importance_weighted_bound, load_digits, scale_images
from vae.data import batches
from vae.losses import bernoulli_nll
from vae_store.files import write_json
from vae_store.folder import read_metrics

SIZES = {"bernoulli_2": 2, "bernoulli_10": 10}
FLAGS = "--latent-grid 1 --likelihood bernoulli --budget full --early-evaluations 0"
MORE = {"bernoulli_2": " --posterior coupled --epochs 10"}  # how a plane is shaped takes longer
BOUND = ", bound"  # after a model's name: its second row
SAMPLES = 1000  # draws of q(z|x) for an image
PART = 250  # images between two times that the bounds are kept: a job that is cut off goes on
MEASURE_SECONDS, BOUND_SECONDS = 240, 5500  # nearly all of these decode 10 million images
REACH, STEP = 5.0, 0.02  # of the grid in the plane; q(z|x) is about two steps wide
# Davidson et al., "Hyperspherical Variational Auto-Encoders", UAI 2018, table 1: mean and, where we
# have it, standard deviation over ten trainings. A sphere of 2 has 3 coordinates.
PUBLISHED = {2: ("135.73 ± 0.83", "132.50 ± 0.73"), 10: ("93.84", "93.16 ± 0.31")}


def runs() -> dict[str, str]:
    """Both trainings and the flags of their `python -m vae train`."""
    return {k: f"--latent-size {size} {FLAGS}{MORE.get(k, '')}" for k, size in SIZES.items()}


def parts() -> list[Part]:
    """The trainings, and two rows for each: what takes a minute, and the bound."""
    publishing = partial(publish, leave_out=BARE)
    found = [training(name, flags, FULL_SECONDS, publishing) for name, flags in runs().items()]
    for end, seconds, measure in (("", MEASURE_SECONDS, known), (BOUND, BOUND_SECONDS, bound)):
        for name in SIZES:
            weights = [ASSETS / name / VAE.weights_name]
            made = partial(measure, name)
            found.append(measurement(f"likelihood/{name}{end}", seconds, weights, made))
    return found


def model_and_images(name: str) -> tuple[VAE, Tensor]:
    """The model, and the black and white test images that `evaluate` takes."""
    model = VAE.from_pretrained(ASSETS / name).to(DEVICE)
    return model, model.observed(scale_images(load_digits("test").images), seeded())


def known(name: str) -> dict:
    """The evaluation's numbers, in nats for an image; of two numbers the true -log p(x), too."""
    metrics, (model, images) = read_metrics(ASSETS / name), model_and_images(name)
    found = {key: metrics["test"][key] for key in ("neg_elbo", "kl")}
    if SIZES[name] == 2:
        found |= mean_of("neg_log_p", plane_sum(model, images))
    about = {key: metrics["environment"][key] for key in ("commit", "hardware", "torch")}
    return found | {"command": f"python -m vae train {runs()[name]}"} | about


def bound(name: str) -> dict:
    """The bound, in nats for an image."""
    bounds, seconds = bounds_of(name, *model_and_images(name))
    counts = {"samples": SAMPLES, "images": len(bounds), "seconds": seconds}
    return mean_of("neg_bound", bounds) | counts


def mean_of(key: str, values: Tensor) -> dict:
    """Minus the images' mean, and its standard error."""
    error = values.std().item() / math.sqrt(len(values))
    return {key: -values.mean().item(), f"{key}_std_error": error}


def bounds_of(name: str, model: VAE, images: Tensor) -> tuple[Tensor, float]:
    """Each image's bound, (N,), and the seconds that they took.

    What is known is kept in `runs/results`, from where a measurement that was cut off goes on.
    """
    path, mark = RUNS / f"{name}_bounds.json", fingerprint(ASSETS / name / VAE.weights_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"weights": mark, "samples": SAMPLES}
    kept = read_json(path)
    if any(kept.get(key) != value for key, value in about.items()):
        kept = about | {"bounds": [], "seconds": 0.0}
    while (done := len(kept["bounds"])) < len(images):
        start, some = time.perf_counter(), images[done : done + PART]
        found = importance_weighted_bound(model, some, samples=SAMPLES, seed=done)
        kept["bounds"] += found.tolist()
        kept["seconds"] += time.perf_counter() - start
        write_json(path, kept)
        each = kept["seconds"] / len(kept["bounds"])
        left = each * (len(images) - len(kept["bounds"])) / 60
        print(f"{name}: {len(kept['bounds']):,} of {len(images):,} images, {1 / each:.2f} a second,"
              f" {left:.0f} minutes left", flush=True)  # fmt: skip
    return torch.tensor(kept["bounds"], dtype=torch.float64), kept["seconds"]


@torch.no_grad()
def plane_sum(model: VAE, images: Tensor, step: float = STEP) -> Tensor:
    """log p(x) = log of the integral of p(x|z) N(z; 0, I), by a sum over a grid of z: (N,).

    `images`: (N, 1, 28, 28), black and white; the model's latent has two values. log p(x|z) is
    linear in x, so that all images and many z make one product of matrices.
    """
    axis = torch.arange(-REACH, REACH + step / 2, step)
    white = ((1 + images) / 2).flatten(1).to(DEVICE)
    total = torch.full((len(images),), -torch.inf, device=DEVICE)
    for (z,) in batches(1000, torch.cartesian_prod(axis, axis)):
        y = decode(model, z.view(-1, 2, 1, 1)).view(-1, 1)  # each pixel as an image
        costs = (bernoulli_nll(torch.full_like(y, pixel), y) for pixel in (1.0, -1.0))
        of_white, of_black = (cost.view(len(z), -1) for cost in costs)
        prior = -0.5 * z.square().sum(1).to(DEVICE) - math.log(2 * math.pi)
        log_p = white @ (of_black - of_white).T - of_black.sum(1) + prior
        total = torch.logaddexp(total, log_p.logsumexp(1))
    return total.cpu().double() + 2 * math.log(step)


def table() -> list[list[str]]:
    """A row for each model: its -ELBO, its -log p(x), and what others have published."""
    found = []
    for name, size in SIZES.items():
        ours, numbers = numbers_of(name), []
        for key in ("neg_elbo", "neg_bound", "neg_log_p"):
            error = f" ± {ours[f'{key}_std_error']:.2f}" if f"{key}_std_error" in ours else ""
            numbers.append(f"{ours[key]:.2f}{error}" if key in ours else "–")
        found.append([str(size), *numbers, *PUBLISHED[size]])
    return found


def numbers_of(name: str) -> dict:
    """A model's two rows."""
    return row(f"likelihood/{name}") | row(f"likelihood/{name}{BOUND}")
