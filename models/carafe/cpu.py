"""CARAFE's reassembly a strip of rows at a time, forward and backward, on any device.

The unfolded features of a strip are small enough to stay in the processor's cache, and are thrown away.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_BYTES = 4 << 20  # of unfolded features: small against the cache that the cores share


def in_strips(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The upsampled features, channels last, and an empty log-sum-exp, which only Triton's kernels fill."""
    n, channels, height, width = x.shape
    padded, size = _pad(x, logits, scale)
    out, log_sum = empty_results(x, logits, scale)
    out_by_pixel = out.permute(0, 2, 3, 1).view(n, height, scale, width, scale, channels)
    strips = _strips(padded, size, height, width)
    space = _space(strips, padded, size, width)
    for i, rows in strips:
        kernels = _kernels(logits, i, rows, scale).to(x.dtype)
        summed = kernels @ _unfold(padded, i, rows, space)
        out_by_pixel[i, rows] = summed.view(-1, width, scale, scale, channels).transpose(1, 2)
    return out, log_sum


def backward_in_strips(grad: Tensor, x: Tensor, logits: Tensor, log_sum: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and ``logits``, both channels last."""
    n, channels, height, width = x.shape
    padded, size = _pad(x, logits, scale)
    grad_padded = torch.zeros_like(padded, dtype=_accurate(padded))
    grad_logits = torch.empty_like(logits, memory_format=torch.channels_last)
    grad_logits_by_pixel = grad_logits.permute(0, 2, 3, 1)
    grad = grad.permute(0, 2, 3, 1).reshape(n, height, scale, width, scale, channels)
    strips = _strips(padded, size, height, width)
    space = _space(strips, padded, size, width)
    for i, rows in strips:
        grad_here = grad[i, rows].transpose(1, 2).reshape(-1, scale**2, channels)
        kernels = _kernels(logits, i, rows, scale)

        windows = _unfold(padded, i, rows, space)
        grad_kernels = grad_here @ windows.transpose(1, 2)
        weighted = kernels * grad_kernels
        grad_here_logits = weighted - kernels * weighted.sum(dim=-1, keepdim=True)  # the softmax's own gradient
        grad_logits_by_pixel[i, rows] = grad_here_logits.transpose(1, 2).reshape(-1, width, logits.shape[1])

        torch.bmm(kernels.to(grad.dtype).transpose(1, 2), grad_here, out=windows)  # reuses the memory of the windows
        grad_windows = windows.view(-1, width, size, size, channels)
        for row, grad_row in zip(range(rows.start, rows.stop), grad_windows, strict=True):
            for left in range(size):  # all rows of the window at once: these do not overlap
                grad_padded[i, row : row + size, left : left + width] += grad_row[:, :, left].transpose(0, 1)
    radius = size // 2
    grad_x = grad_padded[:, radius : radius + height, radius : radius + width].permute(0, 3, 1, 2)
    return grad_x.to(x.dtype, memory_format=torch.channels_last, copy=True), grad_logits


def empty_results(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    n, channels, height, width = x.shape
    last = torch.channels_last
    out = torch.empty(n, channels, scale * height, scale * width, dtype=x.dtype, device=x.device, memory_format=last)
    rows = height if x.device.type == "cuda" else 0  # only Triton uses the log-sum-exp
    return out, torch.empty(n, scale**2, rows, width, dtype=_accurate(x), device=x.device, memory_format=last)


def _pad(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, int]:
    """``x`` as ``(N, H, W, C)``, zero-padded by the radius of the window; and the window's size K."""
    size = round((logits.shape[1] / scale**2) ** 0.5)
    radius = size // 2
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, radius, radius, radius, radius)).contiguous(), size


def _strips(padded: Tensor, size: int, height: int, width: int) -> list[tuple[int, slice]]:
    """Image by image, the strips of rows whose unfolded features fit in the cache."""
    bytes_of_row = width * size**2 * padded.shape[-1] * padded.element_size()
    at_once = STRIP_BYTES if padded.device.type == "cpu" else 100 * STRIP_BYTES  # a GPU wants few launches
    rows = max(1, at_once // bytes_of_row)
    tops = range(0, height, rows)
    return [(i, slice(top, min(top + rows, height))) for i in range(len(padded)) for top in tops]


def _space(strips: list[tuple[int, slice]], padded: Tensor, size: int, width: int) -> Tensor:
    """Memory for the windows of any strip, ``(rows, W, K, K, C)``: allocating it for each would cost page faults."""
    rows = strips[0][1].stop if strips else 0
    return padded.new_empty(rows, width, size, size, padded.shape[-1])


def _unfold(padded: Tensor, i: int, rows: slice, space: Tensor) -> Tensor:
    """The K*K neighbours of every pixel of a strip, ``(pixels, K*K, C)``, written to ``space``."""
    size = space.shape[2]
    windows = padded[i, rows.start : rows.stop + size - 1].unfold(0, size, 1).unfold(1, size, 1)
    strip = space[: rows.stop - rows.start]
    return strip.copy_(windows.permute(0, 1, 3, 4, 2)).view(-1, size**2, space.shape[-1])


def _kernels(logits: Tensor, i: int, rows: slice, scale: int) -> Tensor:
    """The kernels of a strip: ``(pixels, S*S, K*K)``, in at least single precision."""
    strip = logits[i, :, rows].permute(1, 2, 0).unflatten(2, (-1, scale**2)).flatten(0, 1)
    return strip.transpose(1, 2).to(_accurate(logits)).contiguous().softmax(dim=2)


def _accurate(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
