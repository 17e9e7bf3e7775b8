"""Command-line options of prediction, labeling and evaluation."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data.folders import FOLDERS
from data.labels import IGNORED_GRAY
from utils.cli.parser import Parser, number, settings, window
from utils.config import DEFAULT_FOLDERS, EvaluationConfig, LabelingConfig, PredictionConfig
from utils.evaluation.metrics import EMPTY_RULES


def add_prediction_options(parser: Parser) -> None:
    group = parser.add_argument_group("prediction")
    group.add_argument(
        "--image_size", type=number(int, 16, 4096), help="side to resize to; default: as the checkpoint says"
    )
    group.add_argument("--batchsize", type=number(int, 1), help="slices per batch; default: 8 on a GPU, else 1")
    group.add_argument(
        "--tta",
        action=argparse.BooleanOptionalAction,
        help="average over each slice and its mirror image (after --no-align_turns: its eight flips and rotations): "
        "more accurate, at as many times the cost; default: on if the network was trained with augmentation",
    )
    group.add_argument(
        "--window", type=window, default="lung", help="for scans: lung (-650,1500), or LEVEL,WIDTH in HU"
    )


def add_evaluation_options(parser: Parser) -> None:
    group = parser.add_argument_group("input")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pretrained_model", type=Path, nargs="+", metavar="PTH", help="checkpoint; several: the mean of their maps"
    )
    source.add_argument(
        "--predictions", type=Path, nargs="+", metavar="DIR", help="folders of saved maps or masks, one for each model"
    )
    group.add_argument("--data_root", type=Path, default=Path("."), help="folder that contains the folders below")
    group.add_argument("--test_img_path", type=Path, help="slices, or scans; default: DATA_ROOT/Test-Image")
    group.add_argument(
        "--test_msk_path",
        type=Path,
        help="true masks; default: none, or DATA_ROOT/Test-Mask if it exists and --test_img_path is not given",
    )
    group.add_argument("--lung_mask_path", type=Path, help="lung masks, to report the lesion share of the lungs")
    group.add_argument(
        "--resize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="resize --predictions to the size of the true masks, as the field's tools do",
    )
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--threshold", type=number(float, 0, 0.999), default=0.5, help="pixels with a higher probability are lesion"
    )
    group.add_argument(
        "--empty",
        choices=list(EMPTY_RULES),
        default="one",
        help="value of a score of 0/0, such as the Dice of an empty mask for a slice without lesion",
    )
    group = parser.add_argument_group("results")
    group.add_argument(
        "--img_save_folder",
        type=Path,
        help="folder for masks, tables and pictures; default: CARes_Unet, with --predictions runs/scores",
    )
    group.add_argument("--save_prob", action="store_true", help="also save maps of lesion probability, 8 bits")
    group.add_argument(
        "--save_type",
        choices=["solo", "compare", "overlay"],
        default="solo",
        help="solo: masks; compare: also each slice beside its true mask and prediction; overlay: also sheets of right "
        "and wrong pixels, one column for each model",
    )
    group.add_argument("--sort", choices=["dice", "name"], default="dice", help="order of the overlay sheets")
    group.add_argument(
        "--table", choices=["markdown", "latex"], help="also print and save a table with the paper's columns"
    )


def add_labeling_options(parser: Parser) -> None:
    parser.add_argument("--model_path", type=Path, required=True, help="checkpoint of supervised_train.py")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder that contains the folders below")
    parser.add_argument(
        "--Image_dir", dest="image_dir", type=Path, help="slices to label, default: DATA_ROOT/Unlabeled"
    )
    parser.add_argument(
        "--Mask-dir", "--Mask_dir", dest="mask_dir", type=Path, help="folder for the masks; default: DATA_ROOT/Pos-Mask"
    )
    parser.add_argument(
        "--confidence",
        type=number(float, 0, 1),
        default=0.0,
        help=f"store pixels whose likelier class has a lower probability as {IGNORED_GRAY}, which "
        "semi_supervised_train.py ignores; 0: none",
    )
    parser.add_argument("--truth_path", type=Path, help="true masks, if known, to score the labels")


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
    for flag in ("tta", "save_prob"):
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
