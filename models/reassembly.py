"""CARAFE's reassembly as an operation of its own, with its gradients and without unfolded copies of the features.

``F.unfold`` would copy every feature once for each of the 25 taps of the window, and autograd would keep that copy.
Here a strip of rows is unfolded at a time, small enough to stay in the processor's cache, and thrown away; on a GPU,
Triton kernels (reassembly_triton.py) unfold nothing. Both compute the softmax where they need its result, so that
the backward pass needs features and logits (and Triton's the log-sum-exp over the taps) but no kernels.
"""

import math
import warnings
from collections.abc import Callable
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

OLDEST_GPU = (8, 0)  # on older ones the Triton kernels run out of registers
_triton_works: dict[str, bool] = {}  # by kernel, once it was tried
STRIP_BYTES = 4 << 20  # of unfolded features: small against the cache that the cores share


def _in_strips(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The upsampled features, channels last; and what Triton's kernels would have kept for the backward pass."""
    n, channels, height, width = x.shape
    padded, size = _pad(x, logits, scale)
    out, log_sum = _empty_results(x, logits, scale)
    out_by_pixel = out.permute(0, 2, 3, 1).view(n, height, scale, width, scale, channels)
    strips = _strips(padded, size, height, width)
    space = _space(strips, padded, size, width)
    for i, rows in strips:
        kernels = _kernels(logits, i, rows, scale).to(x.dtype)
        summed = kernels @ _unfold(padded, i, rows, space)
        out_by_pixel[i, rows] = summed.view(-1, width, scale, scale, channels).transpose(1, 2)
    return out, log_sum


def _backward_in_strips(grad: Tensor, x: Tensor, logits: Tensor, log_sum: Tensor, scale: int) -> tuple[Tensor, Tensor]:
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

        torch.bmm(kernels.to(grad.dtype).transpose(1, 2), grad_here, out=windows)  # the windows are done with
        grad_windows = windows.view(-1, width, size, size, channels)
        for row, grad_row in zip(range(rows.start, rows.stop), grad_windows, strict=True):
            for left in range(size):  # all rows of the window at once: these do not overlap
                grad_padded[i, row : row + size, left : left + width] += grad_row[:, :, left].transpose(0, 1)
    radius = size // 2
    grad_x = grad_padded[:, radius : radius + height, radius : radius + width].permute(0, 3, 1, 2)
    return grad_x.to(x.dtype, memory_format=torch.channels_last, copy=True), grad_logits


def _empty_results(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    n, channels, height, width = x.shape
    last = {"device": x.device, "memory_format": torch.channels_last}
    out = torch.empty(n, channels, scale * height, scale * width, dtype=x.dtype, **last)
    rows = height if x.device.type == "cuda" else 0  # the log-sum-exp is for Triton alone
    return out, torch.empty(n, scale**2, rows, width, dtype=_accurate(x), **last)


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
    """For the windows of any strip, ``(rows, W, K, K, C)``: new memory for each strip would cost page faults."""
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


def _by_triton(name: str, otherwise: Callable, *args) -> tuple[Tensor, Tensor]:
    """The Triton kernel of that name or, once any could not be built on this machine, the plain implementation."""
    # All or none: the one for the backward pass needs the log-sum-exp, which the plain forward pass leaves empty.
    if all(_triton_works.values()) and torch.cuda.get_device_capability(args[0].device) >= OLDEST_GPU:
        try:
            results = getattr(import_module("models.reassembly_triton"), name)(*args)
            _triton_works[name] = True
            return results
        # Triton needs a C compiler and a GPU that is new enough; what it raises otherwise is of many kinds.
        except Exception as error:
            if name in _triton_works or isinstance(error, torch.OutOfMemoryError):
                raise
            _triton_works[name] = False
            reason = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {reason[0] if reason else ''}"
            warnings.warn(f"CARAFE runs without its Triton kernels, slowly ({reason})", stacklevel=2)
    return otherwise(*args)


def _on_gpu(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    x, logits = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, logits))
    return _by_triton("reassemble", _in_strips, x, logits, scale)


def _backward_on_gpu(grad: Tensor, x: Tensor, logits: Tensor, log_sum: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    x, logits = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, logits))
    return _by_triton("reassemble_backward", _backward_in_strips, grad, x, logits, log_sum, scale)


def _backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    return *torch.ops.cares_unet.reassemble_backward(grad, *ctx.saved_tensors, ctx.scale), None


def _save(ctx, inputs: tuple, output: tuple) -> None:
    x, logits, ctx.scale = inputs
    ctx.save_for_backward(x, logits, output[1])
    ctx.mark_non_differentiable(output[1])


def _empty_gradients(grad: Tensor, x: Tensor, logits: Tensor, log_sum: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.empty_like(tensor, memory_format=torch.channels_last) for tensor in (x, logits))


# Known to PyTorch by name, so that torch.compile takes them as they are. (torch.library.custom_op would do the same
# in fewer lines, but imports the compiler at the first call, which takes a second.)
_LIBRARY = torch.library.Library("cares_unet", "DEF")
_LIBRARY.define("reassemble(Tensor x, Tensor logits, int scale) -> (Tensor, Tensor)")
_LIBRARY.define(
    "reassemble_backward(Tensor grad, Tensor x, Tensor logits, Tensor log_sum, int scale) -> (Tensor, Tensor)"
)
_LIBRARY.impl("reassemble", _in_strips, "CompositeExplicitAutograd")  # any device
_LIBRARY.impl("reassemble", _on_gpu, "CUDA")
_LIBRARY.impl("reassemble_backward", _backward_in_strips, "CompositeExplicitAutograd")
_LIBRARY.impl("reassemble_backward", _backward_on_gpu, "CUDA")
torch.library.register_fake("cares_unet::reassemble", _empty_results)
torch.library.register_fake("cares_unet::reassemble_backward", _empty_gradients)
torch.library.register_autograd("cares_unet::reassemble", _backward, setup_context=_save)


def reassemble(x: Tensor, logits: Tensor, *, scale: int) -> Tensor:
    """Upsample features with one kernel for each output pixel.

    x: ``(N, C, H, W)``. logits: ``(N, K*K*S*S, H, W)``, of the kernels' weights before the softmax over the taps: the
    taps row by row over the K x K window (zeros outside the image), then the S x S sub-pixels row by row. Returns
    ``(N, C, S*H, S*W)``, channels last in memory, in the precision of ``x``. Differentiable once. Raises ValueError if
    the shapes do not fit or K is even.
    """
    size = math.isqrt(logits.shape[1] // scale**2)
    if size % 2 == 0 or logits.shape != (x.shape[0], (size * scale) ** 2, *x.shape[2:]):
        raise ValueError(f"logits of shape {tuple(logits.shape)} are no kernels for {tuple(x.shape)} and scale {scale}")
    return torch.ops.cares_unet.reassemble(x, logits, scale)[0]
