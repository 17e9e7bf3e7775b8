"""Command-line options of the trainers."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from data.preprocess.preprocessing import Preprocessing
from models import MODELS
from models.blocks import BLOCKS
from models.upsampling import UPSAMPLINGS
from utils.checkpoint import Start, read_checkpoint
from utils.cli.parser import Parser, number, settings
from utils.config import NETWORK_FIELDS, RECIPES, TrainingConfig, overrides
from utils.device import choose_device, choose_precision
from utils.output.folder import holds_something
from utils.training.losses import LOSSES
from utils.training.methods import SEMI_SUPERVISED
from utils.training.optimizers import OPTIMIZERS, SCHEDULES

DEPENDENT = ("lr_schedule", "decay_rate", "decay_epoch", "decay_start_epoch")  # the default of one depends on others


def add_labeled_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("labeled slices")
    group.add_argument("--data_root", type=Path, help="folder that contains the folders below")
    group.add_argument("--train_img_path", type=Path, help="default: DATA_ROOT/Train-Image")
    group.add_argument("--train_msk_path", type=Path, help="default: DATA_ROOT/Train-Mask")
    group.add_argument("--val_img_path", type=Path, help="validate on this folder instead of --val_fraction")
    group.add_argument("--val_msk_path", type=Path, help="its masks")
    group.add_argument(
        "--val_fraction",
        type=number(float, 0, 0.9),
        help="share of labeled slices, or scans, to hold out for choosing the best epoch",
    )
    group.add_argument("--image_size", type=number(int, 16, 4096), help="side to which slices are resized")
    group.add_argument(
        "--align_grays",
        action=argparse.BooleanOptionalAction,
        help="scale gray levels so that soft tissue looks the same in all slices, whatever their window",
    )
    group.add_argument(
        "--align_turns",
        action=argparse.BooleanOptionalAction,
        help="rotate all slices to the orientation of the training set, and augment with mirror images; without it, "
        "augment with all flips and rotations",
    )
    group.add_argument(
        "--data_augmentation", action=argparse.BooleanOptionalAction, help="random rotations, shifts, gray levels"
    )


def add_pseudo_labeled_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("pseudo-labeled slices")
    group.add_argument("--semi_img_path", type=Path, help="default: DATA_ROOT/Unlabeled")
    group.add_argument(
        "--semi_msk_path", type=Path, help="masks of fake_labels_generator.py; default: DATA_ROOT/Pos-Mask"
    )
    group.add_argument(
        "--semi_truth_path", type=Path, help="true masks, if known, to score the teacher's labels in log.csv"
    )
    group.add_argument(
        "--method",
        choices=list(SEMI_SUPERVISED),
        help="pseudo: learn these masks; teacher: learn the predictions of the averaged weights at every step; "
        "default: teacher with --pretrained_model, else pseudo",
    )
    group.add_argument(
        "--favor_lesions",
        action=argparse.BooleanOptionalAction,
        help="draw these slices in proportion to the lesion area of their masks, not uniformly",
    )
    group.add_argument(
        "--labeled_finish",
        type=number(float, 0, 1),
        help="share of the epochs, at the end, that train on labeled slices only, twice each",
    )
    group.add_argument(
        "--confidence",
        type=number(float, 0, 1),
        help="teacher: ignore pixels whose likelier class has a lower probability; most are at the rims of lesions, "
        "of which the network then finds less",
    )


def add_training_options(parser: Parser) -> None:
    group = parser.add_argument_group("model and training")
    group.add_argument(
        "--recipe",
        choices=list(RECIPES),
        help="paper: as published; cpu: small. Network, size, gray levels and orientation of a --pretrained_model "
        "are kept",
    )
    group.add_argument("--model", choices=list(MODELS), help="network")
    group.add_argument("--base_channels", type=number(int, 1), help="width of the first level")
    group.add_argument("--block", choices=list(BLOCKS), help="plain: without the paper's shortcuts")
    group.add_argument("--upsample", choices=list(UPSAMPLINGS), help="bilinear: without the paper's CARAFE")
    group.add_argument("--pretrained_model", type=Path, help="checkpoint to start from")
    group.add_argument("--epoch", type=number(int, 1), help="number of passes over the labeled slices")
    group.add_argument("--batchsize", type=number(int, 1), help="slices per step")
    group.add_argument("--optimizer_type", choices=list(OPTIMIZERS), help="optimizer")
    group.add_argument(
        "--lr",
        type=number(float, 0, above=True),
        help="learning rate; default: 5e-3 up to width 16, inversely proportional to the width above it",
    )
    group.add_argument("--weight_decay", type=number(float, 0), help="decoupled, if the optimizer supports it")
    group.add_argument(
        "--lr_schedule",
        choices=list(SCHEDULES),
        help="flat_cosine: constant for 72 %% of the run, then a cosine to 0; step: as the --decay flags say, "
        "which imply it; default: flat_cosine",
    )
    group.add_argument("--decay_rate", type=number(float, 0, 1, above=True), help="published: 0.1")
    group.add_argument("--decay_epoch", type=number(int, 1), help="epochs between two decays; published: 30")
    group.add_argument("--decay_start_epoch", type=number(int, 0), help="epochs before the first decay; published: 800")
    group.add_argument("--loss", choices=list(LOSSES), help="ce_dice: cross entropy + soft Dice; ce: cross entropy")
    group.add_argument(
        "--lesion_margin",
        type=number(float, 0),
        help="margin by which lesion logits must win on labeled slices in training, to find more lesion; 0: none",
    )
    group.add_argument(
        "--dice_over",
        choices=["slice", "batch"],
        help="soft Dice in the loss: the mean over slices, or one value for all pixels of a batch, as in the paper",
    )
    group.add_argument("--clip_grad", type=number(float, 0), help="maximum gradient norm; 0: no limit")
    group.add_argument(
        "--ema_decay", type=number(float, 0, 0.99999), help="decay of the averaged weights; 0: no averaging"
    )
    group.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile the network")
    group.add_argument(
        "--accumulate", type=number(int, 1), help="compute each batch in this many parts, to save memory"
    )
    group.add_argument("--seed", type=number(int, 0, 2**63 - 1), help="seed of the split, the weights and the batches")

    group = parser.add_argument_group("results")
    group.add_argument("--save_folder", type=Path, help="folder for checkpoints, log and pictures")
    group.add_argument("--save_start_epoch", type=number(int, 0), help="epochs before the first snapshot")
    group.add_argument("--snapshots", type=number(int, 0), help="epochs between snapshots; 0: none")
    group.add_argument("--resume", type=Path, metavar="LAST.PTH", help="resume this run with its flags")


def parse_training_options(
    parser: Parser, arguments: Sequence[str] | None = None, **defaults: object
) -> tuple[TrainingConfig, Start | None]:
    """The config of a run, and the checkpoint that it starts from, if any. ``defaults``: those of the script.

    Flags on the command line override the settings of the run to resume or of the network to start from; these
    override the recipe.
    """
    names = [field.name for field in fields(TrainingConfig)]
    parser.set_defaults(**{name: getattr(TrainingConfig(), name) for name in names if name not in DEPENDENT})
    parser.set_defaults(**defaults)
    given, _ = parser.parse_known_args(arguments)
    start = _read_start(given)
    parser.set_defaults(**overrides(given.recipe))
    if start:
        parser.set_defaults(**_network(start), **Preprocessing(**start.content["preprocessing"]).summary())
    if start and start.resume:
        kept = _options_to_resume(parser, given, start)
        parser.set_defaults(**{name: kept[name] for name in kept if name in names}, save_folder=start.path.parent)
    args = parser.parse_args(arguments)

    if start:
        _stop_unless_it_fits(parser, args, start)
    _stop_if_the_folder_is_taken(parser, args)
    if args.lr_schedule is None and any(getattr(args, name) is not None for name in DEPENDENT[1:]):
        args.lr_schedule = "step"
    config = settings(args, TrainingConfig).validate()
    choose_precision(config.amp, choose_device(config.device))  # fails before any slice is read
    if args.resume and config.epoch != kept["epoch"]:
        print(f"resume      {config.epoch} epochs instead of {kept['epoch']}: the learning-rate schedule is stretched")
    return config, start


def _read_start(given: argparse.Namespace) -> Start | None:
    source = given.resume or given.pretrained_model
    return Start(source, read_checkpoint(source), resume=given.resume is not None) if source else None


def _network(start: Start) -> dict[str, object]:
    """The options that say which network a checkpoint holds."""
    network = start.content["model"]
    options = {name: network.get(name, getattr(TrainingConfig, name)) for name in NETWORK_FIELDS}
    return {"model": network["name"], **options}


def _options_to_resume(parser: Parser, given: argparse.Namespace, start: Start) -> dict[str, object]:
    kept = start.content["run"]["options"] if "training" in start.content else {}
    if not kept or start.content["run"]["script"] != parser.prog:
        parser.error(f"--resume {start.path}: not the last.pth of a run of {parser.prog}; give that file")
    if given.pretrained_model:
        parser.error("--resume and --pretrained_model: a resumed run has weights already; give one of the two")
    if given.recipe not in ("default", kept["recipe"]):
        parser.error(f"--recipe {given.recipe}: a resumed run keeps its recipe; leave it out and override single flags")
    return kept


def _stop_unless_it_fits(parser: Parser, args: argparse.Namespace, start: Start) -> None:
    """Refuse flags that differ from the network, or from what the run to resume can change."""
    for name, used in _network(start).items():
        if (asked := getattr(args, name)) != used:
            parser.error(f"--{name} {asked}: the network in {start.path} has {used}; leave the flag out")
    if not start.resume:
        return
    if args.optimizer_type != (used := start.content["run"]["options"]["optimizer_type"]):
        parser.error(f"--optimizer_type {args.optimizer_type}: the run in {start.path} uses {used}; leave the flag out")
    if args.epoch <= (done := start.content["epoch"]):
        parser.error(f"--resume {start.path}: is finished after {done} epochs; give a larger --epoch to continue")


def _stop_if_the_folder_is_taken(parser: Parser, args: argparse.Namespace) -> None:
    last = args.save_folder / "last.pth"
    if not (args.resume and last.exists() and last.samefile(args.resume)) and holds_something(args.save_folder):
        hint = f"--resume {last} to continue its run, or " if last.exists() else ""
        parser.error(f"--save_folder {args.save_folder}: is not empty; {hint}name another folder")
