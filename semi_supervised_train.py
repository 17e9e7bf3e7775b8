"""Train CARes-UNet on labeled and pseudo-labeled slices, half and half."""

import torch
from torch.utils.data import ConcatDataset, DataLoader

from data.command_line import Parser, run
from data.files import pair_by_stem
from data.sampling import HalfAndHalf
from data.slices import LesionSlices
from utils.options import (
    add_device_options,
    add_labeled_data_options,
    add_pseudo_labeled_data_options,
    add_training_options,
    labeled_pairs,
    loader_options,
    parse_training_options,
    preprocessing,
)
from utils.reporting import report_pairs
from utils.training import fit, initial_model


def main() -> None:
    parser = Parser(__doc__)
    add_labeled_data_options(parser)
    add_pseudo_labeled_data_options(parser)
    add_training_options(parser, save_folder="runs/semi_supervised")
    add_device_options(parser)
    args = parse_training_options(parser)
    if args.batchsize % 2:
        parser.error(f"--batchsize {args.batchsize}: half of it is labeled, half pseudo-labeled; give an even number")
    torch.manual_seed(args.seed)

    train_pairs, val_pairs = labeled_pairs(args)
    pseudo_pairs = pair_by_stem(args.semi_img_path, args.semi_msk_path)
    labeled = LesionSlices(train_pairs, **preprocessing(args), cache_gb=args.cache_gb)
    pseudo = LesionSlices(pseudo_pairs, **preprocessing(args), cache_gb=args.cache_gb, pseudo=True)
    validation = LesionSlices(val_pairs, **preprocessing(args), cache_gb=args.cache_gb) if val_pairs else None
    report_pairs("labeled", labeled)
    report_pairs("pseudo", pseudo)
    report_pairs("validation", validation)

    batches = DataLoader(
        ConcatDataset([labeled, pseudo]),
        batch_sampler=HalfAndHalf(len(labeled), len(pseudo), args.batchsize),
        **loader_options(args, labeled, pseudo),
    )
    fit(initial_model(args), batches, validation, args)


if __name__ == "__main__":
    run(main)
