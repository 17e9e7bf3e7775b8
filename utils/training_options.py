"""Command-line options of the trainers."""

import argparse
import math
import os
import shutil
from pathlib import Path

from data.command_line import Parser, number
from data.errors import InputError
from data.files import Pair, cases_of, pair_by_stem, split_pairs
from data.slices import LesionSlices
from utils.checkpoint import read_checkpoint
from utils.options import FOLDERS, complete
from utils.results import holds_something

# The defaults of the options below are the best recipe found.
RECIPES = {
    "default": {},
    "paper": {
        "epoch": 1200,
        "batchsize": 4,
        "lr": 5e-4,
        "lr_schedule": "step",
        "optimizer_type": "ranger",
        "method": "pseudo",
        "favor_lesions": False,
        "labeled_finish": 0.0,
        "align_grays": False,
        "align_turns": False,
        "data_augmentation": False,
        "lesion_margin": 0.0,
        "dice_over": "batch",
        "ema_decay": 0.0,
        "clip_grad": 0.0,
        "amp": "off",
    },
    "cpu": {"base_channels": 8, "image_size": 192},
}
COMPILERS = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++", "cl"]
NETWORK_OPTIONS = {"base_channels": 64, "block": "residual", "upsample": "carafe"}
PUBLISHED_DECAY = {"decay_rate": 0.1, "decay_epoch": 30, "decay_start_epoch": 800}


def add_labeled_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("labeled slices")
    group.add_argument("--data_root", type=Path, default=Path("."), help="folder that holds the ones below")
    group.add_argument("--train_img_path", type=Path, help="default: DATA_ROOT/Train-Image")
    group.add_argument("--train_msk_path", type=Path, help="default: DATA_ROOT/Train-Mask")
    group.add_argument("--val_img_path", type=Path, help="validate on this folder instead of on --val_fraction")
    group.add_argument("--val_msk_path", type=Path, help="its masks")
    group.add_argument(
        "--val_fraction",
        type=number(float, 0, 0.9),
        default=0.0,
        help="share of labeled slices, or scans, that are kept from training to choose the best epoch by",
    )
    group.add_argument("--image_size", type=number(int, 16, 4096), default=256, help="side to which slices are resized")
    group.add_argument(
        "--align_grays",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="scale each slice so that its soft tissue has one gray level, whatever window it was stored with",
    )
    group.add_argument(
        "--align_turns",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn slices as those lie that were trained on, and augment by their mirror images; without it slices may "
        "lie in any way, and are augmented by all flips and turns",
    )
    parser.set_defaults(typical_slice=None)  # made of the labeled slices, or the checkpoint's
    group.add_argument(
        "--data_augmentation", action=argparse.BooleanOptionalAction, default=True, help="random turns, shifts, grays"
    )


def add_pseudo_labeled_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("pseudo-labeled slices")
    group.add_argument("--semi_img_path", type=Path, help="default: DATA_ROOT/Unlabeled")
    group.add_argument(
        "--semi_msk_path", type=Path, help="masks by fake_labels_generator.py; default: DATA_ROOT/Pos-Mask"
    )
    group.add_argument(
        "--semi_truth_path", type=Path, help="true masks, if they are known, to score the teacher's labels in log.csv"
    )
    group.add_argument(
        "--method",
        choices=["pseudo", "teacher"],
        help="pseudo: learn these masks; teacher: learn what the averaged weights find in their place at every step; "
        "default: teacher with --pretrained_model, else pseudo",
    )
    group.add_argument(
        "--favor_lesions",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw these slices in proportion to the lesion area in their masks, not evenly",
    )
    group.add_argument(
        "--labeled_finish",
        type=number(float, 0, 1),
        default=0.45,
        help="share of the epochs, the last ones, that learn labeled slices alone, twice each: their masks are right",
    )
    group.add_argument(
        "--confidence",
        type=number(float, 0, 1),
        default=0.0,
        help="teacher: ignore pixels whose likelier class has a probability below this; these are mostly at the rims "
        "of lesions, of which the network then finds less, hence 0",
    )


