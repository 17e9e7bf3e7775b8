"""How large a network is."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from models import build_model

SIZE = 256  # pixels a side


def size_of(name: str, *, size: int = SIZE, **options: Any) -> tuple[int, int]:
    """The parameters of a network, and the floating-point operations for a slice of this size, by default at its usual
    width."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build_model(name, **options).eval()
        model(torch.zeros(1, 1, size, size))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()
