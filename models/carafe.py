"""CARAFE, content-aware reassembly of features: upsampling whose kernels are predicted from the content.

Every source pixel predicts ``scale**2`` kernels of ``kernel_size**2`` weights, one for each of the pixels it
becomes; each of these is the weighted sum of the source pixel's neighbourhood. (Wang et al., ICCV 2019.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Reassemble(torch.autograd.Function):
    """Sum over the taps of the window, one tap at a time, so that no unfolded copy of the features exists."""

    @staticmethod
    def forward(ctx, x: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernels)
        height, width = x.shape[-2:]
        padded, window = _pad(x, kernels)
        out = x.new_zeros(x.shape[0], x.shape[1], kernels.shape[2], height, width)
        for tap, (top, left) in enumerate(window):
            neighbours = padded[:, :, None, top : top + height, left : left + width]
            out.addcmul_(neighbours, kernels[:, tap, None])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, kernels = ctx.saved_tensors
        height, width = x.shape[-2:]
        padded, window = _pad(x, kernels)
        grad_padded = torch.zeros_like(padded)
        grad_kernels = torch.empty_like(kernels)
        for tap, (top, left) in enumerate(window):
            here = (..., slice(top, top + height), slice(left, left + width))
            torch.sum(grad * padded[here][:, :, None], dim=1, out=grad_kernels[:, tap])
            grad_padded[here] += (grad * kernels[:, tap, None]).sum(dim=2)
        radius = (padded.shape[-1] - width) // 2
        return grad_padded[..., radius : radius + height, radius : radius + width], grad_kernels


def _pad(x: Tensor, kernels: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """Zero-pad ``x`` by the window's radius; list the window's (top, left) corners, row by row."""
    size = round(kernels.shape[1] ** 0.5)
    window = [(top, left) for top in range(size) for left in range(size)]
    return F.pad(x, [size // 2] * 4), window


def reassemble(x: Tensor, kernels: Tensor) -> Tensor:
    """Upsample features with one kernel for each output pixel.

    x: ``(N, C, H, W)``. kernels: ``(N, K*K, S*S, H, W)``, the taps row by row over the K x K window (zeros
    outside the image), then the sub-pixels row by row. Returns ``(N, C, S*H, S*W)``.
    """
    scale = round(kernels.shape[2] ** 0.5)
    return F.pixel_shuffle(_Reassemble.apply(x, kernels.to(x.dtype)).flatten(1, 2), scale)


class CARAFE(nn.Module):
    """``(N, in_channels, H, W) -> (N, out_channels, scale*H, scale*W)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        compressed_channels: int = 64,
        encoder_size: int = 3,
        kernel_size: int = 5,
        scale: int = 2,
    ) -> None:
        super().__init__()
        self.taps, self.subpixels = kernel_size**2, scale**2
        self.compressor = nn.Conv2d(in_channels, compressed_channels, 1)
        self.encoder = nn.Conv2d(
            compressed_channels, self.taps * self.subpixels, encoder_size, padding=encoder_size // 2
        )
        self.out = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Splitting the channel axis in place of a pixel shuffle: each sub-pixel's taps already lie `subpixels` apart.
        kernels = self.encoder(self.compressor(x)).unflatten(1, (self.taps, self.subpixels)).softmax(dim=1)
        # The 1x1 convolution commutes with the weighted sum, and before it there are 4x fewer pixels; the bias
        # waits until after, as the taps beyond the border are zeros.
        features = F.conv2d(x, self.out.weight)
        return reassemble(features, kernels) + self.out.bias.view(-1, 1, 1)
