"""The encoder's answer: q(z|x), the approximate posterior of an image's latent."""

from functools import cached_property

import torch
from torch import Tensor

from .checks import check_floats
from .couplings import Couplings


class DiagonalGaussian:
    """q(z|x): independent Gaussians with `mean` and `logvar`, both (B, C, G, G)."""

    def __init__(self, mean: Tensor, logvar: Tensor):
        """Raises `ValueError` unless both are floating-point and of one shape."""
        check_floats(mean, "mean", ("B", "C", "G", "G"), values=False)
        check_floats(logvar, "logvar", tuple(mean.shape), values=False)
        # float32 or more whatever the network's type, so that the KL neither over- nor underflows
        self.mean, self.logvar = at_least_float32(mean), at_least_float32(logvar)
        self.gaussian = self  # as of a `CoupledGaussian`

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """Reparameterised draw, mean + std * noise, noise ~ N(0, I) (Kingma & Welling, 2.4).

        `noise`: (B, C, G, G), drawn if None. Raises `ValueError` for another shape.
        """
        if noise is None:
            return self.mean + self.std * torch.randn_like(self.mean)
        check_floats(noise, "noise", tuple(self.mean.shape), values=False)
        return self.mean + self.std * noise.to(self.mean)

    def mode(self) -> Tensor:
        return self.mean

    def kl(self, noise: Tensor | None = None) -> Tensor:
        """KL(q(z|x) || N(0, I)) in nats, summed over an image's latent: (B,) (ibid., app. B).

        It has a closed form, and `noise` is not looked at.
        """
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)

    def log_ratio(self, noise: Tensor) -> Tensor:
        """log q(z|x) - log p(z) at z = sample(noise), in nats: (B,). Its average is the KL."""
        squares = self.sample(noise).square() - noise.to(self.mean).square()
        return 0.5 * (squares - self.logvar).flatten(1).sum(1)

    def expand(self, n: int) -> "DiagonalGaussian":
        """That of one image, `n` times."""
        return DiagonalGaussian(self.mean.expand(n, -1, -1, -1), self.logvar.expand(n, -1, -1, -1))


class CoupledGaussian:
    """q(z|x) of a global latent: independent Gaussians of u, as the decoder sees it, carried to z.

    The inverse of the couplings makes z of u: see `vae/couplings.py`. The density of z follows from
    a change of variables, and its KL from N(0, I) is that of u from what the couplings make of
    N(0, I) (Chen et al., "Variational Lossy Autoencoder", 2017, section 3.2).
    """

    def __init__(self, gaussian: DiagonalGaussian, couplings: Couplings, token: Tensor | None):
        """`gaussian`: q(u|x), (B, C, 1, 1); `token`: the labels', (B, 1, ...), or None."""
        self.gaussian, self.couplings, self.token = gaussian, couplings, token

    @cached_property
    def mean(self) -> Tensor:
        """The z, (B, C, 1, 1), of the mean of u. (The mean of z has no closed form.)"""
        return self.couplings.inverse(self.gaussian.mean, self.token)[0]

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """Reparameterised draw of z: (B, C, 1, 1). `noise`: as for `DiagonalGaussian.sample`."""
        return self.couplings.inverse(self.gaussian.sample(noise), self.token)[0]

    def kl(self, noise: Tensor | None = None) -> Tensor:
        """KL(q(z|x) || N(0, I)) in nats: (B,), from one draw, whose `noise` is drawn if None.

        It is not biased. The entropy of u is known, so that for a narrow q the draw hardly matters.
        """
        z, log_det = self.couplings.inverse(self.gaussian.sample(noise), self.token)
        squares, spread = z.square().flatten(1).sum(1), self.gaussian.logvar.flatten(1)
        return 0.5 * (squares - (1 + spread).sum(1)) - log_det

    def log_ratio(self, noise: Tensor) -> Tensor:
        """As `DiagonalGaussian.log_ratio`."""
        lengths = noise.to(self.gaussian.mean).square().flatten(1)
        return self.kl(noise) + 0.5 * (1 - lengths).sum(1)

    def expand(self, n: int) -> "CoupledGaussian":
        """That of one image, `n` times."""
        token = None if self.token is None else self.token.expand(n, -1, -1)
        return CoupledGaussian(self.gaussian.expand(n), self.couplings, token)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
