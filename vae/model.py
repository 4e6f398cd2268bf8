"""The variational autoencoder: config, posterior, encoder, decoder, and the two together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_store.modules import Pretrained
from vae_store.settings import check_options, option

from .blocks import NORM_GROUPS, DownBlock, MidBlock, UpBlock, check_widths, to_tokens
from .checks import MNIST_SHAPE, as_count, as_labels, check_floats, check_images, gaussian, uniform
from .couplings import Coupling, Couplings
from .data import BATCH, batches, binarise
from .posterior import CoupledGaussian, DiagonalGaussian, at_least_float32

Labels = Tensor | Sequence[int] | int | None  # or a NumPy array
Posterior = DiagonalGaussian | CoupledGaussian
LARGEST = 64  # height and width of an image
COUPLED_ABOVE = 2  # values; of two it costs 1 % of the ELBO
LOGVAR_BOUND = 15.0  # keeps exp(logvar / 2) between 5.5e-4 and 1.8e3: representable in fp16


@dataclass(frozen=True)
class VAEConfig:
    """What a VAE is made of. An image's latent is (latent_size, latent_grid, latent_grid).

    `image_channels`, `image_size` and `latent_grid` that are None become those of MNIST, until
    `fitted` makes them those of other images.
    """

    before: ClassVar = {"posterior": "diagonal", "image_size": 28, "image_channels": 1}  # of a file
    latent_size: int = option(2, "channels of the latent", 1, 64)
    latent_grid: int | None = option(
        None, "height and width of the latent: 1, a global latent, or a quarter of the image's; "
        "default: a quarter", choices=(1, *range(MNIST_SHAPE[1] // 4, LARGEST // 4 + 1)),
        kind=int)  # fmt: skip
    channels: tuple[int, ...] = option(
        (16, 32, 64), "widths at full size, at a half and at a quarter of it", 8, 1024
    )
    blocks: int = option(1, "residual blocks in each DownBlock and UpBlock", 1, 8)
    self_attention: bool = option(True, "self-attention at a quarter of the size")
    cross_attention: bool = option(True, "UpBlocks attend to the latent's tokens")
    num_classes: int = option(0, "classes of a conditional model; 0: not conditional", 0, 1000)
    couplings: int = option(
        12, "invertible layers that shape a global latent of two values or more", 0, 64
    )
    posterior: str | None = option(
        None, "whether q(z|x) is a Gaussian of z (diagonal) or of what the decoder sees (coupled); "
        "default: coupled above 2 values", choices=("diagonal", "coupled"), kind=str)  # fmt: skip
    variational: bool = option(True, "or a plain autoencoder: no draw, z is the mean; beta 0")
    likelihood: str = option(
        "calibrated", "p(x|z) of grey pixels, a Gaussian with its variance at the optimum; or "
        "bernoulli, of pixels drawn black or white", choices=("calibrated", "bernoulli")
    )  # fmt: skip
    image_size: int | None = option(
        None, "height and width of an image, a multiple of 4; default: 28, or the data set's, "
        "which is 32 for your own pictures", MNIST_SHAPE[1], LARGEST, kind=int)  # fmt: skip
    image_channels: int | None = option(None, "1: grey, 3: RGB; default: as the images are",
                                        choices=(1, 3), kind=int)  # fmt: skip

    def __post_init__(self):
        check_options(self)
        self._decide(self.latent_grid or 0)
        check_widths(self.channels)
        if self.num_classes and not self.cross_attention:
            given = f"num_classes={self.num_classes}"
            raise ValueError(f"{given} needs cross_attention=True, by which labels enter")
        chosen = self.posterior or ("coupled" if self.latent_size > COUPLED_ABOVE else "diagonal")
        object.__setattr__(self, "posterior", chosen if self.coupling_count else "diagonal")

    def _decide(self, grid: int) -> None:
        """Size and channels of images where they are None; `left_open` names them for `fitted`."""
        channels, size, _ = MNIST_SHAPE
        chosen = {"image_channels": channels, "image_size": 4 * grid if grid > 1 else size}
        left_open = {name for name in (*chosen, "latent_grid") if getattr(self, name) is None}
        for name in left_open & chosen.keys():
            object.__setattr__(self, name, chosen[name])
        if self.image_size % 4:
            raise ValueError(f"image_size={self.image_size} is not allowed: a multiple of 4")
        if grid not in (0, 1, self.image_size // 4):
            given = f"latent_grid={grid} is not allowed with image_size={self.image_size}"
            raise ValueError(f"{given}: 1, or a quarter of it, {self.image_size // 4}")
        object.__setattr__(self, "latent_grid", grid or self.image_size // 4)
        object.__setattr__(self, "left_open", left_open - ({"image_size"} if grid > 1 else set()))

    def fitted(self, channels: int | None, size: int) -> "VAEConfig":
        """The config for images of so many channels and this size, in what it leaves open."""
        of_images = {"image_channels": channels, "image_size": size, "latent_grid": None}
        return replace(self, **{name: of_images[name] for name in self.left_open})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.image_channels, self.image_size, self.image_size

    @property
    def map_size(self) -> int:
        """Height and width of the smallest feature map, after two halvings."""
        return self.image_size // 4

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
    """Images (B, *image_shape) to the posterior's mean and raw log-variance, (B, 2C, G, G)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        _, middle, wide = config.channels
        context = wide if config.num_classes else 0
        down1 = DownBlock(config.image_channels, middle, config.blocks, context_channels=context)
        down2 = DownBlock(middle, wide, config.blocks, config.self_attention, context)
        self.down_blocks = nn.ModuleList([down1, down2])  # 28 -> 14 -> 7, say
        self.mid_block = MidBlock(wide, config.self_attention)
        self.norm = nn.GroupNorm(NORM_GROUPS, wide)
        # 1x1 for a grid; for a global latent, one window over the whole map
        window = config.map_size // config.latent_grid
        self.conv_out = nn.Conv2d(wide, 2 * config.latent_size, window)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for block in self.down_blocks:
            x = block(x, context)
        return self.conv_out(F.silu(self.norm(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents (B, C, G, G) to images (B, *image_shape) in [-1, 1]."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        narrow, middle, wide = config.channels
        context = wide if config.cross_attention else 0
        side = config.map_size
        self.conv_in = nn.ConvTranspose2d(config.latent_size, wide, side // config.latent_grid)
        self.position = nn.Parameter(0.02 * torch.randn(1, wide, side, side))
        self.mid_block = MidBlock(wide, config.self_attention)
        widths = (wide, middle), (middle, narrow)  # 7 -> 14 -> 28, say
        self.up_blocks = nn.ModuleList(UpBlock(*pair, config.blocks, context) for pair in widths)
        self.norm = nn.GroupNorm(NORM_GROUPS, narrow)
        self.conv_out = nn.Conv2d(narrow, config.image_channels, 3, padding=1)
        self.precise = config.likelihood == "bernoulli"  # in half precision, 0.1 % would be 0

    def forward(self, z: Tensor, class_token: Tensor | None = None) -> Tensor:
        x = self.conv_in(z) + self.position  # (B, wide, 7, 7) for 28x28 images
        context = to_tokens(x)  # (B, 49, wide), say: the latent's tokens, which every UpBlock sees
        if class_token is not None:
            context = torch.cat([context, class_token], dim=1)
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x, context)
        x = self.conv_out(F.silu(self.norm(x)))
        return torch.tanh(at_least_float32(x) if self.precise else x)


class VAE(Pretrained):
    """Variational autoencoder for small images (Kingma & Welling 2014; Rezende et al. 2014).

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

        `x`: (B, *image_shape) in [-1, 1]; `noise`: (B, C, G, G), drawn if None. Raises `ValueError`
        as `encode` does, but in training does not wait for a GPU to look at values.
        """
        check_images(x, "x", shape=self.config.image_shape, values=self._looks_at(x))
        token = self.class_token(labels, x.shape[0])
        posterior = self._posterior(x, token)
        u = self.decoder_input(posterior.gaussian.sample(noise), token)
        return self._decode(u, token), posterior

    def encode(self, x: Tensor, labels: Labels = None) -> Posterior:
        """The posterior q(z|x) for `x`: (B, *image_shape) in [-1, 1], of any floating-point type.

        `labels`, of a conditional model: whole numbers (B,), or one for all. Raises `ValueError`
        for images of another shape, type or range, and labels that do not fit.
        """
        check_images(x, "x", shape=self.config.image_shape, hint=True)
        return self._posterior(x, self.class_token(labels, x.shape[0]))

    def decode(self, z: Tensor, labels: Labels = None) -> Tensor:
        """Images (B, *image_shape) in [-1, 1] of latents `z`: (B, C, G, G). Raises `ValueError`."""
        check_floats(z, "z", ("B", *self.config.latent_shape))
        token = self.class_token(labels, z.shape[0])
        return self._decode(self.couplings(z.to(self.device), token), token)

    @torch.no_grad()
    def sample(self, n: int, labels: Labels = None, generator: torch.Generator | None = None,
               prior: nn.Module | None = None) -> Tensor:  # fmt: skip
        """`n` images (n, *image_shape) in [-1, 1], decoded from draws of the prior.

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

    def observed(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the likelihood is of: `x`, or if it is Bernoulli's, `x` with binarised pixels."""
        if self.config.likelihood == "calibrated":
            return x
        return binarise(x, uniform(*x.shape, generator=generator))

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

    def _labels(self, labels: Labels, batch: int, values: bool = True) -> Tensor | None:
        """int64 (B,), or None for a model that is not conditional. Raises `ValueError`."""
        classes = self.config.num_classes
        if (labels is not None) != bool(classes):
            given = f"labels={'None' if labels is None else 'given'}, but num_classes={classes}"
            raise ValueError(f"{given}: a conditional model needs labels, any other takes none")
        if labels is None:
            return None
        return as_labels(labels, batch, classes, values and self._looks_at(labels)).to(self.device)

    def class_token(self, labels: Labels, batch: int, values: bool = True) -> Tensor | None:
        """The embedded labels, (B, 1, channels[-1]), or None. `values`: whether to check them."""
        labels = self._labels(labels, batch, values)
        return None if labels is None else self.class_embedding(labels).unsqueeze(1)
