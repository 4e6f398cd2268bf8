"""The couplings of a global latent, and the gradient that shapes them.

A VAE draws digits from N(0, I) only if its codes, of all images together, look like N(0, I). On a
1x1 grid each class is a cluster of its own, with gaps in between, from which N(0, I) draws as well.
The ELBO pays only a few nats for closing them, and the decoder has to learn a moved code anew.

So an invertible map stands between prior and decoder, and its inverse behind the encoder:

    encoder -> u -> inverse map -> z        z ~ N(0, I) -> map -> u -> decoder

The two cancel: the map can carry codes to where the prior lies while the decoder sees the same u.
It is made of affine couplings (Dinh, Sohl-Dickstein & Bengio, "Real NVP", 2017), whose inverse and
volume are known exactly. A label, if there is one, enters the map, so that each class can lie where
the prior lies, and z is free to hold the style. The noise of q(z|x) is a Gaussian's on either side
of the map: see `vae/posterior.py`.

Within the ELBO the couplings hardly move. They alone get one more gradient, that of the marginal
KL(q(z) || p(z)), the part of the ELBO's KL that tells nothing of an image (Hoffman & Johnson, "ELBO
surgery", 2016): the likelihood of codes, `marginal_nll`. See also `vae/training/couplings.py`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .blocks import zero


class Coupling(nn.Module):
    """An invertible map of vectors: scale, shift and turn them, then one half moves the other.

    Affine coupling (Dinh et al. 2017, eq. 7 and 8) after a fixed rotation, as which it starts.
    Always in float32: in half precision, map and inverse would not cancel.
    """

    def __init__(self, size: int, context_channels: int = 0, hidden: int = 128):
        super().__init__()
        self.half = size // 2
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.shift = nn.Parameter(torch.zeros(size))
        self.register_buffer("rotation", nn.init.orthogonal_(torch.empty(size, size)))
        first, middle = nn.Linear(self.half + context_channels, hidden), nn.Linear(hidden, hidden)
        last = zero(nn.Linear(hidden, 2 * (size - self.half)))
        self.network = nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), last)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """`z`: (B, size); `context`: (B, context_channels). Returns u: (B, size)."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.shift.dtype) * self.log_scale.exp() + self.shift
            still, moved = (z @ self.rotation).tensor_split([self.half], dim=1)
            log_scale, shift = self._move(still, context)
            return torch.cat([still, moved * log_scale.exp() + shift], dim=1)

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The vectors z that `forward` turns into `u`, and log |det dz/du|, (B,)."""
        with torch.autocast(u.device.type, enabled=False):
            still, moved = u.to(self.shift.dtype).tensor_split([self.half], dim=1)
            log_scale, shift = self._move(still, context)
            moved = (moved - shift) * (-log_scale).exp()
            z = torch.cat([still, moved], dim=1) @ self.rotation.T
            z = (z - self.shift) * (-self.log_scale).exp()
            return z, -log_scale.sum(1) - self.log_scale.sum()

    def _move(self, still: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logarithm of the scale, between -1 and 1, and shift, for the other half."""
        known = still if context is None else torch.cat([still, context.to(still.dtype)], dim=1)
        log_scale, shift = self.network(known).chunk(2, dim=1)
        return torch.tanh(log_scale), shift


class Couplings(nn.ModuleList):
    """Couplings, one after the other; with none of them, the map is the identity.

    Latents are (B, C, 1, 1). `class_token`: (B, 1, context_channels), the embedded label, or None.
    """

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> "Couplings":
        """`half()` and the like do not reach the couplings: a rounded rotation would be none."""

        def keep(tensor: Tensor) -> Tensor:
            changed = change(tensor)
            return tensor.to(changed.device) if changed.element_size() < 4 else changed

        return super()._apply(keep, recurse)

    def forward(self, z: Tensor, class_token: Tensor | None = None) -> Tensor:
        """What the decoder sees of latents `z`: u, (B, C, 1, 1)."""
        if not len(self):
            return z
        u, context = z.flatten(1), _vector(class_token)
        for coupling in self:
            u = coupling(u, context)
        return u[..., None, None]

    def inverse(self, u: Tensor, class_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The latents z whose map is `u`, (B, C, 1, 1), and log |det dz/du|: (B,)."""
        log_det, z, context = u.new_zeros(len(u)), u.flatten(1), _vector(class_token)
        for coupling in reversed(self):
            z, one = coupling.inverse(z, context)
            log_det = log_det + one
        return z.view(u.shape), log_det

    def marginal_nll(self, u: Tensor, class_token: Tensor | None = None) -> Tensor:
        """-log p(u) in nats, less C/2 log(2 pi), of codes `u`: (B, C, 1, 1). Returns (B,).

        By change of variables it is |z|^2 / 2 - log |det dz/du| (Dinh et al. 2017, eq. 2 and 3).
        """
        z, log_det = self.inverse(u, class_token)
        return 0.5 * z.square().flatten(1).sum(1) - log_det


def _vector(class_token: Tensor | None) -> Tensor | None:
    return None if class_token is None else class_token.flatten(1)
