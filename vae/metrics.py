"""Measurements of reconstructions: MSE, PSNR and SSIM as scikit-image has them, LPIPS, rate."""

import math
from collections import defaultdict
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vae_store.progress import Bar

from .checks import as_count, as_labels, check_images, check_pair, gaussian
from .data import BATCH, batches, in_unit_range
from .losses import bernoulli_nll, calibrated_nll
from .model import VAE, Labels
from .perceptual import LPIPS

DATA_RANGE = 2.0  # images lie in [-1, 1]
SSIM_WINDOW = 7
LPIPS_BATCH = 100  # VGG16's first maps are 50,176 numbers an image
ACTIVE = 0.01  # variance over images from which a latent value's mean counts as in use
GREY = 0.8
AGREEMENT = 1e-4  # what our batched numbers may differ from scikit-image's own


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error, in [-1, 1], of each pair of images: (B, 1 or 3, H, W) twice to (B,).

    `x`, `y`: uint8, or floating-point in [-1, 1], beyond which noise may reach, to 2. Raises
    `ValueError` for what is not, and for two shapes, as `psnr` and `ssim` do.
    """
    return _mse(*_pair(x, y))


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, data range 2, of each pair: (B,); infinite if equal."""
    return _psnr(mse(x, y))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity, at most 1, data range 2, of each pair: (B,). H and W are 7 or more.

    Wang et al. 2004 with the settings of `skimage.metrics.structural_similarity`: a 7x7 uniform
    window, unbiased covariances, K = 0.01 and 0.03, no window across the border; of RGB, the mean
    over the channels.
    """
    return _ssim(*_pair(x, y, SSIM_WINDOW))


def _pair(x: Tensor, y: Tensor, smallest: int = 1) -> tuple[Tensor, Tensor]:
    check_pair(x, y, raw=True, smallest=smallest, most=2, hint=True)
    return _precise(in_unit_range(x)), _precise(in_unit_range(y).to(x.device))


def _precise(x: Tensor) -> Tensor:
    """float64, or float32 where that may be lacking, as on Apple's GPUs."""
    return x.double() if x.device.type in ("cpu", "cuda") else x.float()


def _mse(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).mean(1)


def _psnr(error: Tensor) -> Tensor:
    return 10 * torch.log10(DATA_RANGE**2 / error)


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    moments = torch.cat([x, y, x * x, y * y, x * y], dim=1)
    ux, uy, uxx, uyy, uxy = F.avg_pool2d(moments, SSIM_WINDOW, stride=1).chunk(5, dim=1)
    n = SSIM_WINDOW**2
    vx, vy, vxy = (n / (n - 1) * v for v in (uxx - ux * ux, uyy - uy * uy, uxy - ux * uy))
    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    above = (2 * ux * uy + c1) * (2 * vxy + c2)
    below = (ux * ux + uy * uy + c1) * (vx + vy + c2)
    return (above / below).flatten(1).mean(1)


def grey_share(x: Tensor) -> float:
    """Share of pixels that are neither black nor white, of images (B, 1, H, W) in [-1, 1].

    MNIST's digits have 8.6 % between -0.8 and 0.8; what is blurred has more.
    """
    return _mean([in_unit_range(x).abs() < GREY])


def skimage_metrics(x: Tensor, y: Tensor) -> dict[str, float]:
    """MSE, SSIM and PSNR of each pair by `skimage.metrics` itself, averaged over the pairs."""
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

    pairs = list(zip(x.cpu().double().numpy(), y.cpu().double().numpy(), strict=True))
    of = {"data_range": 2, "channel_axis": 0}
    return {
        "mse": float(np.mean([mean_squared_error(a, b) for a, b in pairs])),
        "ssim": float(np.mean([structural_similarity(a, b, **of) for a, b in pairs])),
        "psnr": float(np.mean([peak_signal_noise_ratio(a, b, data_range=2) for a, b in pairs])),
    }


