"""CARAFE's reassembly as an operation of its own, with its gradients and without unfolded copies of the features.

The plain definition (plain.py) copies every feature once for each of the 25 taps of the window, and autograd keeps
that copy. Here a strip of rows is unfolded at a time (cpu.py); on a GPU, Triton kernels (triton.py) unfold nothing.
Both compute the softmax where they need its result, so that the backward pass needs features and logits (and Triton's
the log-sum-exp over the taps) but no kernels.
"""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from models.carafe.cpu import backward_in_strips, empty_results, in_strips
from models.carafe.plain import kernel_size, reassemble_to_export

OLDEST_GPU = (8, 0)  # on older ones the Triton kernels run out of registers
_triton_works: dict[str, bool] = {}  # by kernel, after the first try


def _by_triton(name: str, otherwise: Callable, *args: Any) -> tuple[Tensor, Tensor]:
    """Call the Triton kernel of that name or, once any could not be built on this machine, ``otherwise``."""
    # All or none: the one for the backward pass needs the log-sum-exp, which the plain forward pass leaves empty.
    if all(_triton_works.values()) and torch.cuda.get_device_capability(args[0].device) >= OLDEST_GPU:
        try:
            results = getattr(import_module("models.carafe.triton"), name)(*args)
            _triton_works[name] = True
            return results
        # Without a C compiler or on an old GPU, Triton raises errors of many kinds.
        except Exception as error:
            if name in _triton_works or isinstance(error, torch.OutOfMemoryError):
                raise
            _triton_works[name] = False
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            warnings.warn(f"CARAFE runs without its Triton kernels, slowly ({reason})", stacklevel=2)
    return otherwise(*args)


def _on_gpu(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    x, logits = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, logits))
    return _by_triton("reassemble", in_strips, x, logits, scale)


def _backward_on_gpu(grad: Tensor, x: Tensor, logits: Tensor, log_sum: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    x, logits = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, logits))
    return _by_triton("reassemble_backward", backward_in_strips, grad, x, logits, log_sum, scale)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    return *torch.ops.cares_unet.reassemble_backward(grad, *ctx.saved_tensors, ctx.scale), None


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, logits, ctx.scale = inputs
    ctx.save_for_backward(x, logits, output[1])
    ctx.mark_non_differentiable(output[1])


def _empty_gradients(grad: Tensor, x: Tensor, logits: Tensor, log_sum: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    last = torch.channels_last
    return torch.empty_like(x, memory_format=last), torch.empty_like(logits, memory_format=last)


# Known to PyTorch by name, so that torch.compile takes them as they are. (torch.library.custom_op would do the same
# in fewer lines, but imports the compiler at the first call, which takes a second.)
_LIBRARY = torch.library.Library("cares_unet", "DEF")
_LIBRARY.define("reassemble(Tensor x, Tensor logits, int scale) -> (Tensor, Tensor)")
_LIBRARY.define(
    "reassemble_backward(Tensor grad, Tensor x, Tensor logits, Tensor log_sum, int scale) -> (Tensor, Tensor)"
)
_LIBRARY.impl("reassemble", in_strips, "CompositeExplicitAutograd")  # any device
_LIBRARY.impl("reassemble", _on_gpu, "CUDA")
_LIBRARY.impl("reassemble_backward", backward_in_strips, "CompositeExplicitAutograd")
_LIBRARY.impl("reassemble_backward", _backward_on_gpu, "CUDA")
torch.library.register_fake("cares_unet::reassemble", empty_results)
torch.library.register_fake("cares_unet::reassemble_backward", _empty_gradients)
torch.library.register_autograd("cares_unet::reassemble", _backward, setup_context=_save)


def reassemble(x: Tensor, logits: Tensor, *, scale: int) -> Tensor:
    """Upsample features with one kernel for each output pixel.

    x: ``(N, C, H, W)``. logits: ``(N, K*K*S*S, H, W)``, of the kernels' weights before the softmax over the taps: the
    taps row by row over the K x K window (zeros outside the image), then the S x S sub-pixels row by row. Returns
    ``(N, C, S*H, S*W)``, channels last in memory, in the precision of ``x``. Differentiable once. Raises ValueError if
    the shapes do not fit or K is even.
    """
    kernel_size(x, logits, scale)  # raises if they do not fit
    if torch.compiler.is_exporting():  # other programs do not know the operation
        return reassemble_to_export(x, logits, scale=scale)
    return torch.ops.cares_unet.reassemble(x, logits, scale)[0]
