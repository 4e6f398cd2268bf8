"""Many images through an encoder or a decoder, a part at a time, and pictures of them."""

from collections.abc import Iterable

import torch
from matplotlib.axes import Axes
from torch import Tensor

from vae import VAE, scale_images
from vae.data import batches
from vae_show.figures import tile

GPU = torch.accelerator.is_available()
DEVICE = torch.accelerator.current_accelerator() if GPU else torch.device("cpu")
DRAWS = 10_000  # generated digits that are scored
CHUNK = 500  # images at once


def seeded() -> torch.Generator:
    """The generator of every measurement's noise."""
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def encode(
    model: VAE, images: Tensor, generator: torch.Generator, labels: Tensor | None = None
) -> Tensor:
    """z ~ q(z|x) of images (N, 1, 28, 28), uint8, on the CPU; of a plain autoencoder, z itself."""
    codes = []
    for part, given in batches(CHUNK, images, labels):
        posterior = model.encode(scale_images(part), given)
        codes.append(posterior.sample(torch.randn(posterior.mean.shape, generator=generator)))
    return torch.cat(codes).cpu()


@torch.no_grad()
def decode(model: VAE, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """Images (N, 1, 28, 28) in [-1, 1], on the model's device, of latents (N, C, G, G)."""
    return torch.cat([model.decode(*part) for part in batches(CHUNK, z, labels)])


def draw_panels(axes: Iterable[Axes], panels: dict[str, Tensor], columns: int) -> None:
    """The images (N, 1, 28, 28) of each title, tiled, in a panel of their own."""
    for axis, (title, images) in zip(axes, panels.items(), strict=True):
        axis.imshow(tile(images[:, 0].cpu().numpy(), columns), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
