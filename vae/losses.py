"""The terms of the loss, each as a short function. Their sum is in `training/step.py`."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import MNIST_SHAPE


def calibrated_nll(distortion: Tensor, variance: Tensor | None = None,
                   pixels: int = math.prod(MNIST_SHAPE)) -> Tensor:  # fmt: skip
    """-log p(x|z) in nats for an image, with the Gaussian's variance at its optimum.

    For D = `pixels` numbers in an image the likelihood is highest where the variance is the mean
    squared error itself (Rybkin et al., "sigma-VAE", 2021, eq. 7); then -log p = D/2 (log(2 pi MSE)
    + 1). `distortion`: scalar, the batch's MSE, or MSE + w LPIPS. `variance`: scalar, that over all
    processes' batches; None: this batch's. Its own derivative, 0 at the optimum, is left out.
    """
    variance = distortion.detach() if variance is None else variance
    variance = variance.clamp_min(1e-12)  # a perfect reconstruction has no finite optimum
    return pixels / 2 * (torch.log(2 * math.pi * variance) + distortion / variance)


def discriminator_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Hinge loss: 0 when every patch is told apart by a margin of 1, 2 when D is always 0."""
    return F.relu(1 - logits_real).mean() + F.relu(1 + logits_fake).mean()


def generator_loss(logits_fake: Tensor) -> Tensor:
    """Low when the discriminator takes reconstructions for real ones."""
    return -logits_fake.mean()


def gradient_penalty(logits_real: Tensor, real: Tensor) -> Tensor:
    """R1: squared length of D's gradient at real images (Mescheder et al. 2018, eq. 9).

    `real`: (B, C, H, W) that requires gradient and led to `logits_real`.
    """
    (gradient,) = torch.autograd.grad(logits_real.mean((1, 2, 3)).sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def adaptive_weight(reconstruction_gradient: Tensor, generator_gradient: Tensor) -> Tensor:
    """The ratio of the two terms' gradients at the decoder's last layer, at most 10,000.

    It gives both the same pull (Esser et al., "Taming Transformers", 2021, eq. 7).
    """
    norm = torch.linalg.vector_norm
    return (norm(reconstruction_gradient) / (norm(generator_gradient) + 1e-6)).clamp(0, 1e4)


def amplify_gradient(value: Tensor, factor: float) -> Tensor:
    """`value` as it is, with `factor` times its gradient."""
    return value.detach() + factor * (value - value.detach())
