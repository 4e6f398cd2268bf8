"""The building blocks of encoder and decoder, in the order in which they are used.

Feature maps are (B, C, H, W); tokens, for attention, are (B, T, C). The last layer of each
residual branch starts at zero, so that a new network is the sum of its skips (Zhang et al.,
"Fixup Initialization", 2019; ControlNet's and DiT's zero layers).
"""

import torch.nn.functional as F
from torch import Tensor, nn

HEAD_SIZE = 64  # channels of an attention head: two heads at width 128, one at width 64
NORM_GROUPS = 8


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip around them (pre-activation: He et al. 2016, v2).

    With `embedding_channels`, an embedding scales and shifts what the second convolution sees
    (Dhariwal & Nichol 2021, section 3.1).
    """

    def __init__(self, channels: int, embedding_channels: int | None = None):
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)
        self.to_scale_and_shift = (
            zero(nn.Linear(embedding_channels, 2 * channels)) if embedding_channels else None
        )
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """`x`: (B, C, H, W); `embedding`: (B, embedding_channels). Returns (B, C, H, W)."""
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.to_scale_and_shift is not None:
            scale, shift = self.to_scale_and_shift(embedding)[..., None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Multi-head attention from a feature map to tokens, with a skip (Vaswani et al. 2017).

    With `context_channels` the keys and values are a projection of given context tokens
    (cross-attention); without, of the feature map's own positions (self-attention).
    """

    def __init__(self, channels: int, context_channels: int | None = None):
        super().__init__()
        self.heads = max(1, channels // HEAD_SIZE)
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(context_channels or channels, 2 * channels)
        self.to_out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`x`: (B, C, H, W). `context`: (B, T, context_channels), or None for x's own tokens."""
        tokens = to_tokens(self.norm(x))  # (B, H*W, C)
        context = tokens if context is None else context
        q, k, v = self.to_q(tokens), *self.to_kv(context).chunk(2, dim=-1)
        # (B, T, C) -> (B, heads, T, C / heads)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.to_out(h).transpose(1, 2).reshape(x.shape)


class DownBlock(nn.Module):
    """Halve the map, then residual convolutions, then optional self- and cross-attention."""

    def __init__(self, in_channels: int, channels: int, blocks: int,
                 self_attention: bool = False, context_channels: int | None = None):  # fmt: skip
        super().__init__()
        self.down = nn.Conv2d(in_channels, channels, 2, stride=2)  # space-to-depth, then 1x1
        self.residual = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.self_attention = Attention(channels) if self_attention else nn.Identity()
        self.cross_attention = Attention(channels, context_channels) if context_channels else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) to (B, channels, H / 2, W / 2); `context`: (B, T, ...)."""
        x = self.self_attention(self.residual(self.down(x)))
        return x if self.cross_attention is None else self.cross_attention(x, context)


class MidBlock(nn.Module):
    """Residual block, self-attention, residual block, all at the smallest map."""

    def __init__(
        self, channels: int, self_attention: bool = True, embedding_channels: int | None = None
    ):
        super().__init__()
        self.residual1 = ResidualBlock(channels, embedding_channels)
        self.self_attention = Attention(channels) if self_attention else nn.Identity()
        self.residual2 = ResidualBlock(channels, embedding_channels)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """`x`: (B, C, H, W); `embedding`: (B, embedding_channels). Returns (B, C, H, W)."""
        return self.residual2(self.self_attention(self.residual1(x, embedding)), embedding)


class UpBlock(nn.Module):
    """Residual convolutions, cross-attention to the latent's tokens, then doubling of the map.

    Cross-attention stands where a U-Net has its skip connection from the encoder, which would
    carry the image around the latent.
    """

    def __init__(
        self, channels: int, out_channels: int, blocks: int, context_channels: int | None = None
    ):
        super().__init__()
        self.residual = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.cross_attention = Attention(channels, context_channels) if context_channels else None
        self.up = nn.ConvTranspose2d(channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, channels, H, W) to (B, out_channels, 2H, 2W); `context`: (B, T, ...)."""
        x = self.residual(x)
        return self.up(x if self.cross_attention is None else self.cross_attention(x, context))


def check_widths(channels: tuple[int, ...]) -> None:
    """Raise `ValueError` unless `channels` are three widths that group normalisation can have."""
    if len(channels) != 3 or any(width % NORM_GROUPS for width in channels):
        raise ValueError(f"channels={channels} is not allowed: three multiples of {NORM_GROUPS}")


def to_tokens(x: Tensor) -> Tensor:
    """Feature map (B, C, H, W) to tokens (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def zero(layer: nn.Module) -> nn.Module:
    """Set a layer's weight and bias to zero, and return it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
