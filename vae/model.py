"""The variational autoencoder: config, posterior, encoder, decoder, and the two together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import NORM_GROUPS, DownBlock, MidBlock, UpBlock, check_widths, to_tokens
from .checks import as_count, as_labels, check_floats, check_images, gaussian
from .couplings import Coupling, Couplings
from .data import BATCH, batches
from .store.modules import Pretrained
from .store.settings import check_options, option

MAP_SIZE = 7  # the smallest feature map, after two halvings of 28
Labels = Tensor | Sequence[int] | int | None  # or a NumPy array
LOGVAR_BOUND = 15.0  # keeps exp(logvar / 2) between 5.5e-4 and 1.8e3: representable in fp16


@dataclass(frozen=True)
class VAEConfig:
    """What a VAE is made of. An image's latent is (latent_size, latent_grid, latent_grid)."""

    latent_size: int = option(2, "channels of the latent", 1, 64)
    latent_grid: int = option(7, "height and width of the latent; 1 is a global latent",
                              choices=(1, MAP_SIZE))  # fmt: skip
    channels: tuple[int, ...] = option((16, 32, 64), "widths at 28x28, 14x14 and 7x7", 8, 1024)
    blocks: int = option(1, "residual blocks in each DownBlock and UpBlock", 1, 8)
    self_attention: bool = option(True, "self-attention at 7x7")
    cross_attention: bool = option(True, "UpBlocks attend to the latent's tokens")
    num_classes: int = option(0, "classes of a conditional model; 0: not conditional", 0, 1000)
    couplings: int = option(
        12, "invertible layers that shape a global latent of two values or more", 0, 64
    )
    variational: bool = option(True, "or a plain autoencoder: no draw, z is the mean; beta 0")

    def __post_init__(self):
        check_options(self)
        check_widths(self.channels)
        if self.num_classes and not self.cross_attention:
            given = f"num_classes={self.num_classes}"
            raise ValueError(f"{given} needs cross_attention=True, by which labels enter")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.latent_size, self.latent_grid, self.latent_grid

    @property
    def latent_values(self) -> int:
        """How many numbers one image becomes: C * G * G."""
        return self.latent_size * self.latent_grid**2


