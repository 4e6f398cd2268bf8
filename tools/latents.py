"""Whole data sets through an encoder or a decoder, a part at a time."""

import torch
from torch import Tensor

from vae import VAE, scale_images

CHUNK = 500  # images at once


@torch.no_grad()
def encode(
    model: VAE,
    images: Tensor,
    labels: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """z ~ q(z|x) for images (N, 1, 28, 28), uint8; the point itself for a plain autoencoder.

    `labels`: int64 (N,), for a conditional model.
    """
    codes = []
    for part, given in zip(images.split(CHUNK), _parts(labels, len(images)), strict=True):
        posterior = model.encode(scale_images(part), given)
        codes.append(posterior.sample(torch.randn(posterior.mean.shape, generator=generator)))
    return torch.cat(codes)


@torch.no_grad()
def decode(model: VAE, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """Images (N, 1, 28, 28) in [-1, 1] of latents (N, C, G, G); `labels`: as for `encode`."""
    parts = zip(z.split(CHUNK), _parts(labels, len(z)), strict=True)
    return torch.cat([model.decode(part, given) for part, given in parts])


def _parts(labels: Tensor | None, n: int) -> list:
    return [None] * -(-n // CHUNK) if labels is None else list(labels.split(CHUNK))
