"""Train CARes-UNet on labeled and pseudo-labeled slices, half and half, and at last on the labeled ones alone."""

import torch
from torch.utils.data import ConcatDataset, DataLoader

from data.command_line import Parser, run
from data.files import pair_by_stem
from data.sampling import HalfAndHalf
from data.slices import LesionSlices
from data.turns import typical_slice
from utils.options import add_device_options
from utils.reporting import report_pairs
from utils.teacher import TeacherLabels
from utils.training import fit, initial_model
from utils.training_options import (
    add_labeled_data_options,
    add_pseudo_labeled_data_options,
    add_training_options,
    labeled_pairs,
    loader_options,
    parse_training_options,
    preprocessing,
)


def main() -> None:
    parser = Parser(__doc__)
    add_labeled_data_options(parser)
    add_pseudo_labeled_data_options(parser)
    add_training_options(parser, epoch=200, save_folder="runs/semi_supervised")
    add_device_options(parser)
    args = parse_training_options(parser)
    if args.batchsize % 2:
        parser.error(f"--batchsize {args.batchsize}: half of it is labeled, half pseudo-labeled; give an even number")
    torch.manual_seed(args.seed)

    train_pairs, val_pairs = labeled_pairs(args)
    labeled = LesionSlices(train_pairs, **preprocessing(args), cache_gb=args.cache_gb)
    if args.align_turns and not args.typical_slice:
        args.typical_slice = typical_slice(labeled.images())
        labeled.turn_towards(args.typical_slice)  # as all other slices will be
    validation = LesionSlices(val_pairs, **preprocessing(args), cache_gb=args.cache_gb) if val_pairs else None
    report_pairs("labeled", labeled)
    report_pairs("validation", validation)

    pseudo_pairs = pair_by_stem(args.semi_img_path, args.semi_msk_path)
    pseudo = LesionSlices(pseudo_pairs, **preprocessing(args), cache_gb=args.cache_gb, pseudo=True)
    report_pairs("pseudo", pseudo)

    # Many unlabeled slices hold little lesion; drawn by its area, they hold about as much as labeled ones do.
    weights = 1 + pseudo.lesion_areas() if args.favor_lesions else torch.ones(len(pseudo))
    mixed_epochs = args.epoch - round(args.epoch * args.labeled_finish)
    print(f"method      {args.method} for {mixed_epochs} epochs, labeled slices alone for {args.epoch - mixed_epochs}")
    teacher_labels = None
    if args.method == "teacher":
        teacher_labels = TeacherLabels(args.confidence, truth_known=bool(args.semi_truth_path))
        if args.semi_truth_path:  # in place of masks that are not learned, to score the labels that are
            truth_pairs = pair_by_stem(args.semi_img_path, args.semi_truth_path)
            pseudo = LesionSlices(truth_pairs, **preprocessing(args), cache_gb=args.cache_gb)
    mixture = HalfAndHalf(len(labeled), weights, args.batchsize, mixed_epochs=mixed_epochs)
    batches = DataLoader(
        ConcatDataset([labeled, pseudo]),
        batch_sampler=mixture,
        **loader_options(args, labeled, pseudo),
    )
    fit(initial_model(args), batches, labeled, validation, args, mixture=mixture, teacher_labels=teacher_labels)


if __name__ == "__main__":
    run(main)