def add_training_options(parser: Parser, *, epoch: int, save_folder: str) -> None:
    group = parser.add_argument_group("model and training")
    group.add_argument(
        "--recipe",
        choices=list(RECIPES),
        default="default",
        help="paper: as published; cpu: small; what a --pretrained_model was made with (network, size, gray levels, "
        "turns) stays as it was",
    )
    group.add_argument("--base_channels", type=number(int, 1), default=64, help="width of the first level")
    group.add_argument(
        "--block", choices=["residual", "plain"], default="residual", help="plain: without the paper's shortcuts"
    )
    group.add_argument(
        "--upsample", choices=["carafe", "bilinear"], default="carafe", help="bilinear: without the paper's CARAFE"
    )
    group.add_argument("--pretrained_model", type=Path, help="checkpoint whose weights to start from")
    group.add_argument("--epoch", type=number(int, 1), default=epoch, help="passes over the labeled slices")
    group.add_argument("--batchsize", type=number(int, 1), default=4, help="slices a step")
    group.add_argument(
        "--optimizer_type", choices=["ranger", "adam", "adamw", "sgd"], default="ranger", help="optimizer"
    )
    group.add_argument(
        "--lr",
        type=number(float, 0, above=True),
        help="learning rate; default: 5e-3 up to width 16, beyond it in inverse proportion to the width",
    )
    group.add_argument(
        "--weight_decay", type=number(float, 0), default=0.0, help="decoupled, where the optimizer does so"
    )
    group.add_argument(
        "--lr_schedule",
        choices=["flat_cosine", "step"],
        help="flat_cosine: constant for 72 %% of the run, then a cosine to 0; step: as the --decay flags tell, "
        "which imply it; default: flat_cosine",
    )
    group.add_argument("--decay_rate", type=number(float, 0, 1, above=True), help="published: 0.1")
    group.add_argument("--decay_epoch", type=number(int, 1), help="epochs between two decays; published: 30")
    group.add_argument("--decay_start_epoch", type=number(int, 0), help="no decay up to this epoch; published: 800")
    group.add_argument(
        "--lesion_margin",
        type=number(float, 0),
        default=1.5,
        help="by which the logits of lesion must win on labeled slices in training, so that more is found; 0: plain",
    )
    group.add_argument(
        "--dice_over",
        choices=["slice", "batch"],
        default="slice",
        help="soft Dice of the loss: the mean of the slices' own, or one of all pixels of a batch, as in the paper",
    )
    group.add_argument("--clip_grad", type=number(float, 0), default=1.0, help="largest gradient norm; 0: no limit")
    group.add_argument("--ema_decay", type=number(float, 0, 0.99999), default=0.99, help="of averaged weights; 0: none")
    group.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="torch.compile the network"
    )
    group.add_argument(
        "--accumulate", type=number(int, 1), default=1, help="parts in which a batch is computed, to save memory"
    )
    group.add_argument(
        "--checkpoint_activations",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep less for the backward pass and compute it again: less memory, a third more time",
    )
    group.add_argument(
        "--seed", type=number(int, 0, 2**63 - 1), default=0, help="of the split, the weights and the batches"
    )

    group = parser.add_argument_group("results")
    group.add_argument("--save_folder", type=Path, default=Path(save_folder), help="checkpoints, log, pictures")
    group.add_argument("--save_start_epoch", type=number(int, 0), default=0, help="no snapshot up to this epoch")
    group.add_argument("--snapshots", type=number(int, 0), default=0, help="epochs between two snapshots; 0: none")
    group.add_argument("--resume", type=Path, metavar="LAST.PTH", help="go on with this run; takes its flags over")


