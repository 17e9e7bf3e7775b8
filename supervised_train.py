"""Train CARes-UNet on labeled slices."""

import torch
from torch.utils.data import DataLoader

from data.command_line import Parser, run
from utils.options import add_device_options
from utils.training import fit, initial_model
from utils.training_data import loader_options, read_labeled
from utils.training_options import (
    add_labeled_data_options,
    add_training_options,
    parse_training_options,
)


def main() -> None:
    parser = Parser(__doc__)
    add_labeled_data_options(parser)
    add_training_options(parser)
    add_device_options(parser)
    config, start = parse_training_options(parser)
    torch.manual_seed(config.seed)

    labeled, validation, preprocessing = read_labeled(config, start)

    batches = DataLoader(
        labeled, batch_size=config.batchsize, shuffle=True, drop_last=True, **loader_options(config, labeled)
    )
    fit(
        initial_model(config, start),
        batches,
        labeled,
        validation,
        config,
        preprocessing=preprocessing,
        script=parser.prog,
        start=start,
    )


if __name__ == "__main__":
    run(main)
