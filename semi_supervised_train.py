"""Train CARes-UNet on labeled and pseudo-labeled slices, half and half, and finally on the labeled ones only."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.folders import Pair
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, run
from utils.cli.training import (
    add_labeled_data_options,
    add_pseudo_labeled_data_options,
    add_training_options,
    parse_training_options,
)
from utils.config import TrainingConfig
from utils.training.data import read_labeled, read_pseudo_labeled, warn_of_copies
from utils.training.loop import fit
from utils.training.methods import SEMI_SUPERVISED
from utils.training.start import Start


def main() -> None:
    train(*parse())


def parse(arguments: Sequence[str] | None = None) -> tuple[TrainingConfig, Start | None]:
    parser = Parser(__doc__, prog="semi_supervised_train.py")
    add_labeled_data_options(parser)
    add_pseudo_labeled_data_options(parser)
    add_training_options(parser)
    add_device_options(parser)
    config, start = parse_training_options(parser, arguments, epoch=200, save_folder=Path("runs/semi_supervised"))
    config = replace(config, method=config.method or ("teacher" if start else "pseudo")).validate()
    return config, start


def train(config: TrainingConfig, start: Start | None, pairs: Sequence[Pair] | None = None) -> None:
    """Train on the labeled slices of the config, or on these ``pairs``, and on the pseudo-labeled ones."""
    labeled, validation = read_labeled(config, start, pairs)
    pseudo = read_pseudo_labeled(config, labeled.preprocessing)
    warn_of_copies(config, pseudo, validation)
    method = SEMI_SUPERVISED[str(config.method)](config, labeled, pseudo)
    mixed = method.mixed_epochs
    print(f"method      {config.method} for {mixed} epochs, labeled slices only for {config.epoch - mixed}")
    fit(config, method, validation, script="semi_supervised_train.py", start=start)


if __name__ == "__main__":
    run(main)
