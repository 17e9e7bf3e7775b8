"""Upsampling by two: CARAFE, content-aware reassembly of features, and the alternative in the paper's ablation.

CARAFE predicts its kernels from the content. Every source pixel predicts ``scale**2`` kernels of ``kernel_size**2``
weights, one for each of the pixels it becomes; each of these is the weighted sum of the source pixel's neighbourhood.
(Wang et al., ICCV 2019.)
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from models.carafe import reassemble
from models.convolution import Conv3x3


class CARAFE(nn.Module):
    """``(N, in_channels, H, W) -> (N, out_channels, scale*H, scale*W)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        compressed_channels: int = 64,
        kernel_size: int = 5,
        scale: int = 2,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.compressor = nn.Conv2d(in_channels, compressed_channels, 1)
        self.encoder = Conv3x3(compressed_channels, kernel_size**2 * scale**2, bias=True)
        self.out = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The 1x1 convolution commutes with the weighted sum and is cheaper before it. Its bias is added after it,
        # as the taps beyond the border are zeros.
        features = F.conv2d(x, self.out.weight)
        logits = self.encoder(self.compressor(x))
        return reassemble(features, logits, scale=self.scale).add_(self.out.bias.view(-1, 1, 1))  # type: ignore[union-attr]


class BilinearUpsampling(nn.Module):
    """``(N, in_channels, H, W) -> (N, out_channels, 2*H, 2*W)``: bilinear, for the paper's ablation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # As in CARAFE, the 1x1 convolution is cheaper first; here its bias commutes, too.
        return F.interpolate(self.out(x), scale_factor=2, mode="bilinear", align_corners=False)


UPSAMPLINGS: dict[str, Callable[[int, int], nn.Module]] = {"carafe": CARAFE, "bilinear": BilinearUpsampling}
