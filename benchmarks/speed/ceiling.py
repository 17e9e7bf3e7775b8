"""The peak rate of a machine, that of a large matrix product, and a network's share of it."""

import torch
from torch import nn

from benchmarks.measure import Timing, Work
from benchmarks.speed.setting import Setting
from utils.device import choose_precision


def build_ceiling(setting: Setting) -> Work:
    """A product of square matrices in the precision of our network, ``2 * ceiling_side**3`` operations."""
    side = ceiling_side(setting)
    a, b = (torch.randn(side, side, device=setting.device, dtype=element_type(setting)) for _ in range(2))
    return lambda: a @ b


def element_type(setting: Setting) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(
        choose_precision(setting.amp, setting.device), torch.float32
    )


def ceiling_side(setting: Setting) -> int:
    return 8192 if setting.device.type == "cuda" else 4096


def share_of_ceiling(flop: float, work: Timing, ceiling: Timing, setting: Setting) -> str:
    achieved, most = flop / work.median / 1e9, 2 * ceiling_side(setting) ** 3 / ceiling.median / 1e9
    return f"{achieved:,.0f} GFLOP/s, {achieved / most:.0%} of a matrix product's {most:,.0f}"


def convolution_flop(model: nn.Module, setting: Setting) -> int:
    """Floating-point operations of a slice's forward pass; in ours, convolutions are 99.7 % of them."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    image = torch.rand(1, 1, setting.image_size, setting.image_size, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    return counter.get_total_flops()
