"""Rows that are measured of trained models: generation, bounds of log p(x), noise on the codes.

* `generation.json`: two judges' scores of 10,000 samples of each model, and of reconstructions;
* `bounds.json`: importance-weighted bounds of the global models;
* `autoencoder.json`: each variational autoencoder beside the same network as a plain one;
* `likelihood.json`: -log p(x) of black and white digits. With two latent values, log p(x) is known
  by a sum over the plane besides.
"""

import math
import time
from functools import partial
from pathlib import Path

import torch
from common import ASSETS, JUDGE, Part, measurement
from scoring import CHUNK, DEVICE, SAMPLES, SECOND, decode, encode, judged_twice, seeded
from torch import Tensor
from trainings import BERNOULLI, CONDITIONAL, SIZES, commands, origin, plain_folders

import vae
from vae import VAE, LatentPrior, judge_images, load_digits, scale_images
from vae.data import batches
from vae.losses import bernoulli_nll
from vae.machinery.folder import read_metrics
from vae.machinery.shipped import SHARPENED

BOTH = ("reconstructions", "N(0, I)")
PAIRS = list(SHARPENED.items())  # before and after sharpening
SCORED = ["training digits", "test digits"]
SCORED += [f"latent_{size}, {source}" for size in SIZES
           for source in (*BOTH, "prior, unguided", "prior")]  # fmt: skip
SCORED += [f"{name}, {source}" for pair in PAIRS for name in pair for source in BOTH]
BOUNDED = [*(f"global_{size}" for size in SIZES), CONDITIONAL]
BOUND_IMAGES, BOUND_SAMPLES = 1000, 500
LPIPS_IMAGES = 1000
BALANCED = torch.arange(SAMPLES) % 10  # every digit as often
NOISE = (0.1, 0.2, 0.5, 1.0, 2.0)  # standard deviations of the codes
MOVED = 2000  # test digits whose codes are moved
LIKELIHOOD_SAMPLES = 1000  # of q(z|x), for an image
PART = 250  # images of a seed's samples
REACH, STEP = 5.0, 0.02  # of the grid in the plane; q(z|x) is about two steps wide


def parts() -> list[Part]:
    """Every row of the four tables; "likelihood" has two for each model."""
    found = [measurement(f"generation/{name}", judged(name), partial(score, name))
             for name in SCORED]  # fmt: skip
    found += [measurement(f"bounds/{name}", weights(name), partial(bound, name))
              for name in BOUNDED]  # fmt: skip
    found += [measurement(f"autoencoder/{name}", [JUDGE, folder / VAE.weights_name],
                          partial(compare, folder))
              for name, folder in plain_folders().items()]  # fmt: skip
    for end, measure in (("", known), (", bound", likelihood_bound)):
        for name in BERNOULLI:
            made = partial(measure, name)
            found.append(measurement(f"likelihood/{name}{end}", weights(name), made))
    return found


def weights(name: str) -> list[Path]:
    """The files of weights behind a row of the scores or of the bounds."""
    if name.endswith(" digits"):
        return []
    model, _, source = name.partition(", ")
    files = [VAE.weights_name] + [LatentPrior.weights_name] * source.startswith("prior")
    return [ASSETS / model / file for file in files]


def judged(name: str) -> list[Path]:
    """Those, after the judges'."""
    return [JUDGE, SECOND / VAE.weights_name, *weights(name)]


def images_of(name: str) -> tuple[Tensor, Tensor | None]:
    """The images that a row scores, (SAMPLES, 1, 28, 28) in [-1, 1], and their digits, if known."""
    folder, _, source = name.partition(", ")
    images, labels = load_digits("train" if name == "training digits" else "test")
    if not source:
        return scale_images(images[:SAMPLES]).to(DEVICE), labels[:SAMPLES]
    model = VAE.from_pretrained(ASSETS / folder).to(DEVICE)
    conditional = bool(model.config.num_classes)
    if source == "reconstructions":
        given = labels if conditional else None
        return decode(model, encode(model, images, seeded(), given), given), labels
    if source == "N(0, I)":
        given = BALANCED if conditional else None
        return model.sample(SAMPLES, given, seeded()), given
    prior = LatentPrior.from_pretrained(ASSETS / folder).to(DEVICE)
    guidance = 1.0 if "unguided" in source else None
    return decode(model, prior.sample(SAMPLES, BALANCED, seeded(), guidance=guidance)), BALANCED


