"""Mixed precision: which, and the context of a forward pass."""

from contextlib import AbstractContextManager, nullcontext

import torch

from data.errors import InputError


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
