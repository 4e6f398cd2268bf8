"""Discriminators: one of patches for 7x7 latents (PatchGAN), one of whole images for 1x1."""

from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .checks import MNIST_SHAPE, as_count, check_images

STRETCH = 0.98  # artanh(0.98) = 2.3; tuned with the R1 penalty, which bounds what it gives


class PatchDiscriminator(nn.Module):
    """One logit for each of 7x7 overlapping patches of 18x18 pixels: a stroke and its surroundings.

    A PatchGAN (Isola et al., "pix2pix", 2017), whose own patches of 70x70 would each see the whole
    digit. Larger images have more patches. Without normalisation layers a logit depends on its
    patch alone; the penalty keeps the discriminator in bounds. Brightness enters as artanh(0.98 x),
    about what stands before the decoder's tanh: most pixels of a digit are exactly black or white,
    reconstructions only nearly so.
    """

    def __init__(self, width: int = 32, image_shape: tuple[int, int, int] = MNIST_SHAPE):
        super().__init__()
        width, self.image_shape = as_count(width, "width"), image_shape
        self.layers = nn.Sequential(
            nn.Conv2d(image_shape[0], width, 4, stride=2, padding=1),  # 14x14, sees 4x4 pixels
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # 7x7, sees 10x10
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),  # sees 18x18
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 1),
        )
        for layer in self.layers[:-1:2]:
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """`x`: (B, *image_shape) in [-1, 1]. Returns logits (B, 1, 7, 7), above 0 for "real".

        Computes in its weights' type under autocast too: its penalty is a second derivative. Raises
        `ValueError` for images of another shape or type, and outside of training of another range.
        """
        check_images(x, "x", shape=self.image_shape, values=not self.training)
        with torch.autocast(x.device.type, enabled=False):
            return self.layers(torch.atanh(STRETCH * x.float()).to(self.layers[0].weight))


class ImageDiscriminator(nn.Module):
    """One logit for a whole image, told which digit it shows, where that is known.

    Patches cannot tell a digit from strokes that are sharp and make none, which is what a decoder
    of a few numbers may draw. Every layer's largest singular value is 1 (Miyato et al., "Spectral
    Normalization", 2018), which bounds the slope that the decoder follows. The label enters by a
    scalar product (Miyato & Koyama, "Projection Discriminator", 2018, eq. 4); `unknown`, the
    number after the last class, stands for none.
    """

    def __init__(self, num_classes: int = 10, width: int = 64,
                 image_shape: tuple[int, int, int] = MNIST_SHAPE):  # fmt: skip
        super().__init__()
        self.unknown, width = as_count(num_classes, "num_classes"), as_count(width, "width")
        self.image_shape, features = image_shape, 2 * width * ceil(image_shape[1] / 8) ** 2
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(image_shape[0], width, 4, stride=2, padding=1)),  # 14x14
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),  # 7x7
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)),  # 4x4
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.real = spectral_norm(nn.Linear(features, 1))
        self.of_class = nn.Embedding(self.unknown + 1, features, padding_idx=self.unknown)
        with torch.no_grad():
            self.of_class.weight.mul_(0.01)  # the last row is zero, and stays so

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """`x`: (B, *image_shape) in [-1, 1]; `labels`: int64 (B,). Returns logits (B,).

        Computes in float32 under autocast too. Raises `ValueError` as `PatchDiscriminator` does.
        """
        check_images(x, "x", shape=self.image_shape, values=not self.training)
        with torch.autocast(x.device.type, enabled=False):
            features = self.layers(x.to(self.of_class.weight))
            return self.real(features)[:, 0] + (features * self.of_class(labels)).sum(1)
