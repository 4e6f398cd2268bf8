"""A second judge, of another architecture, so that no score hangs on one network."""

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from common import ASSETS
from torch import Tensor, nn

from vae.blocks import NORM_GROUPS, DownBlock, MidBlock
from vae_store.modules import Pretrained
from vae_store.settings import check_options, option

FOLDER = ASSETS / "second_judge"


@dataclass(frozen=True)
class SecondJudgeConfig:
    """What the second judge is made of."""

    channels: tuple[int, ...] = option((24, 48), "widths at 14x14 and 7x7", 8, 1024)
    features: int = option(64, "width of the layer before the last", 1, 1024)

    def __post_init__(self):
        check_options(self)


class SecondJudge(Pretrained):
    """A residual network that halves maps by strides and ends in a mean over all places.

    The package's judge has neither: it is plain convolutions, maxima and a layer over the whole
    map.
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
    def from_pretrained(cls, directory: str | Path = FOLDER) -> "SecondJudge":
        return super().from_pretrained(directory)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, (B, features), for images `x`: (B, 1, 28, 28) in [-1, 1]."""
        return F.silu(self.embed(self.layers(x.to(self.classify.weight)).mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the ten digits, (B, 10), for images `x`: (B, 1, 28, 28) in [-1, 1]."""
        return self.classify(self.features(x))
