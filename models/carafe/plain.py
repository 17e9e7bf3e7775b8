"""CARAFE's reassembly by its definition: to read, to test the fast ones by; and in a form to export."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def reassemble(x: Tensor, logits: Tensor, *, scale: int) -> Tensor:
    """Upsample features with one kernel for each output pixel (Wang et al., ICCV 2019, section 3.2).

    Arguments, result and errors are those of ``models.carafe.reassemble``, which computes the same without the copies.
    """
    n, channels, height, width = x.shape
    size = kernel_size(x, logits, scale)
    kernels = logits.unflatten(1, (size**2, scale**2)).softmax(dim=1)
    windows = F.unfold(x, size, padding=size // 2).view(n, channels, size**2, height, width)
    summed = torch.einsum("nckhw,nkshw->ncshw", windows, kernels)
    return F.pixel_shuffle(summed.flatten(1, 2), scale)


def reassemble_to_export(x: Tensor, logits: Tensor, *, scale: int) -> Tensor:
    """``reassemble`` by few operations that ONNX has: windows are unfolded by a convolution that picks each tap."""
    n, channels, height, width = x.shape
    size = kernel_size(x, logits, scale)
    kernels = logits.unflatten(1, (size**2, scale**2)).softmax(dim=1)
    taps = torch.eye(size**2, dtype=x.dtype, device=x.device).view(size**2, 1, size, size)
    windows = F.conv2d(x.reshape(n * channels, 1, height, width), taps, padding=size // 2)
    windows = windows.view(n, channels, size**2, height, width)
    summed = [(windows * kernels[:, None, :, index]).sum(dim=2) for index in range(scale**2)]
    return F.pixel_shuffle(torch.stack(summed, dim=2).flatten(1, 2), scale)


def kernel_size(x: Tensor, logits: Tensor, scale: int) -> int:
    """The side K of the window, from ``logits``. Raises ValueError if they do not fit ``x``."""
    size = math.isqrt(logits.shape[1] // scale**2)
    if size % 2 == 0 or logits.shape != (x.shape[0], (size * scale) ** 2, *x.shape[2:]):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit features of shape {tuple(x.shape)} and scale {scale}"
        )
    return size
