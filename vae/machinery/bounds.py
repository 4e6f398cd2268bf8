"""The bound of log p(x) by importance sampling, and the number of active latent values."""

import math
from numbers import Real

import torch
from torch import Tensor

from ..checks import as_count, shown
from ..data import BATCH, batches, gaussian
from ..losses import bernoulli_nll
from ..metrics import labelled_batches, observed_images, precise, squared_error
from ..model import VAE, Labels

ACTIVE = 0.01  # variance over images from which a latent value's mean counts as active


@torch.no_grad()
def importance_weighted_bound(model: VAE, images: Tensor, variance: float | None = None,
                              labels: Labels = None, *, samples: int = 500,
                              seed: int = 0) -> Tensor:  # fmt: skip
    """A lower bound of log p(x) in nats for each image, tighter than the ELBO: (N,), float64.

    log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) with K = `samples` of q(z|x) (Burda, Grosse &
    Salakhutdinov, "Importance Weighted Autoencoders", 2016, eq. 8). `images`: as for `evaluate`.
    `variance`: of the decoder's Gaussian; `evaluate` uses the MSE. A Bernoulli decoder has none;
    its images are binarised by `seed`. Raises `ValueError`.
    """
    samples, bernoulli = as_count(samples, "samples"), model.config.likelihood == "bernoulli"
    number = isinstance(variance, Real) and not isinstance(variance, bool)
    if not (variance is None if bernoulli else number and 0 < (v := float(variance)) < math.inf):
        allowed = "None, of a Bernoulli decoder" if bernoulli else "a finite number above 0"
        raise ValueError(f"variance={shown(variance)} is not allowed: {allowed}")
    if not model.config.variational:
        raise ValueError("variational=False is not allowed: there is no q(z|x) to draw from")
    bounds, generator = [], torch.Generator().manual_seed(as_count(seed, "seed", 0))
    x = observed_images(model, images, generator, hint=True)
    for one, given in labelled_batches(model, 1, x, labels):
        posterior = model.encode(one, given).expand(samples)
        noise = gaussian(samples, *model.config.latent_shape, generator=generator)
        given = given if given is None else given.expand(samples)
        parts = batches(BATCH, posterior.sample(noise), given)
        one, y = precise(one), precise(torch.cat([model.decode(*part) for part in parts]))
        if bernoulli:
            nll = bernoulli_nll(one, y)
        else:
            nll = one.numel() / 2 * (math.log(2 * math.pi * v) + squared_error(one, y) / v)
        weight = -precise(posterior.log_ratio(noise)) - nll
        bounds.append(torch.logsumexp(weight, 0) - math.log(samples))
    return torch.stack(bounds).cpu().double()


@torch.no_grad()
def active_units(model: VAE, images: Tensor, labels: Labels = None) -> int:
    """How many latent means have a variance above 0.01 over `images` (Burda et al. 2016, 5.1).

    `images`, `labels`: as for `evaluate`, two or more. Raises `ValueError`.
    """
    x = observed_images(model, images, torch.Generator().manual_seed(0), hint=False)
    if len(x) < 2:
        raise ValueError(f"images has {len(x)} image; a variance needs two or more")
    means = [model.encode(*part).mean for part in labelled_batches(model, BATCH, x, labels)]
    return int((torch.cat(means).flatten(1).var(0) > ACTIVE).sum())