@torch.no_grad()
def evaluate(model: VAE, images: Tensor, labels: Labels = None, *, mean: bool = True,
             lpips: LPIPS | None = None, lpips_images: int = 1000, reference: bool = False,
             seed: int = 0, batch_size: int = BATCH, progress: bool = False) -> dict:  # fmt: skip
    """Measure a model's reconstructions of `images`, each counted once.

    `images`: (N, *image_shape), uint8 or floating point in [-1, 1]. `labels`: whole numbers (N,),
    for a conditional model; another does not look at them. The reconstruction is from z ~ q(z|x)
    ("sample") and, with `mean`, from the posterior's mean too. `lpips_images`: LPIPS, which costs
    ten times the model, is measured on the first so many images (0: not at all), with `lpips` or,
    if None, a new `vae.LPIPS()`.
    `reference`: MSE, SSIM and PSNR are scikit-image's own (slower), and "skimage_difference" is
    the largest difference from ours. `seed` draws z, the same on every device, and before it, for
    a Bernoulli likelihood, the black and white images of which everything is then measured.

    Returns {"sample": {"mse", "ssim", "psnr", "lpips"}, "mean": {the same}, "kl" and "neg_elbo"
    (nats for an image, the latter of a Bernoulli, or of a calibrated Gaussian by MSE alone; neither
    for a plain autoencoder), "latent_values", "images", "lpips_images"}. Raises `ValueError` for
    images of another shape, type or range.
    """
    batch_size = as_count(batch_size, "batch_size")
    lpips_images = as_count(lpips_images, "lpips_images", 0)
    generator = torch.Generator().manual_seed(as_count(seed, "seed", 0))
    x = _checked(model, images, generator, hint=True)
    noise = gaussian(len(x), *model.config.latent_shape, generator=generator)
    parts = _parts(model, batch_size, x, labels, noise)
    lpips_images = min(lpips_images, len(x))
    if lpips_images and lpips is None:
        lpips = LPIPS().to(model.device)
    kl, nll, drawn, of_mean = [], [], [], []
    for part, given, eps in Bar(parts, "evaluating", disable=not progress):
        y, posterior = model(part, given, eps)  # no layer works otherwise in training
        drawn.append(y)
        kl.append(posterior.kl(eps))
        if model.config.likelihood == "bernoulli":
            nll.append(bernoulli_nll(part, y))
        if mean:
            of_mean.append(model.decode(posterior.mode(), given))
    result = {}
    for kind, y in (("sample", drawn), ("mean", of_mean))[: 1 + mean]:
        y = torch.cat(y)
        result[kind] = _measure(x, y, batch_size, lpips, lpips_images)
        if reference:
            ours, theirs = result[kind], skimage_metrics(x, y)
            differences = [abs(ours[name] - theirs[name]) for name in theirs]
            result["skimage_difference"] = max(result.get("skimage_difference", 0), *differences)
            ours.update(theirs)
    if model.config.variational:
        error = torch.tensor(result["sample"]["mse"], dtype=torch.float64)
        nll = _mean(nll) if nll else calibrated_nll(error, None, x[0].numel()).item()
        result |= {"kl": _mean(kl), "neg_elbo": nll + _mean(kl)}
    sizes = {"latent_values": model.config.latent_values, "images": len(x)}
    return result | sizes | {"lpips_images": lpips_images}


def _measure(x: Tensor, y: Tensor, size: int, lpips: LPIPS | None, lpips_images: int) -> dict:
    """The metrics of reconstructions `y`: (N, *image_shape), each averaged over the images."""
    values = defaultdict(list)
    for a, b in batches(size, x, y):
        a, b = _precise(a.to(b.device)), _precise(b)
        error = _mse(a, b)
        for name, measured in (("mse", error), ("ssim", _ssim(a, b)), ("psnr", _psnr(error))):
            values[name].append(measured)
    for a, b in batches(LPIPS_BATCH, x[:lpips_images], y[:lpips_images]):
        values["lpips"].append(lpips(a.to(b.device), b))
    return {name: _mean(parts) for name, parts in values.items()}


