"""Scores of digits by two judges, and many digits through an encoder or a decoder."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from common import ASSETS
from prdc import compute_prdc
from torch import Tensor, nn

from vae import VAE, Judge, judge_images, load_digits, scale_images
from vae.blocks import NORM_GROUPS, DownBlock, MidBlock
from vae.data import batches
from vae.machinery.judge import judge_features
from vae.machinery.machine import choose_device
from vae.pretrained import Pretrained
from vae.settings import check_options, option

DEVICE = choose_device()
SAMPLES = 10_000  # generated digits that are scored
CHUNK = 500  # images at once
SECOND = ASSETS / "second_judge"
NEIGHBOURS = 5  # the last of them bounds a feature's neighbourhood
OF_SECOND = ("fid", "recognised", "accuracy", "precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class SecondJudgeConfig:
    """The widths of the second judge."""

    channels: tuple[int, ...] = option((24, 48), "widths at 14x14 and 7x7", 8, 1024)
    features: int = option(64, "width of the layer before the last", 1, 1024)

    def __post_init__(self):
        check_options(self)


class SecondJudge(Pretrained):
    """A classifier of another architecture, so that no score depends on one network alone.

    A residual network halves maps by strides and ends in a mean over all positions. The package's
    judge has neither: it is plain convolutions, maxima and a layer over the whole map.
    """

    config_type = SecondJudgeConfig

    def __init__(self, config: SecondJudgeConfig | None = None):
        super().__init__(config)
        narrow, wide = self.config.channels
        self.layers = nn.Sequential(
            DownBlock(1, narrow, 2), DownBlock(narrow, wide, 2),  # 28 -> 14 -> 7
            MidBlock(wide, self_attention=False), nn.GroupNorm(NORM_GROUPS, wide), nn.SiLU(),
        )  # fmt: skip
        self.embed = nn.Linear(wide, self.config.features)
        self.classify = nn.Linear(self.config.features, 10)

    @classmethod
    def from_pretrained(cls, directory: str | Path = SECOND) -> "SecondJudge":
        return super().from_pretrained(directory)

    def features(self, x: Tensor) -> Tensor:
        """The input of the last layer, (B, features), for images `x`: (B, 1, 28, 28) in [-1, 1]."""
        return F.silu(self.embed(self.layers(x.to(self.classify.weight)).mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the ten digits, (B, 10), for images `x`: (B, 1, 28, 28) in [-1, 1]."""
        return self.classify(self.features(x))


@torch.no_grad()
def judged_twice(images: Tensor, labels: Tensor | None = None, copies: bool = True) -> dict:
    """The judge's scores and, as "second", those of the other; `copies`: look for copies.

    `images`: (N, 1, 28, 28) in [-1, 1], the digits `labels`: (N,), if those are known.
    """
    real, found = load_digits("test").images, []
    neighbours = load_digits("train").images.to(images.device) if copies else None
    for judge in (Judge.from_pretrained(), SecondJudge.from_pretrained()):
        judge = judge.to(images.device)
        scores = judge_images(images, labels, judge=judge, neighbours=neighbours)
        found.append(scores | neighbourhoods(*(judge_features(judge, x) for x in (real, images))))
        neighbours = None  # they are compared by their pixels, in which no judge has a part
    first, second = found
    return first | {"second": {key: second[key] for key in OF_SECOND if key in second}}


def neighbourhoods(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Precision, recall, density and coverage (Naeem et al. 2020) of features, by their authors.

    In float32, 10,000 features of each kind take about 1.3 GB of memory for their distances.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how many there are
        found = compute_prdc(real.float().numpy(), fake.float().numpy(), nearest_k=NEIGHBOURS)
    return {key: float(value) for key, value in found.items()}


def seeded() -> torch.Generator:
    """The generator of every measurement's noise."""
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def encode(model: VAE, images: Tensor, generator: torch.Generator,
           labels: Tensor | None = None) -> Tensor:  # fmt: skip
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
