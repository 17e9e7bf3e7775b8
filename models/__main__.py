"""List the networks with their size: ``python -m models``."""

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from models import MODELS, build_model

SIZE = 256  # pixels a side


def main() -> None:
    argparse.ArgumentParser(description="List the networks with their size.", prog="python -m models").parse_args()
    print(f"{'--model':<24} {'parameters':>12} {'GFLOP a slice':>15}   ({SIZE} x {SIZE} pixels, usual width)")
    for name in MODELS:
        try:
            parameters, flop = size_of(name)
            print(f"{name:<24} {parameters / 1e6:10.1f} M {flop / 1e9:15.1f}")
        except ModuleNotFoundError as error:
            print(f"{name:<24} needs {error.name}: pip install {error.name}")


def size_of(name: str) -> tuple[int, int]:
    """The parameters of a network at its usual width, and the floating-point operations for a slice."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build_model(name).eval()
        model(torch.zeros(1, 1, SIZE, SIZE))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()


if __name__ == "__main__":
    main()
