"""Train CARes-UNet on labeled slices."""

import torch

from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, run
from utils.cli.training import (
    add_labeled_data_options,
    add_training_options,
    parse_training_options,
)
from utils.training.data import read_labeled
from utils.training.loop import fit, initial_model
from utils.training.methods import Supervised


def main() -> None:
    parser = Parser(__doc__)
    add_labeled_data_options(parser)
    add_training_options(parser)
    add_device_options(parser)
    config, start = parse_training_options(parser)
    torch.manual_seed(config.seed)

    labeled, validation, preprocessing = read_labeled(config, start)
    method = Supervised(config, labeled, preprocessing)
    model = initial_model(config, start)
    fit(config, model, method, validation, preprocessing=preprocessing, script=parser.prog, start=start)


if __name__ == "__main__":
    run(main)
