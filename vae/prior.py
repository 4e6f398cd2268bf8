"""A learned prior over the latents, maps of 7x7 or more, of a trained VAE, by flow matching.

A network learns the velocity that carries noise to latents along straight lines; to sample is to
follow it from t = 0, N(0, I), to t = 1 (Lipman et al., "Flow Matching for Generative Modeling",
2023; Liu et al., "Flow Straight and Fast", 2023).
"""

import math
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_store.checkpoint import PRIOR_CHECKPOINT_NAME
from vae_store.modules import Pretrained
from vae_store.settings import check_options, option

from .blocks import NORM_GROUPS, MidBlock, zero
from .checks import as_count, as_labels, check_floats, check_generator, gaussian
from .data import BATCH, batches
from .model import Labels
from .posterior import at_least_float32

FREQUENCIES = 32  # of the time's sines and cosines


@dataclass(frozen=True)
class PriorConfig:
    """What a learned prior is made of."""

    latent_size: int = option(4, "channels of the latent, as the VAE has them", 1, 64)
    num_classes: int = option(10, "classes it can be asked for; trained, those of the data",
                              1, 1000, decides=False)  # fmt: skip
    channels: int = option(64, "width of the network", 8, 1024)
    blocks: int = option(3, "MidBlocks, one after the other", 1, 16)
    steps: int = option(8, "of Heun's method, two evaluations each", 1, 25)
    guidance: float = option(1.25, "1: the learned distribution; more: clearer, less varied", 1, 20)
    latent_grid: int = option(7, "height and width of the latent, as the VAE has it", 7, 16)

    def __post_init__(self):
        check_options(self)
        if self.channels % NORM_GROUPS:
            raise ValueError(f"channels={self.channels} is not allowed: a multiple of 8")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.latent_size, self.latent_grid, self.latent_grid


class LatentPrior(Pretrained):
    """p(z | label): draws latents (C, G, G) of the VAE that it was trained on and lies beside."""

    config_type = PriorConfig
    config_name = "prior.json"
    weights_name = "prior.safetensors"
    checkpoint_name = PRIOR_CHECKPOINT_NAME

    def __init__(self, config: PriorConfig | None = None):
        super().__init__(config)
        config = self.config
        width = config.channels
        # inside, latents are standardised, each channel by its own numbers
        self.register_buffer("mean", torch.zeros(config.latent_size, 1, 1))
        self.register_buffer("std", torch.ones(config.latent_size, 1, 1))
        layers = nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        self.time_embedding = nn.Sequential(*layers)
        self.class_embedding = nn.Embedding(config.num_classes + 1, width)  # the last: any class
        self.conv_in = nn.Conv2d(config.latent_size, width, 3, padding=1)
        self.position = nn.Parameter(0.02 * torch.randn(1, width, *config.latent_shape[1:]))
        blocks = (MidBlock(width, embedding_channels=width) for _ in range(config.blocks))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.GroupNorm(NORM_GROUPS, width)
        self.conv_out = zero(nn.Conv2d(width, config.latent_size, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The velocity at standardised latents `z`, (B, C, G, G), and times `t`: (B,) in [0, 1].

        `labels`: int64 (B,); `num_classes` stands for any class. Returns (B, C, G, G). Raises
        `ValueError` for other shapes and types, and outside of training for other values.
        """
        values = not self.training
        check_floats(z, "z", ("B", *self.latent_shape), values)
        check_floats(t, "t", (z.shape[0],), values)
        labels = as_labels(labels, z.shape[0], self.config.num_classes + 1, values)
        waves = time_waves(t.float()).to(self.position)  # first in float32, which is fine enough
        embedding = self.time_embedding(waves) + self.class_embedding(labels.to(waves.device))
        x, embedding = self.conv_in(z.to(self.position)) + self.position, F.silu(embedding)
        for block in self.blocks:
            x = block(x, embedding)
        return self.conv_out(F.silu(self.norm(x)))

    def loss(self, latents: Tensor, noise: Tensor, t: Tensor, labels: Tensor,
             network: nn.Module | None = None) -> Tensor:  # fmt: skip
        """Mean squared error of the velocity, of which E[latent - noise | z_t] is the minimum.

        `latents`, `noise`: (B, C, G, G), the former as the encoder has them; z_t is the point at
        `t`: (B,) on the line from noise to latent (Lipman et al. 2023, eq. 23 with sigma_min 0).
        `network`: this prior as several processes share it, or None. Raises `ValueError`.
        """
        check_floats(latents, "latents", ("B", *self.latent_shape), not self.training)
        check_floats(noise, "noise", tuple(latents.shape), not self.training)
        check_floats(t, "t", (len(latents),), not self.training)
        latents = (latents.to(self.mean) - self.mean) / self.std
        noise, t = noise.to(latents), t.to(latents)
        at = torch.lerp(noise, latents, t[:, None, None, None])
        return F.mse_loss((network or self)(at, t, labels), latents - noise)

    @torch.no_grad()
    def sample(self, n: int, labels: Labels = None, generator: torch.Generator | None = None,
               *, noise: Tensor | None = None, steps: int | None = None,
               guidance: float | None = None) -> Tensor:  # fmt: skip
        """`n` latents (n, C, G, G), as the VAE's decoder takes them.

        `labels`: the classes wanted, whole numbers (n,), or one for all; None: each drawn, all
        equally likely.
        `generator`: a CPU generator, which decides the draw. `noise`: (n, C, G, G), in its place.
        `steps`, `guidance`: in place of the config's. Guidance w follows
        v(any) + w (v(label) - v(any)) (Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022);
        1 costs half as much. Raises `ValueError`.
        """
        config, device = self.config, self.position.device
        n, steps = as_count(n, "n"), as_count(config.steps if steps is None else steps, "steps")
        guidance = config.guidance if guidance is None else guidance
        if not isinstance(guidance, Real) or not 0 <= guidance < math.inf:
            raise ValueError(f"guidance={guidance!r} is not allowed: a finite number, at least 0")
        check_generator(generator)
        if labels is None:
            labels = torch.randint(config.num_classes, (n,), generator=generator, device="cpu")
        labels = as_labels(labels, n, config.num_classes)
        if noise is None:
            noise = gaussian(n, *self.latent_shape, generator=generator)
        check_floats(noise, "noise", (n, *self.latent_shape))
        parts = batches(BATCH, at_least_float32(noise.to(device)), labels.to(device))
        z = torch.cat([self._follow(*part, steps, guidance) for part in parts])
        return z * self.std + self.mean

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.config.latent_shape

    def _follow(self, z: Tensor, labels: Tensor, steps: int, guidance: float) -> Tensor:
        """Carry standardised latents from t = 0 to 1 by Heun's method, `steps` steps."""

        def velocity(z: Tensor, t: float) -> Tensor:
            times = torch.full((len(z),), t, device=z.device, dtype=z.dtype)
            if guidance == 1:
                return self(z, times, labels)
            any_class = torch.full_like(labels, self.config.num_classes)
            both = self(z.repeat(2, 1, 1, 1), times.repeat(2), torch.cat([any_class, labels]))
            return torch.lerp(*both.chunk(2), guidance)

        for step in range(steps):
            v = velocity(z, step / steps)
            v_there = velocity(z + v / steps, (step + 1) / steps)
            z = z + (v + v_there) / (2 * steps)
        return z


def time_waves(t: Tensor) -> Tensor:
    """Times (B,) in [0, 1] as sines and cosines, (B, 64), like Vaswani et al. 2017, section 3.5."""
    frequencies = torch.logspace(0, 3, FREQUENCIES, device=t.device, dtype=t.dtype)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