def score(name: str) -> dict:
    """The judges' scores, and the distance of reconstructions from the originals."""
    images, labels = images_of(name)
    scores = judged_twice(images, labels, copies=name != "training digits")
    if name.endswith(BOTH[0]):
        originals = scale_images(load_digits("test").images).to(DEVICE)
        scores["mse"] = vae.mse(originals, images).mean().item()
        lpips, some = vae.LPIPS().to(DEVICE), (originals[:LPIPS_IMAGES], images[:LPIPS_IMAGES])
        with torch.no_grad():
            distances = torch.cat([lpips(*pair) for pair in batches(CHUNK, *some)])
        scores["lpips"] = distances.mean().item()
    return scores


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


def fitted_samples(codes: Tensor, noise: torch.Generator) -> Tensor:
    """Samples of a Gaussian with the mean and the covariance of `codes`."""
    flat = codes.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat.T).reshape(flat.shape[1], -1))
    z = torch.randn(SAMPLES, flat.shape[1], generator=noise, dtype=torch.float64)
    z = (z * values.clamp_min(0).sqrt()) @ vectors.T + flat.mean(0)
    return z.float().view(-1, *codes.shape[1:])


def compare(folder: Path) -> dict:
    """A model's reconstructions, samples, and images of codes with noise and of midpoints.

    A code is z ~ q(z|x), as the decoder saw it in training; of a plain autoencoder, z itself.
    """
    model, metrics, generator = VAE.from_pretrained(folder), read_metrics(folder), seeded()
    (images, labels), train = load_digits("test"), load_digits("train").images[:SAMPLES]
    model, x = model.to(DEVICE), scale_images(images).to(DEVICE)
    codes, trained = (encode(model, some, generator) for some in (images, train))
    std = trained.std(0)
    unit = torch.randn(SAMPLES, *codes.shape[1:], generator=generator)
    sampled = {"N(0, I)": unit, "fitted Gaussian": fitted_samples(trained, generator)}
    found = {"mse": vae.mse(x, decode(model, codes)).mean().item(), "code_std": std.mean().item()}
    for name, z in sampled.items():
        scores = judge_images(decode(model, z))
        found[name] = {key: scores[key] for key in ("fid", "recognised")}
    found["noise"] = {}
    moved = torch.randn(MOVED, *codes.shape[1:], generator=generator) * std
    for share in NOISE:
        y = decode(model, codes[:MOVED] + share * moved)
        scores = judge_images(y, labels[:MOVED], reference=images[:MOVED])
        error = vae.mse(x[:MOVED], y).mean().item()
        found["noise"][str(share)] = {"mse": error, "accuracy": scores["accuracy"]}
    order = torch.randperm(len(codes), generator=generator)
    middle = judge_images(decode(model, (codes + codes[order]) / 2), reference=images)
    found["midpoints"] = middle["recognised"]
    return found | {key: metrics[key] for key in ("config", "environment", "test")}


def binarised(name: str) -> tuple[VAE, Tensor]:
    """The model, and the black and white test images that `evaluate` takes."""
    model = VAE.from_pretrained(ASSETS / name).to(DEVICE)
    return model, model.observed(scale_images(load_digits("test").images), seeded())


def known(name: str) -> dict:
    """The evaluation's numbers, in nats for an image; with two latent values, -log p(x) too."""
    metrics, (model, images) = read_metrics(ASSETS / name), binarised(name)
    found = {key: metrics["test"][key] for key in ("neg_elbo", "kl")}
    if BERNOULLI[name] == 2:
        found |= negative_mean("neg_log_p", plane_sum(model, images))
    return found | {"command": f"python -m vae {commands()[name]}"} | origin(metrics)


def likelihood_bound(name: str) -> dict:
    """The bound, in nats for an image, and the seconds that it took."""
    (model, images), started, found = binarised(name), time.perf_counter(), []
    for number, (some,) in enumerate(batches(PART, images)):
        samples, seed = LIKELIHOOD_SAMPLES, number * PART
        found.append(vae.importance_weighted_bound(model, some, samples=samples, seed=seed))
        print(f"{name}: {seed + len(some):,} of {len(images):,} images", flush=True)
    counts = {"samples": LIKELIHOOD_SAMPLES, "images": len(images)}
    took = {"seconds": time.perf_counter() - started}
    return negative_mean("neg_bound", torch.cat(found)) | counts | took


def negative_mean(key: str, values: Tensor) -> dict:
    """Minus the images' mean, and its standard error."""
    error = values.std().item() / math.sqrt(len(values))
    return {key: -values.mean().item(), f"{key}_std_error": error}


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
