"""Command-line options of the trainers."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from data.errors import InputError
from utils.cli.parser import Parser, add_options, settings
from utils.config import OF_THE_MACHINE, TrainingConfig, overrides
from utils.device import choose_device, choose_precision
from utils.training.start import Start, check_start

DEPENDENT = ("lr_schedule", "decay_rate", "decay_epoch", "decay_start_epoch")  # the default of one depends on others


def add_labeled_data_options(parser: Parser) -> None:
    """The flags of the labeled slices and their preprocessing."""
    helps = {
        "data_root": "folder that contains the folders below",
        "train_img_path": "default: DATA_ROOT/Train-Image",
        "train_msk_path": "default: DATA_ROOT/Train-Mask",
        "val_img_path": "validate on this folder instead of --val_fraction",
        "val_msk_path": "its masks",
        "val_fraction": "share of labeled slices, or scans, to hold out for choosing the best epoch",
        "window": "for slices in Hounsfield units (HU): lung (-650,1500), or LEVEL,WIDTH",
        "hu_offset": "what was added to HU in slices, such as 1024; default: as their values say, if they are in HU",
        "mask_threshold": "share of the gray levels of masks above which pixels are lesion, for smoothed edges; "
        "default: masks have two values",
        "image_size": "side to which slices are resized",
        "align_grays": "scale gray levels so that soft tissue looks the same in all slices, whatever their window",
        "align_frame": "if the training slices are cropped to the lungs, crop all others, too",
        "align_turns": "rotate all slices to the orientation of the training set, and augment with mirror images; "
        "without it, augment with all flips and rotations",
        "data_augmentation": "random rotations, shifts, gray levels",
        "augment_grays": "usual: contrast, brightness, gamma, noise; wide: also windows, kernels and local contrast "
        "(CLAHE), to predict slices of other sources, at some cost on slices like the training slices",
    }
    add_options(parser.add_argument_group("labeled slices"), TrainingConfig, helps)


def add_pseudo_labeled_data_options(parser: Parser) -> None:
    """The flags of the pseudo-labeled slices and of what is learned from them."""
    helps = {
        "semi_img_path": "default: DATA_ROOT/Unlabeled",
        "semi_msk_path": "masks of fake_labels_generator.py; default: DATA_ROOT/Pos-Mask",
        "semi_truth_path": "true masks, if known, to score the teacher's labels in log.csv",
        "method": "pseudo: learn these masks; pseudo_first: them alone until the finish; teacher: learn what the "
        "averaged weights predict at every step; double_threshold: but nothing where lesion is possible; soft: "
        "chances, not masks; copy_paste: with blocks of labeled slices in the others, and reverse; two_views: on two "
        "views of each slice; unimatch: and with half of the features; complementary: with one half in each view; "
        "default: teacher with --pretrained_model, else pseudo",
        "favor_lesions": "draw these slices in proportion to the lesion area of their masks, not uniformly",
        "labeled_finish": "share of the epochs, at the end, that train on labeled slices only, twice each",
        "confidence": "in a teacher's labels, ignore pixels whose likelier class has a lower probability; most are "
        "at the rims of lesions, of which the network then finds less",
        "pseudo_weight": "how much pseudo masks together count in a step, against true masks",
        "pseudo_margin": "as --lesion_margin, for pseudo masks; those come from a network that has learned that margin",
    }
    add_options(parser.add_argument_group("pseudo-labeled slices"), TrainingConfig, helps)


def add_training_options(parser: Parser) -> None:
    """The flags of the network, its training and its results."""
    helps = {
        "recipe": "paper: as published; cpu: small. Network, size, gray levels and orientation of a "
        "--pretrained_model are kept",
        "model": "network (python -m models lists all); --block and --upsample apply to cares_unet",
        "base_channels": "width of the first level of cares_unet and unet",
        "block": "plain: without the paper's shortcuts",
        "upsample": "bilinear: without the paper's CARAFE",
        "encoder_weights": "trained weights for the encoder of a network of a library, a state dict in a .pth file",
        "epoch": "number of passes over the labeled slices",
        "batchsize": "slices per step",
        "optimizer_type": "ranger: the paper's; sgd: with Nesterov momentum 0.9",
        "lr": "learning rate; default: 5e-3 up to width 16, inversely proportional to the width above it; 1.25e-3 for "
        "networks with one width",
        "weight_decay": "decoupled, if the optimizer supports it",
        "lr_schedule": "flat_cosine: constant for 72 %% of the run, then a cosine to 0; step: as the --decay flags "
        "say, which imply it; default: flat_cosine",
        "decay_rate": "published: 0.1",
        "decay_epoch": "epochs between two decays; published: 30",
        "decay_start_epoch": "epochs before the first decay; published: 800",
        "loss": "ce_dice: cross entropy + soft Dice; ce: cross entropy; structure: Inf-Net's; default: structure for "
        "inf_net, else ce_dice",
        "lesion_margin": "margin by which lesion logits must win on labeled slices in training, to find more lesion; "
        "0: none",
        "dice_over": "soft Dice in the loss: the mean over slices, or one value for all pixels of a batch, as in the "
        "paper",
        "clip_grad": "maximum gradient norm; 0: no limit",
        "ema_decay": "decay of the averaged weights; 0: no averaging",
        "compile": "torch.compile the network",
        "accumulate": "compute each batch in this many parts, to save memory",
        "calibrate": "after training, fit a temperature on the validation slices, so that maps are chances of lesion",
        "seed": "seed of the split, the weights and the batches",
    }
    group = parser.add_argument_group("model and training")
    group.add_argument("--pretrained_model", type=Path, help="checkpoint to start from")
    add_options(group, TrainingConfig, helps)
    helps = {
        "save_folder": "folder for checkpoints, log and pictures",
        "save_start_epoch": "epochs before the first snapshot",
        "snapshots": "epochs between snapshots; 0: none",
    }
    group = parser.add_argument_group("results")
    add_options(group, TrainingConfig, helps)
    group.add_argument("--resume", type=Path, metavar="LAST.PTH", help="resume this run with its flags")


def parse_training_options(
    parser: Parser, arguments: Sequence[str] | None = None, **defaults: object
) -> tuple[TrainingConfig, Start | None]:
    """The config of a run, and the checkpoint that it starts from, if any. ``defaults``: those of the script.

    Flags on the command line override the settings of the run to resume or of the network to start from; these
    override the recipe.
    """
    names = [field.name for field in fields(TrainingConfig)]
    parser.set_defaults(**dict.fromkeys(DEPENDENT), **defaults)
    given, _ = parser.parse_known_args(arguments)
    source = given.resume or given.pretrained_model
    start = Start.read(source, resume=given.resume is not None) if source else None
    parser.set_defaults(**overrides(given.recipe))
    if start:
        parser.set_defaults(**start.network, **start.preprocessing.summary())
    if start and start.resume:
        kept = _options_to_resume(parser, given, start)
        parser.set_defaults(**{name: kept[name] for name in kept if name in names}, save_folder=start.path.parent)
    args = parser.parse_args(arguments)

    if args.lr_schedule is None and any(getattr(args, name) is not None for name in DEPENDENT[1:]):
        args.lr_schedule = "step"
    if start and args.model != (known := start.network["model"]):
        raise InputError(f"--model {args.model}: the network in {start.path} is {known}; leave it out")
    if given.resume and given.encoder_weights:
        raise InputError(f"--encoder_weights: the network in {given.resume} is trained already; leave it out")
    config = settings(args, TrainingConfig).validate()
    check_start(config, start)
    choose_precision(config.amp, choose_device(config.device))  # fails before any slice is read
    if args.resume and config.epoch != kept["epoch"]:
        print(f"resume      {config.epoch} epochs instead of {kept['epoch']}: the learning-rate schedule is stretched")
    return config, start


def _options_to_resume(parser: Parser, given: argparse.Namespace, start: Start) -> dict[str, object]:
    if (script := start.content["run"]["script"]) != parser.prog:
        parser.error(f"--resume {start.path}: is a run of {script}, not of {parser.prog}; use that")
    if given.pretrained_model:
        parser.error("--resume and --pretrained_model: a resumed run has weights already; give one of the two")
    if given.recipe not in ("default", start.content["run"]["options"]["recipe"]):
        parser.error(f"--recipe {given.recipe}: a resumed run keeps its recipe; leave it out and override single flags")
    kept = start.content["run"]["options"]
    return {name: value for name, value in kept.items() if name not in OF_THE_MACHINE}
