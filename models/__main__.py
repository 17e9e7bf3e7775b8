"""List the networks with their size: ``python -m models``."""

import argparse

from models import MODELS
from models.size import SIZE, size_of


def main() -> None:
    argparse.ArgumentParser(description="List the networks with their size.", prog="python -m models").parse_args()
    print(f"{'--model':<24} {'parameters':>12} {'GFLOP a slice':>15}   ({SIZE} x {SIZE} pixels, usual width)")
    for name in MODELS:
        try:
            parameters, flop = size_of(name)
            print(f"{name:<24} {parameters / 1e6:10.1f} M {flop / 1e9:15.1f}")
        except ModuleNotFoundError as error:
            print(f"{name:<24} needs {error.name}: pip install {error.name}")


if __name__ == "__main__":
    main()
