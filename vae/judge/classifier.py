"""A classifier of MNIST's digits."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_store.modules import Pretrained
from vae_store.settings import check_options, option

from ..blocks import NORM_GROUPS, check_widths
from ..checks import MNIST_SHAPE, check_images

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class JudgeConfig:
    """What the classifier is made of."""

    channels: tuple[int, ...] = option((24, 48, 80), "widths at 28x28, 14x14 and 7x7", 1, 1024)
    features: int = option(64, "width of the layer before the last", 1, 1024)

    def __post_init__(self):
        check_options(self)
        check_widths(self.channels)


class Judge(Pretrained):
    """A convolutional network that names an image's digit; `tools/train_judge.py` trains it."""

    config_type = JudgeConfig

    def __init__(self, config: JudgeConfig | None = None):
        super().__init__(config)
        config = self.config
        narrow, middle, wide = config.channels
        layers = [*_convolution(1, narrow), nn.MaxPool2d(2)]
        layers += [*_convolution(narrow, middle), *_convolution(middle, middle), nn.MaxPool2d(2)]
        layers += [*_convolution(middle, wide), *_convolution(wide, wide), nn.MaxPool2d(2)]  # 3x3
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(9 * wide, config.features))
        self.classify = nn.Linear(config.features, 10)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, (B, features), for images `x`: (B, 1, 28, 28) in [-1, 1].

        Raises `ValueError` for images of another shape, type or, outside of training, range.
        """
        check_images(x, "x", shape=MNIST_SHAPE, values=not self.training)
        return F.silu(self.layers(x.to(self.classify.weight)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the ten digits, (B, 10), for images `x`: (B, 1, 28, 28) in [-1, 1]."""
        return self.classify(self.features(x))

    @classmethod
    def from_pretrained(cls, directory: str | Path = FOLDER,
                        revision: str | None = None) -> "Judge":  # fmt: skip
        """The judge that ships with the package, or another. Raises `FileError` naming a file."""
        return super().from_pretrained(directory, revision)


def _convolution(channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    norm = nn.GroupNorm(NORM_GROUPS, out_channels)
    return nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), norm, nn.SiLU()
