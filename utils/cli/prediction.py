"""Command-line options of prediction, labeling and evaluation."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.folders import FOLDERS
from data.labels import IGNORED_GRAY
from utils.checkpoint import NAMES
from utils.cli.parser import Parser, add_options, number, settings
from utils.config import DEFAULT_FOLDERS, EvaluationConfig, LabelingConfig, PredictionConfig


def add_prediction_options(parser: Parser) -> None:
    """The flags of a prediction, for slices and scans."""
    helps = {
        "image_size": "side to resize to; default: as the checkpoint says",
        "align_grays": "scale gray levels; default: as in training",
        "align_frame": "crop slices and scans to the lungs; default: if the training slices are",
        "align_turns": "rotate to the orientation of the training set; default: as in training",
        "within_lungs": "no lesion beyond the lungs, closed over lesions; consolidation at their rims may be lost",
        "any_values": "process volumes whose values can't be those of a chest CT (MR, PET, z-scores)",
        "window": "for scans, and slices in Hounsfield units (HU): lung (-650,1500), or LEVEL,WIDTH",
        "hu_offset": "what was added to HU, such as 1024; default: as their values say",
        "series": "which series of DICOM folders with several, 1 for the first",
        "batchsize": "slices per batch; default: 8 on a GPU, else 1",
        "tta": "average over each slice and its mirror image (after --no-align_turns: its eight flips and rotations): "
        "more accurate, at as many times the cost; default: on if the network was trained with augmentation",
    }
    group = parser.add_argument_group("prediction")
    add_options(group, PredictionConfig, helps)


def add_networks_option(group: argparse._ActionsContainer, *flags: str, **options: Any) -> None:
    """The flag of the networks to predict with, by its published names or ``--model``."""
    group.add_argument(
        *(*flags, "--model"),
        dest=flags[0].removeprefix("--"),
        type=Path,
        nargs="+",
        metavar="PTH",
        help=f"checkpoint, or one of weights/: {NAMES}; several: the mean of their maps",
        **options,
    )


def add_score_options(parser: Parser) -> None:
    """The flags that decide the scores."""
    helps = {
        "threshold": "pixels with a higher probability are lesion",
        "empty": "value of a score of 0/0, such as the Dice of an empty mask for a slice without lesion",
    }
    add_options(parser.add_argument_group("scores"), EvaluationConfig, helps)


def add_evaluation_options(parser: Parser) -> None:
    """The flags of test.py for its input and its results."""
    group = parser.add_argument_group("input")
    source = group.add_mutually_exclusive_group(required=True)
    add_networks_option(source, "--pretrained_model")
    source.add_argument(
        "--predictions", type=Path, nargs="+", metavar="DIR", help="folders of saved maps or masks, one for each model"
    )
    group.add_argument("--data_root", type=Path, default=Path("."), help="folder that contains the folders below")
    helps = {
        "test_img_path": "slices, or scans; default: DATA_ROOT/Test-Image",
        "test_msk_path": "true masks; default: none, or DATA_ROOT/Test-Mask if it exists and --test_img_path is not "
        "given",
        "lung_mask_path": "lung masks, to report the lesion share of the lungs",
        "mask_threshold": "share of the gray levels of true masks above which pixels are lesion, for smoothed edges; "
        "default: masks have two values",
        "map_max": "value of certainty in --predictions; default: the largest of their type, 255 or 65535",
        "resize": "resize --predictions to the size of the true masks, as the field's tools do",
    }
    add_options(group, EvaluationConfig, helps)
    group.add_argument(
        "--label",
        type=number(int, 0),
        nargs="+",
        metavar="N",
        help="values of lesions in true masks of scans with several",
    )
    group = parser.add_argument_group("results")
    group.add_argument(
        *("--img_save_folder", "--out"),
        dest="img_save_folder",
        type=Path,
        help="folder for masks, tables and pictures; default: CARes_Unet, with --predictions runs/scores",
    )
    helps = {
        "save_prob": "also save maps of lesion probability, 8 bits",
        "save_uncertainty": "also save maps of its entropy: 0 for certainty, 255 (of scans, 1) for even chances",
        "save_dicom_seg": "also save the masks of DICOM scans as DICOM segmentation objects (needs highdicom)",
        "save_type": "solo: masks; compare: also each slice beside its true mask and prediction; overlay: also sheets "
        "of right and wrong pixels, one column for each model",
        "sort": "order of the overlay sheets",
        "table": "also print and save a table with the paper's columns",
    }
    add_options(group, EvaluationConfig, helps)


def add_labeling_options(parser: Parser) -> None:
    """The flags of fake_labels_generator.py for its input and its masks."""
    add_networks_option(parser, "--model_path", "--pretrained_model", required=True)
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder that contains the folders below")
    parser.add_argument(
        *("--Image_dir", "--images"),
        dest="image_dir",
        type=Path,
        help="slices or scans to label; default: DATA_ROOT/Unlabeled",
    )
    parser.add_argument(
        *("--Mask-dir", "--Mask_dir", "--out"),
        dest="mask_dir",
        type=Path,
        help="folder for the masks; default: DATA_ROOT/Pos-Mask",
    )
    helps = {
        "confidence": f"store pixels whose likelier class has a lower probability as {IGNORED_GRAY}, which "
        "semi_supervised_train.py ignores; 0: none",
        "truth_path": "true masks, if known, to score the labels",
    }
    add_options(parser, LabelingConfig, helps)


def parse_labeling_options(
    parser: Parser, arguments: Sequence[str] | None = None
) -> tuple[LabelingConfig, PredictionConfig]:
    """Parse the options of fake_labels_generator.py, and fill in its folders."""
    args = parser.parse_args(arguments)
    args.image_dir = args.image_dir or args.data_root / DEFAULT_FOLDERS["semi_img_path"]
    args.mask_dir = args.mask_dir or args.data_root / DEFAULT_FOLDERS["semi_msk_path"]
    return settings(args, LabelingConfig), settings(args, PredictionConfig)


def parse_evaluation_options(
    parser: Parser, arguments: Sequence[str] | None = None
) -> tuple[EvaluationConfig, PredictionConfig]:
    """Parse the options of test.py, and fill in folders; None: there are no images, or no true masks."""
    args = parser.parse_args(arguments)
    if args.predictions:
        _check_predictions(parser, args)
    elif not args.resize:
        parser.error("--no-resize: applies to --predictions; a model's maps always have the size of the slice")
    _fill_in_folders(args)
    if args.test_msk_path is None and (args.save_type == "overlay" or args.table):
        flag = "--save_type overlay" if args.save_type == "overlay" else f"--table {args.table}"
        parser.error(f"{flag}: needs true masks; give --test_msk_path")
    return settings(args, EvaluationConfig), settings(args, PredictionConfig)


def _check_predictions(parser: Parser, args: argparse.Namespace) -> None:
    if len({folder.resolve() for folder in args.predictions}) < len(args.predictions):
        parser.error("--predictions: contains a folder twice; give each model's folder once")
    for flag in ("tta", "save_prob", "save_uncertainty", "save_dicom_seg"):
        if getattr(args, flag):
            parser.error(f"--{flag}: needs --pretrained_model; --predictions are used unchanged")
    if args.image_size:
        parser.error("--image_size: needs --pretrained_model; --predictions are scored at the size of the true masks")


def _fill_in_folders(args: argparse.Namespace) -> None:
    images, truth = (args.data_root / name for name in FOLDERS["test"])
    if args.predictions:
        args.test_msk_path = args.test_msk_path or truth
        if args.test_img_path is None and images.is_dir() and args.test_msk_path == truth:
            args.test_img_path = images
        args.img_save_folder = args.img_save_folder or Path("runs/scores")
    elif args.test_img_path is None:
        args.test_img_path = images
        if args.test_msk_path is None and truth.is_dir():
            args.test_msk_path = truth
