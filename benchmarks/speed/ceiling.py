"""The most that a machine can do: the rate of a large matrix product, and a network's share of it."""

import argparse

import torch
from torch import nn

from benchmarks.measure import Timing, Work
from utils.device import choose_precision


def build_ceiling(args: argparse.Namespace) -> Work:
    """A product of square matrices in the precision of our network, ``2 * ceiling_side**3`` operations."""
    side = ceiling_side(args)
    a, b = (torch.randn(side, side, device=args.device, dtype=element_type(args)) for _ in range(2))
    return lambda: a @ b


def element_type(args: argparse.Namespace) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(choose_precision(args.amp, args.device), torch.float32)


def ceiling_side(args: argparse.Namespace) -> int:
    return 8192 if args.device.type == "cuda" else 4096


def share_of_ceiling(flop: float, work: Timing, ceiling: Timing, args: argparse.Namespace) -> str:
    achieved, most = flop / work.median / 1e9, 2 * ceiling_side(args) ** 3 / ceiling.median / 1e9
    return f"{achieved:,.0f} GFLOP/s, {achieved / most:.0%} of a matrix product's {most:,.0f}"


def convolution_flop(model: nn.Module, args: argparse.Namespace) -> int:
    """Floating-point operations of a slice's forward pass; in ours, convolutions are 99.7 % of them."""
    from torch.utils.flop_counter import FlopCounterMode  # here, as it imports Triton

    image = torch.rand(1, 1, args.image_size, args.image_size, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    return counter.get_total_flops()
