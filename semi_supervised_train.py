"""Train CARes-UNet on labeled and pseudo-labeled slices, half and half, and at last on the labeled ones alone."""

from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, DataLoader

from data.command_line import Parser, run
from data.errors import InputError
from data.files import pair_by_stem
from data.sampling import HalfAndHalf
from data.slices import LesionSlices
from utils.options import add_device_options
from utils.reporting import report_pairs
from utils.teacher import TeacherLabels
from utils.training import fit, initial_model
from utils.training_data import loader_options, read_labeled
from utils.training_options import (
    add_labeled_data_options,
    add_pseudo_labeled_data_options,
    add_training_options,
    parse_training_options,
)


def main() -> None:
    parser = Parser(__doc__)
    add_labeled_data_options(parser)
    add_pseudo_labeled_data_options(parser)
    add_training_options(parser)
    add_device_options(parser)
    config, start = parse_training_options(parser, epoch=200, save_folder=Path("runs/semi_supervised"))
    config = replace(config, method=config.method or ("teacher" if start else "pseudo")).validate()
    if config.batchsize % 2:
        raise InputError(
            f"--batchsize {config.batchsize}: half of it is labeled, half pseudo-labeled; give an even number"
        )
    torch.manual_seed(config.seed)

    labeled, validation, preprocessing = read_labeled(config, start)

    pseudo_pairs = pair_by_stem(config.folder("semi_img_path"), config.folder("semi_msk_path"))
    pseudo = LesionSlices(pseudo_pairs, preprocessing, cache_gb=config.cache_gb, pseudo=True)
    report_pairs("pseudo", pseudo)

    # Many unlabeled slices hold little lesion; drawn by its area, they hold about as much as labeled ones do.
    weights = 1 + pseudo.lesion_areas() if config.favor_lesions else torch.ones(len(pseudo))
    mixed_epochs = config.epoch - round(config.epoch * config.labeled_finish)
    print(
        f"method      {config.method} for {mixed_epochs} epochs, labeled slices alone for {config.epoch - mixed_epochs}"
    )
    teacher_labels = None
    if config.method == "teacher":
        teacher_labels = TeacherLabels(config.confidence, truth_known=bool(config.semi_truth_path))
        if config.semi_truth_path:  # in place of masks that are not learned, to score the labels that are
            truth_pairs = pair_by_stem(config.folder("semi_img_path"), config.semi_truth_path)
            pseudo = LesionSlices(truth_pairs, preprocessing, cache_gb=config.cache_gb)
    mixture = HalfAndHalf(len(labeled), weights, config.batchsize, mixed_epochs=mixed_epochs)
    batches = DataLoader(
        ConcatDataset([labeled, pseudo]),
        batch_sampler=mixture,
        **loader_options(config, labeled, pseudo),
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
        mixture=mixture,
        teacher_labels=teacher_labels,
    )


if __name__ == "__main__":
    run(main)
