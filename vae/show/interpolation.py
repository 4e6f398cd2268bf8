"""The way from one image to another, through their latents."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Digits
from ..model import VAE


@torch.no_grad()
def decode_between(model: VAE, first: Digits, second: Digits, times: list[float]) -> list[Tensor]:
    """Decode points on the way between the means of two batches of images, a batch for each time.

    `times`: shares of the way, 0 to 1. On a grid the way is a straight line, place by place.
    Global latents, whose prior lies near a sphere, go along it (White 2016, "Sampling Generative
    Networks"), or the middle would be nearer to the origin than a draw ever is. `first.images`,
    `second.images`: (B, 1, 28, 28) in [-1, 1]. A conditional model is given the nearer end's label.
    """
    device, conditional = model.decoder.position.device, model.config.num_classes > 0
    labels = [end.labels.to(device) if conditional else None for end in (first, second)]
    a, b = (
        model.encode(end.images.to(device), given).mode()
        for end, given in zip((first, second), labels, strict=True)
    )
    between = slerp if on_sphere(model) else torch.lerp
    return [model.decode(between(a, b, t), labels[t >= 0.5]) for t in times]


def on_sphere(model: VAE) -> bool:
    """Whether the prior lies near a sphere: one vector, of two values or more."""
    return model.config.latent_grid == 1 and model.config.latent_size > 1


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation from `a` to `b`, (B, ...), each row one vector (Shoemake 1985, 3.3).

    The direction goes along the arc, sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b for unit
    vectors with the angle w between them, while the length goes from one to the other in
    proportion.
    """
    shape, a, b = a.shape, a.flatten(1), b.flatten(1)
    length = torch.lerp(a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True), t)
    a, b = F.normalize(a), F.normalize(b)
    angle = torch.acos((a * b).sum(1, keepdim=True).clamp(-1, 1))
    along = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    along = torch.where(angle > 1e-4, along, torch.lerp(a, b, t))  # parallel: nothing to turn
    return (length * F.normalize(along)).view(shape)
