"""LPIPS: the distance of two images in the features of VGG16, weighted by human judgement.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
Two sets of weights, neither of which is part of this package:

* "shift_tolerant" (Ghildyal & Liu, ECCV 2022), from the PyPI package `stlpips_pytorch`. Its pooling
  is anti-aliased (Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019).
* "v0.1" (the original): linear weights from the PyPI package `lpips`, on torchvision's VGG16, which
  torchvision downloads once (528 MB).
"""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from vae_store import published

from .checks import MNIST_SHAPE, check_images, check_pair

VARIANTS = ("shift_tolerant", "v0.1")
STAGES = ((3, 64, 64), (64, 128, 128),  # channels before and after each of VGG16's convolutions
          (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))  # fmt: skip


class LPIPS(nn.Module):
    """Learned perceptual distance; frozen, in evaluation mode for good.

    `pretrained=False` leaves random weights (for tests). Raises `ValueError` for an unknown variant
    and `FileError` (a `ValueError`) when its weights are not installed, are not the published ones
    or cannot be downloaded.
    """

    def __init__(self, variant: str = "shift_tolerant", pretrained: bool = True):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is not one of {VARIANTS}")
        self.antialiased = variant == "shift_tolerant"
        # weights that are about to be replaced draw no random numbers
        conv = partial(skip_init, nn.Conv2d) if pretrained else nn.Conv2d
        draw = torch.empty if pretrained else torch.rand
        with torch.device("cpu"):
            self.stages = nn.ModuleList(
                nn.ModuleList(conv(*pair, 3, padding=1) for pair in pairwise(widths))
                for widths in STAGES
            )
            self.linear = nn.ParameterList(draw(1, widths[-1], 1, 1) for widths in STAGES)
            # mean and spread of ImageNet's colours, for images in [-1, 1]
            shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
            scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
            blur = torch.tensor([1.0, 2.0, 1.0]) / 4
            blur = torch.outer(blur, blur).view(1, 1, 3, 3)
        for name, buffer in (("shift", shift), ("scale", scale), ("blur", blur)):
            self.register_buffer(name, buffer, persistent=False)
        if pretrained:
            _load_weights(self, variant)
        self.requires_grad_(False).eval()
        self.to(dtype=torch.float32, memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (B,), at least 0, of `x` and `y`: (B, 1 or 3, H, W) in [-1, 1].

        Height and width are 28 or more. Raises `ValueError` for images of another shape or type,
        and unless `y` requires a gradient, as in training, of another range.
        """
        values = not getattr(y, "requires_grad", False)
        check_pair(x, y, smallest=MNIST_SHAPE[1], values=values)
        stages = zip(self._features(x), self._features(y), self.linear, strict=True)
        return sum((weight * (a - b).square()).sum(1).mean((1, 2)) for a, b, weight in stages)

    def features(self, x: Tensor) -> list[Tensor]:
        """The five stages' features of `x`, as for `forward`: float32, of unit length."""
        check_images(x, "x", smallest=MNIST_SHAPE[1])
        return self._features(x)

    def _features(self, x: Tensor) -> list[Tensor]:
        x = x.to(self.stages[0][0].weight)
        x, features = (x.expand(-1, 3, -1, -1) - self.shift) / self.scale, []
        for i, stage in enumerate(self.stages):
            x = self._pool(x) if i else x
            for conv in stage:
                x = F.relu(conv(x))
            h = x.float()
            features.append(h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10))
        return features

    def train(self, mode: bool = True) -> "LPIPS":
        """Stays in evaluation mode, whatever the module that holds it does."""
        return super().train(False)

    def _pool(self, x: Tensor) -> Tensor:
        """2x2 maximum with stride 2; anti-aliased: with stride 1, then blurred with stride 2."""
        if not self.antialiased:
            return F.max_pool2d(x, 2)
        x = F.pad(F.max_pool2d(x, 2, stride=1), (2, 2, 2, 2), mode="reflect")
        blur = self.blur.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, blur, stride=2, groups=x.shape[1])


def _load_weights(model: LPIPS, variant: str) -> None:
    weights = published.lpips_weights(variant)
    # "net.slice3.13.weight" or "features.13.weight": torchvision numbers the layers
    names = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]
    names = [name for name in names if name.startswith(("net.", "features."))]
    names.sort(key=lambda name: int(name.split(".")[-1]))
    layers = [conv for stage in model.stages for conv in stage]
    for conv, name in zip(layers, names, strict=True):
        conv.weight.data.copy_(weights[f"{name}.weight"])
        conv.bias.data.copy_(weights[f"{name}.bias"])
    for i, weight in enumerate(model.linear):
        weight.data.copy_(weights[f"lin{i}.model.1.weight"])
