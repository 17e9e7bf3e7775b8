"""The options of a measurement."""

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Named as the options of ``python -m benchmarks.speed``."""

    parts: list[str]
    base_channels: int
    image_size: int
    batchsize: int
    rounds: int
    save_folder: Path
    device: torch.device
    amp: str
