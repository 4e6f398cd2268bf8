"""The variational autoencoder: config, posterior, encoder, decoder, and the two together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_store.modules import Pretrained
from vae_store.settings import check_options, option

from .blocks import NORM_GROUPS, DownBlock, MidBlock, UpBlock, check_widths, to_tokens
from .checks import as_count, as_labels, check_floats, check_images, gaussian
from .couplings import Coupling, Couplings
from .data import BATCH, batches
from .posterior import CoupledGaussian, DiagonalGaussian, at_least_float32

MAP_SIZE = 7  # the smallest feature map, after two halvings of 28
Labels = Tensor | Sequence[int] | int | None  # or a NumPy array
Posterior = DiagonalGaussian | CoupledGaussian
COUPLED_ABOVE = 2  # values; of two it costs 1 % of the ELBO
LOGVAR_BOUND = 15.0  # keeps exp(logvar / 2) between 5.5e-4 and 1.8e3: representable in fp16


@dataclass(frozen=True)
class VAEConfig:
    """What a VAE is made of. An image's latent is (latent_size, latent_grid, latent_grid)."""

    before: ClassVar = {"posterior": "diagonal"}  # of a file that does not say
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
    posterior: str | None = option(
        None, "whether q(z|x) is a Gaussian of z (diagonal) or of what the decoder sees (coupled); "
        "default: coupled above 2 values", choices=("diagonal", "coupled"), kind=str)  # fmt: skip
    variational: bool = option(True, "or a plain autoencoder: no draw, z is the mean; beta 0")

    def __post_init__(self):
        check_options(self)
        check_widths(self.channels)
        if self.num_classes and not self.cross_attention:
            given = f"num_classes={self.num_classes}"
            raise ValueError(f"{given} needs cross_attention=True, by which labels enter")
        chosen = self.posterior or ("coupled" if self.latent_size > COUPLED_ABOVE else "diagonal")
        object.__setattr__(self, "posterior", chosen if self.coupling_count else "diagonal")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.latent_size, self.latent_grid, self.latent_grid

    @property
    def latent_values(self) -> int:
        """How many numbers one image becomes: C * G * G."""
        return self.latent_size * self.latent_grid**2

    @property
    def coupling_count(self) -> int:
        """How many there are: none where they could do nothing, or nothing would train them."""
        shaped = self.latent_grid == 1 and self.latent_size > 1 and self.variational
        return self.couplings if shaped else 0


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
    `config.num_classes` is set). The prior is N(0, I). Before the decoder, a global latent passes
    through `couplings`, and behind the encoder through their inverse.
    """

    config_type = VAEConfig

    def __init__(self, config: VAEConfig | None = None):
        super().__init__(config)
        config = self.config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        if config.num_classes:
            self.class_embedding = nn.Embedding(config.num_classes, config.channels[-1])
        sizes = config.latent_size, config.channels[-1] if config.num_classes else 0
        self.couplings = Couplings(Coupling(*sizes) for _ in range(config.coupling_count))
        self.to(memory_format=torch.channels_last)

    def forward(
        self, x: Tensor, labels: Labels = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Posterior]:
        """Reconstruction through one sample of q(z|x), and the posterior, for training.

        `x`: (B, 1, 28, 28) in [-1, 1]; `noise`: (B, C, G, G), drawn if None. Raises `ValueError` as
        `encode` does, but in training does not wait for a GPU to look at values.
        """
        check_images(x, "x", values=self._looks_at(x))
        token = self.class_token(labels, x.shape[0])
        posterior = self._posterior(x, token)
        u = self.decoder_input(posterior.gaussian.sample(noise), token)
        return self._decode(u, token), posterior

    def encode(self, x: Tensor, labels: Labels = None) -> Posterior:
        """The posterior q(z|x) for `x`: (B, 1, 28, 28) in [-1, 1], of any floating-point type.

        `labels`, of a conditional model: whole numbers (B,), or one for all. Raises `ValueError`
        for images of another shape, type or range, and labels that do not fit.
        """
        check_images(x, "x", hint=True)
        return self._posterior(x, self.class_token(labels, x.shape[0]))

    def decode(self, z: Tensor, labels: Labels = None) -> Tensor:
        """Images (B, 1, 28, 28) in [-1, 1] for latents `z`: (B, C, G, G). Raises `ValueError`."""
        check_floats(z, "z", ("B", *self.config.latent_shape))
        token = self.class_token(labels, z.shape[0])
        return self._decode(self.couplings(z.to(self.device), token), token)

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

    @property
    def device(self) -> torch.device:
        """Where the weights are. Images, latents and labels are moved there."""
        return self.decoder.position.device

    def _posterior(self, x: Tensor, token: Tensor | None) -> Posterior:
        x = x.to(self.decoder.position)  # the weights' type, where they are
        mean, logvar = at_least_float32(self.encoder(x, token)).chunk(2, dim=1)
        if not self.config.variational:  # a point: no width, and an infinite rate
            return DiagonalGaussian(mean, torch.full_like(mean, -torch.inf))
        logvar = LOGVAR_BOUND * torch.tanh(logvar / LOGVAR_BOUND)
        if self.config.posterior == "coupled":
            return CoupledGaussian(DiagonalGaussian(mean, logvar), self.couplings, token)
        return DiagonalGaussian(self.couplings.inverse(mean, token)[0], logvar)

    def decoder_input(self, drawn: Tensor, token: Tensor | None) -> Tensor:
        """What the decoder sees of a draw of a posterior's `gaussian`, (B, C, G, G)."""
        return drawn if self.config.posterior == "coupled" else self.couplings(drawn, token)

    def _decode(self, u: Tensor, token: Tensor | None) -> Tensor:
        return self.decoder(u.to(self.decoder.position), token)

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
