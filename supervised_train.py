"""Train CARes-UNet on labeled slices."""

from collections.abc import Sequence

import torch

from data.folders import Pair
from utils.checkpoint import Start
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, run
from utils.cli.training import add_labeled_data_options, add_training_options, parse_training_options
from utils.config import TrainingConfig
from utils.training.data import read_labeled
from utils.training.loop import fit, initial_model
from utils.training.methods import Supervised


def main() -> None:
    train(*parse())


def parse(arguments: Sequence[str] | None = None) -> tuple[TrainingConfig, Start | None]:
    parser = Parser(__doc__, prog="supervised_train.py")
    add_labeled_data_options(parser)
    add_training_options(parser)
    add_device_options(parser)
    return parse_training_options(parser, arguments)


def train(config: TrainingConfig, start: Start | None, pairs: Sequence[Pair] | None = None) -> None:
    """Train on the labeled slices of the config, or on these ``pairs``."""
    torch.manual_seed(config.seed)
    labeled, validation, preprocessing = read_labeled(config, start, pairs)
    method = Supervised(config, labeled, preprocessing)
    model = initial_model(config, start)
    fit(config, model, method, validation, preprocessing=preprocessing, script="supervised_train.py", start=start)


if __name__ == "__main__":
    run(main)
