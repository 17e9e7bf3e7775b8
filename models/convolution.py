"""A 3x3 convolution whose weight gradient is also fast on CPUs without AVX-512.

There, oneDNN takes 2 to 4 times as long for it in channels last as for the other passes. Computed as one matrix
product for each of the nine taps, it takes about as long as the forward pass, and no layout has to change.
"""

from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.grad
from torch import Tensor, nn

STRIP_BYTES = 2 << 20  # of features and gradients: fits in or near a core's own cache
# In a smaller layer, oneDNN works in the cache, or the matrices are too thin.
LEAST_CHANNELS, LEAST_PRODUCTS = 32, 2**25


class Conv3x3(nn.Conv2d):
    """``(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))``."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not _gains(x, self.weight, self.stride[0]):
            return super().forward(x)
        out = _ByTaps.apply(x, self.weight, self.stride[0])
        return out if self.bias is None else out.add_(self.bias.view(-1, 1, 1))


def _gains(x: Tensor, weight: Tensor, stride: int) -> bool:
    pixels = x.numel() // x.shape[1] // stride**2
    return (
        stride <= 2  # the gradient's strips are made for these
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and pixels * weight[..., 0, 0].numel() >= LEAST_PRODUCTS
        and weight.requires_grad
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.is_contiguous(memory_format=torch.channels_last)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # the compiler chooses layouts itself
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
    )


class _ByTaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, stride=stride, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.nn.grad.conv2d_input(x.shape, weight, grad, stride=ctx.stride, padding=1)
        return grad_x, weight_gradient(grad, x, ctx.stride), None


def weight_gradient(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    """The gradient ``(out, in, 3, 3)`` of a 3x3 convolution's weight, strip of rows by strip of rows.

    grad: ``(N, out, ceil(H / stride), ceil(W / stride))``, of the output. x: ``(N, in, H, W)``.
    """
    out_height, out_width = grad.shape[2:]
    x, grad = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    by_tap = grad.new_zeros(3, 3, grad.shape[-1], x.shape[-1])
    border = 2 // stride
    rows = max(1, STRIP_BYTES // (grad[0, 0].nbytes + stride * x[0, 0].nbytes))
    for image, grad_image in zip(x, grad, strict=True):
        for top in range(0, out_height, rows):
            # Padded to one length, the rows of both are contiguous, and a tap is a shift along them.
            above = F.pad(grad_image[top : top + rows], (0, 0, 0, border))
            below = _padded_rows(image, top * stride - 1, (len(above) + border) * stride, (out_width + border) * stride)
            # Gather every stride-th row and column.
            below = below.unflatten(0, (-1, stride)).unflatten(2, (-1, stride)).permute(1, 3, 0, 2, 4).contiguous()
            above = above.flatten(0, 1)[:-border].t()
            for row in range(3):
                for column in range(3):
                    shift = row // stride * (out_width + border) + column // stride
                    pixels = below[row % stride, column % stride].flatten(0, 1)[shift:]
                    by_tap[row, column].addmm_(above, pixels[: above.shape[1]])
    return by_tap.permute(2, 3, 0, 1)


def _padded_rows(image: Tensor, top: int, height: int, width: int) -> Tensor:
    """Rows of ``image (H, W, C)`` from ``top`` on and columns from -1 on, zeros outside the image."""
    rows = image[max(top, 0) : top + height, : width - 1]
    above = max(-top, 0)
    return F.pad(rows, (0, 0, 1, width - 1 - rows.shape[1], above, height - above - len(rows)))
