"""Choose the device and the precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from data.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device called ``auto`` (a CUDA GPU or else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises InputError if it is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
            raise RuntimeError("neither cpu, cuda, cuda:N nor mps")
        device = torch.device(name)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise RuntimeError("PyTorch finds no Apple GPU that it can use")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0][:200]}; use --device auto") from error
    return device


def choose_precision(amp: str, device: torch.device) -> str:
    """``amp`` with ``auto`` resolved: bf16 or fp16 on a CUDA GPU, off elsewhere. InputError if unavailable."""
    if amp == "auto":
        if device.type != "cuda":
            return "off"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if amp != "off" and device.type == "mps":
        raise InputError(f"--amp {amp}: --device mps computes in float32; use --amp off")
    if amp == "fp16" and device.type != "cuda":
        raise InputError("--amp fp16: needs a CUDA GPU; use --amp off or --amp bf16")
    return amp


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context of a forward pass in ``off``, ``bf16`` or ``fp16``."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, kind) if kind else nullcontext()
