"""Mixed precision: which, and the context of a forward pass."""

import argparse
from contextlib import AbstractContextManager, nullcontext

import torch

from data.errors import InputError


def choose_precision(args: argparse.Namespace) -> str:
    """``--amp`` with ``auto`` resolved: bf16 or fp16 on a CUDA GPU, off elsewhere. InputError if unavailable."""
    if args.amp == "auto":
        if args.device.type != "cuda":
            return "off"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if args.amp != "off" and args.device.type == "mps":
        raise InputError(f"--amp {args.amp}: --device mps computes in float32; use --amp off")
    if args.amp == "fp16" and args.device.type != "cuda":
        raise InputError("--amp fp16: needs a CUDA GPU; use --amp off or --amp bf16")
    return args.amp


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context of a forward pass in ``off``, ``bf16`` or ``fp16``."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, kind) if kind else nullcontext()