class DiagonalGaussian:
    """q(z|x): independent Gaussians with `mean` and `logvar`, both (B, C, G, G)."""

    def __init__(self, mean: Tensor, logvar: Tensor):
        """Raises `ValueError` unless both are floating-point and of one shape."""
        check_floats(mean, "mean", ("B", "C", "G", "G"), values=False)
        check_floats(logvar, "logvar", tuple(mean.shape), values=False)
        # float32 or more whatever the network's type, so that the KL neither over- nor underflows
        self.mean, self.logvar = at_least_float32(mean), at_least_float32(logvar)

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

    def kl(self) -> Tensor:
        """KL(q(z|x) || N(0, I)) in nats, summed over an image's latent: (B,) (ibid., app. B)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)


class Encoder(nn.Module):
    """Images (B, 1, 28, 28) to the posterior's mean and raw log-variance, (B, 2C, G, G)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        _, middle, wide = config.channels
        context = wide if config.num_classes else 0
        down1 = DownBlock(1, middle, config.blocks, context_channels=context)
        down2 = DownBlock(middle, wide, config.blocks, config.self_attention, context)
        self.down_blocks = nn.ModuleList([down1, down2])  # 28 -> 14 -> 7
        self.mid_block = MidBlock(wide, config.self_attention)
        self.norm = nn.GroupNorm(NORM_GROUPS, wide)
        # 1x1 for the 7x7 grid; for a global latent, one window over the whole map
        self.conv_out = nn.Conv2d(wide, 2 * config.latent_size, MAP_SIZE // config.latent_grid)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for block in self.down_blocks:
            x = block(x, context)
        return self.conv_out(F.silu(self.norm(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents (B, C, G, G) to images (B, 1, 28, 28) in [-1, 1]."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        narrow, middle, wide = config.channels
        context = wide if config.cross_attention else 0
        self.conv_in = nn.ConvTranspose2d(config.latent_size, wide, MAP_SIZE // config.latent_grid)
        self.position = nn.Parameter(0.02 * torch.randn(1, wide, MAP_SIZE, MAP_SIZE))
        self.mid_block = MidBlock(wide, config.self_attention)
        widths = (wide, middle), (middle, narrow)  # 7 -> 14 -> 28
        self.up_blocks = nn.ModuleList(UpBlock(*pair, config.blocks, context) for pair in widths)
        self.norm = nn.GroupNorm(NORM_GROUPS, narrow)
        self.conv_out = nn.Conv2d(narrow, 1, 3, padding=1)

    def forward(self, z: Tensor, class_token: Tensor | None = None) -> Tensor:
        x = self.conv_in(z) + self.position  # (B, wide, 7, 7)
        context = to_tokens(x)  # (B, 49, wide): the latent's tokens, which every UpBlock sees
        if class_token is not None:
            context = torch.cat([context, class_token], dim=1)
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x, context)
        return torch.tanh(self.conv_out(F.silu(self.norm(x))))


class VAE(Pretrained):
    """Variational autoencoder for 28x28 grey images (Kingma & Welling 2014; Rezende et al. 2014).

    The only path from an image to its reconstruction is the latent z (and the label, where
    `config.num_classes` is set). The prior is N(0, I). A global latent passes through `couplings`
    on its way to the decoder, and through their inverse on its way from the encoder.
    """

    config_type = VAEConfig

    def __init__(self, config: VAEConfig | None = None):
        super().__init__(config)
        config = self.config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        if config.num_classes:
            self.class_embedding = nn.Embedding(config.num_classes, config.channels[-1])
        shaped = config.latent_grid == 1 and config.latent_size > 1 and config.variational
        sizes = config.latent_size, config.channels[-1] if config.num_classes else 0
        count = config.couplings if shaped else 0
        self.couplings = Couplings(Coupling(*sizes) for _ in range(count))
        self.to(memory_format=torch.channels_last)

    def forward(
        self, x: Tensor, labels: Labels = None, noise: Tensor | None = None
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Reconstruction through one sample of q(z|x), and the posterior, for training.

        `x`: (B, 1, 28, 28) in [-1, 1]; `noise`: (B, C, G, G), drawn if None. Raises `ValueError` as
        `encode` does, but in training does not wait for a GPU to look at values.
        """
        check_images(x, "x", values=self._looks_at(x))
        token = self.class_token(labels, len(x))
        posterior = self._posterior(x, token)
        return self._decode(posterior.sample(noise), token), posterior

    def encode(self, x: Tensor, labels: Labels = None) -> DiagonalGaussian:
        """The posterior q(z|x) for `x`: (B, 1, 28, 28) in [-1, 1], of any floating-point type.

        `labels`, of a conditional model: whole numbers (B,), or one for all. Raises `ValueError`
        for images of another shape, type or range, and labels that do not fit.
        """
        check_images(x, "x", hint=True)
        return self._posterior(x, self.class_token(labels, len(x)))

    def decode(self, z: Tensor, labels: Labels = None) -> Tensor:
        """Images (B, 1, 28, 28) in [-1, 1] for latents `z`: (B, C, G, G). Raises `ValueError`."""
        check_floats(z, "z", ("B", *self.config.latent_shape))
        token = self.class_token(labels, len(z))
        return self._decode(z.to(self.device), token)

    @torch.no_grad()
    def sample(self, n: int, labels: Labels = None, generator: torch.Generator | None = None,
               prior: nn.Module | None = None) -> Tensor:  # fmt: skip
        """`n` images (n, 1, 28, 28) in [-1, 1], decoded from draws of the prior.

        `prior`: a `vae.LatentPrior` that was trained on this model's latents; None: N(0, I).
        `labels`: the digits wanted, whole numbers (n,) or one for all, from a conditional model or
        a learned prior. `generator`: a CPU generator, so that a seed gives the same latents on
        every device. Raises `ValueError`.
        """
        if not hasattr(prior, "sample") and prior is not None:
            raise ValueError(f"prior={prior!r} is not allowed: a LatentPrior, or None")
        n, conditional = as_count(n, "n"), self.config.num_classes > 0
        given = self._labels(labels if prior is None or conditional else None, n)
        shape = (n, *self.config.latent_shape)
        drawn = prior is None
        z = gaussian(*shape, generator=generator) if drawn else prior.sample(n, labels, generator)
        if z.shape != shape:
            raise ValueError(f"prior draws latents {tuple(z.shape[1:])}; {shape[1:]} is expected")
        return torch.cat([self.decode(*part) for part in batches(BATCH, z, given)])

    def marginal_nll(self, z: Tensor, labels: Labels = None) -> Tensor:
        """`Couplings.marginal_nll` of latents `z`: (B, C, G, G), in nats: (B,)."""
        check_floats(z, "z", ("B", *self.config.latent_shape), values=not self.training)
        token = self.class_token(labels, len(z))
        return self.couplings.marginal_nll(z.to(self.device), token)

    @property
    def device(self) -> torch.device:
        """Where the weights are. Images, latents and labels are moved there."""
        return self.decoder.position.device

    def _posterior(self, x: Tensor, token: Tensor | None) -> DiagonalGaussian:
        x = x.to(self.decoder.position)  # the weights' type, where they are
        mean, logvar = at_least_float32(self.encoder(x, token)).chunk(2, dim=1)
        mean = self.couplings.inverse(mean, token)
        if not self.config.variational:  # a point: no width, and an infinite rate
            return DiagonalGaussian(mean, torch.full_like(mean, -torch.inf))
        return DiagonalGaussian(mean, LOGVAR_BOUND * torch.tanh(logvar / LOGVAR_BOUND))

    def _decode(self, z: Tensor, token: Tensor | None) -> Tensor:
        return self.decoder(self.couplings(z, token).to(self.decoder.position), token)

    def _looks_at(self, given: object) -> bool:
        """Whether values are checked: always, but that in training a GPU is not waited for."""
        return not self.training or getattr(given, "is_cpu", True)

    def _labels(self, labels: Labels, batch: int) -> Tensor | None:
        """int64 (B,), or None for a model that is not conditional. Raises `ValueError`."""
        classes = self.config.num_classes
        if (labels is not None) != bool(classes):
            given = f"labels={'None' if labels is None else 'given'}, but num_classes={classes}"
            raise ValueError(f"{given}: a conditional model needs labels, any other takes none")
        if labels is None:
            return None
        return as_labels(labels, batch, classes, self._looks_at(labels)).to(self.device)

    def class_token(self, labels: Labels, batch: int) -> Tensor | None:
        """The embedded labels, (B, 1, channels[-1]), or None. Raises as `_labels`."""
        labels = self._labels(labels, batch)
        return None if labels is None else self.class_embedding(labels).unsqueeze(1)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
