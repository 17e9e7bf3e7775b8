"""Train CARes-UNet on labeled slices."""

import torch
from torch.utils.data import DataLoader

from data.command_line import Parser, run
from data.slices import LesionSlices
from data.turns import typical_slice
from utils.options import add_device_options
from utils.reporting import report_pairs
from utils.training import fit, initial_model
from utils.training_options import (
    add_labeled_data_options,
    add_training_options,
    labeled_pairs,
    loader_options,
    parse_training_options,
    preprocessing,
)


def main() -> None:
    parser = Parser(__doc__)
    add_labeled_data_options(parser)
    add_training_options(parser, epoch=400, save_folder="runs/supervised")
    add_device_options(parser)
    args = parse_training_options(parser)
    torch.manual_seed(args.seed)

    train_pairs, val_pairs = labeled_pairs(args)
    labeled = LesionSlices(train_pairs, **preprocessing(args), cache_gb=args.cache_gb)
    if args.align_turns and not args.typical_slice:
        args.typical_slice = typical_slice(labeled.images())
        labeled.turn_towards(args.typical_slice)  # as all other slices will be
    validation = LesionSlices(val_pairs, **preprocessing(args), cache_gb=args.cache_gb) if val_pairs else None
    report_pairs("labeled", labeled)
    report_pairs("validation", validation)

    batches = DataLoader(
        labeled, batch_size=args.batchsize, shuffle=True, drop_last=True, **loader_options(args, labeled)
    )
    fit(initial_model(args), batches, labeled, validation, args)


if __name__ == "__main__":
    run(main)