@torch.no_grad()
def importance_weighted_bound(model: VAE, images: Tensor, variance: float | None = None,
                              labels: Labels = None, *, samples: int = 500,
                              seed: int = 0) -> Tensor:  # fmt: skip
    """A lower bound of log p(x) in nats for each image, tighter than the ELBO: (N,), float64.

    log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) with K = `samples` draws of q(z|x) (Burda, Grosse &
    Salakhutdinov, "Importance Weighted Autoencoders", 2016, eq. 8). `images`: as for `evaluate`.
    `variance`: of the decoder's Gaussian; in `evaluate`, the MSE. A Bernoulli decoder has none, and
    the bound is of images that `seed` binarises. Raises `ValueError`.
    """
    samples, bernoulli = as_count(samples, "samples"), model.config.likelihood == "bernoulli"
    number = isinstance(variance, Real) and not isinstance(variance, bool)
    if not (variance is None if bernoulli else number and 0 < (v := float(variance)) < math.inf):
        allowed = "None, of a Bernoulli decoder" if bernoulli else "a finite number above 0"
        raise ValueError(f"variance={variance!r} is not allowed: {allowed}")
    if not model.config.variational:
        raise ValueError("variational=False is not allowed: there is no q(z|x) to draw from")
    bounds, generator = [], torch.Generator().manual_seed(as_count(seed, "seed", 0))
    x = _checked(model, images, generator, hint=True)
    for one, given in _parts(model, 1, x, labels):
        posterior = model.encode(one, given).expand(samples)
        noise = gaussian(samples, *model.config.latent_shape, generator=generator)
        given = given if given is None else given.expand(samples)
        parts = batches(BATCH, posterior.sample(noise), given)
        one, y = _precise(one), _precise(torch.cat([model.decode(*part) for part in parts]))
        if bernoulli:
            nll = bernoulli_nll(one, y)
        else:
            nll = one.numel() / 2 * (math.log(2 * math.pi * v) + _mse(one, y) / v)
        weight = -_precise(posterior.log_ratio(noise)) - nll
        bounds.append(torch.logsumexp(weight, 0) - math.log(samples))
    return torch.stack(bounds).cpu().double()


@torch.no_grad()
def active_units(model: VAE, images: Tensor, labels: Labels = None) -> int:
    """How many latent means have a variance above 0.01 over `images` (Burda et al. 2016, 5.1).

    `images`, `labels`: as for `evaluate`, two or more. Raises `ValueError`.
    """
    x = _checked(model, images, torch.Generator().manual_seed(0))
    if len(x) < 2:
        raise ValueError(f"images has {len(x)} image; a variance needs two or more")
    means = [model.encode(*part).mean for part in _parts(model, BATCH, x, labels)]
    return int((torch.cat(means).flatten(1).var(0) > ACTIVE).sum())


def _checked(model: VAE, images: Tensor, generator: torch.Generator, hint: bool = False) -> Tensor:
    """A model's images in [-1, 1], of uint8 or such ones; as its likelihood sees them."""
    check_images(images, raw=True, shape=model.config.image_shape, hint=hint)
    return model.observed(in_unit_range(images), generator)


def _parts(model: VAE, size: int, x: Tensor, labels: Labels, *more: Tensor) -> list[tuple]:
    """`size` images at a time and their labels, where the model is; None if it takes no labels."""
    classes = model.config.num_classes
    if classes and labels is None:
        raise ValueError(f"labels=None, but num_classes={classes}: a conditional model needs them")
    labels = as_labels(labels, len(x), classes).to(model.device) if classes else None
    return list(batches(size, x.to(model.device), labels, *more))


def _mean(batches: list[Tensor]) -> float:
    """The mean of batches of values, in float64."""
    return torch.cat(batches).cpu().double().mean().item()