def parse_training_options(parser: Parser) -> argparse.Namespace:
    """Parse with the defaults of the recipe, of the checkpoint to start from, or of the run to resume.

    Flags on the command line win over all of these. Fills in what depends on other flags, and adds ``checkpoint``,
    the content of the file to resume or to start from (or None).
    """
    given, _ = parser.parse_known_args()
    source = given.resume or given.pretrained_model
    checkpoint = read_checkpoint(source) if source else None
    parser.set_defaults(**{name: value for name, value in RECIPES[given.recipe].items() if name in given})
    if checkpoint:
        network = {name: checkpoint["model"].get(name, default) for name, default in NETWORK_OPTIONS.items()}
        typical = checkpoint["preprocessing"]["typical_slice"]
        parser.set_defaults(**network, **checkpoint["preprocessing"], align_turns=typical is not None)
    if given.resume:
        if "training" not in checkpoint or checkpoint["run"]["script"] != parser.prog:
            parser.error(f"--resume {source}: not the last.pth of a run of {parser.prog}; give that file")
        if given.pretrained_model:
            parser.error("--resume and --pretrained_model: a resumed run has its weights; give one of them")
        if given.recipe not in ("default", checkpoint["run"]["options"]["recipe"]):
            parser.error(f"--recipe {given.recipe}: a resumed run has its recipe; leave it out, give single flags")
        parser.set_defaults(**checkpoint["run"]["options"], save_folder=source.parent)
    args = parser.parse_args()
    args.script, args.checkpoint = parser.prog, checkpoint

    for name, used in network.items() if checkpoint else ():
        if (asked := getattr(args, name)) != used:
            parser.error(f"--{name} {asked}: the network in {source} has {used}; leave the flag out")
    if args.resume and args.optimizer_type != (used := checkpoint["run"]["options"]["optimizer_type"]):
        parser.error(f"--optimizer_type {args.optimizer_type}: the run in {source} uses {used}; leave the flag out")
    if args.resume and args.epoch <= checkpoint["epoch"]:
        parser.error(f"--resume {source}: has done its {checkpoint['epoch']} epochs; give a larger --epoch to go on")
    last = args.save_folder / "last.pth"
    if not (args.resume and last.exists() and last.samefile(args.resume)) and holds_something(args.save_folder):
        hint = f"--resume {last} to go on with its run, or " if last.exists() else ""
        parser.error(f"--save_folder {args.save_folder}: is not empty; {hint}name another folder")
    if args.batchsize % args.accumulate:
        parser.error(f"--accumulate {args.accumulate}: does not divide --batchsize {args.batchsize}; change either")
    part = args.batchsize // args.accumulate
    if part * math.ceil(args.image_size / 16) ** 2 == 1:
        flags = (
            "--batchsize 1" if args.accumulate == 1 else f"--batchsize {args.batchsize} --accumulate {args.accumulate}"
        )
        parser.error(f"{flags}: leaves one pixel to normalise by at this --image_size; raise that or --batchsize")
    if args.compile and args.checkpoint_activations:
        parser.error("--compile and --checkpoint_activations: do not go together; leave one of them out")
    if args.compile and not any(map(shutil.which, COMPILERS)):
        parser.error(f"--compile: needs a C++ compiler ({', '.join(COMPILERS)}), none was found; leave it out")
    if (args.val_img_path is None) != (args.val_msk_path is None):
        parser.error("--val_img_path and --val_msk_path go together; give both or none")
    if "method" in args:
        args.method = args.method or ("teacher" if checkpoint else "pseudo")
        if args.method == "teacher" and not args.data_augmentation:
            parser.error(
                "--method teacher: learns nothing with --no-data_augmentation (or --recipe paper); give pseudo"
            )
        if args.method == "pseudo" and args.confidence:
            parser.error(
                f"--confidence {args.confidence:g}: is for the labels of --method teacher; for the masks of --method "
                "pseudo give it to fake_labels_generator.py"
            )
        if args.method == "pseudo" and args.semi_truth_path:
            parser.error(
                "--semi_truth_path: scores the labels of --method teacher; those of --method pseudo are scored by "
                "fake_labels_generator.py --truth_path"
            )
    if args.lr is None:
        # As Yang et al. 2021 derive for optimizers of Adam's kind, and as cross-validation found.
        args.lr = 5e-3 * min(1.0, 16 / args.base_channels)
    if args.lr_schedule is None:
        decays = any(getattr(args, name) is not None for name in PUBLISHED_DECAY)
        args.lr_schedule = "step" if decays else "flat_cosine"
    for name, published in PUBLISHED_DECAY.items():
        if getattr(args, name) is None:
            setattr(args, name, published)
    if args.resume and args.epoch != (planned := checkpoint["run"]["options"]["epoch"]):
        print(f"resume      {args.epoch} epochs in place of {planned}: the learning-rate schedule stretches with them")
    return complete(args, parser)


def options_of(args: argparse.Namespace) -> dict:
    """The options as plain types, for a checkpoint; without those that belong to this machine or this call."""
    here = {"device", "script", "checkpoint", "typical_slice", "resume", "pretrained_model", "save_folder"}
    here |= {name for name, folder in FOLDERS.items() if getattr(args, name, None) == args.data_root / folder}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in here and value is not None
    }


def preprocessing(args: argparse.Namespace) -> dict:
    """What is done to every slice before the network sees it, as the data sets take it and checkpoints keep it."""
    typical = args.typical_slice if args.align_turns else None
    return {"image_size": args.image_size, "align_grays": args.align_grays, "typical_slice": typical}


def loader_options(args: argparse.Namespace, *slices: LesionSlices) -> dict:
    """How a DataLoader is to read the slices: by workers if they are decoded anew at every access."""
    workers = args.num_workers
    if workers is None:
        workers = 0 if all(part.kept for part in slices) else min(4, os.cpu_count())
    return {"num_workers": workers, "pin_memory": args.device.type == "cuda"}


def labeled_pairs(args: argparse.Namespace) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on and those to validate on: the folders of --val_img_path, or a --val_fraction."""
    pairs = pair_by_stem(args.train_img_path, args.train_msk_path)
    if args.val_img_path:
        return pairs, pair_by_stem(args.val_img_path, args.val_msk_path)
    training, validation = split_pairs(pairs, args.val_fraction, args.seed, cases_of(pairs))
    if not training:
        raise InputError(
            f"--val_fraction {args.val_fraction:g}: leaves none of the {len(pairs)} slices of {args.train_img_path} to "
            "train on; lower it or add slices"
        )
    return training, validation
