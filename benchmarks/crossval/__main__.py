"""Cross-validate a training setting on labeled slices: ``python -m benchmarks.crossval NAME [options] -- FLAGS``.

FLAGS go to the trainer. The scored slices choose no epoch: the weights of the last epoch, or of the best one on other
slices that FLAGS keep for validation, predict them at their own sizes. Slices that look alike stay in one fold. Folds
that are done are not repeated, and an interrupted fold resumes. A --pretrained_model among FLAGS must not have been
trained on labeled slices: some of them are held out here.
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from benchmarks.crossval.folds import alike, split_in_folds
from benchmarks.crossval.report import report
from benchmarks.crossval.run import end_workers, evaluation_settings, run_folds, words
from benchmarks.crossval.setting import Setting, stop_if_untrained
from data.folders import pair_by_stem
from utils.cli.parser import Parser, number, run, settings
from utils.config import DEFAULT_FOLDERS

# Set here for each fold. Set by the user, held-out slices might be trained on, or others be scored.
SET_FOR_TRAINER = {"data_root", "train_img_path", "train_msk_path", "val_img_path", "val_msk_path"}
SET_FOR_TRAINER |= {"semi_img_path", "semi_msk_path", "seed", "save_folder", "resume"}
SET_FOR_GENERATOR = {"model_path", "data_root", "Image_dir", "Mask-dir", "Mask_dir"}


def main() -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    args = parse(sys.argv[1:])
    args.pairs = pair_by_stem(args.train_img_path, args.train_msk_path)
    groups = alike([image for image, _ in args.pairs], args.alike)
    args.parts = split_in_folds(args.pairs, groups, args.folds)
    setting = settings(args, Setting)

    work = [(seed, fold) for seed in args.seeds for fold in range(args.folds)]
    if args.only:
        work = [job for job in work if job[1] in args.only or setting.is_scored(*job)]
    against = args.against or "default"
    for other in {args.teacher, args.trained_by, against} - {None, args.name}:
        setting.stop_if_other_folds(other)
    if args.teacher:
        setting.stop_if_other_labels(args.teacher)
    if source := args.teacher or args.trained_by:
        left = [job for job in work if not setting.is_scored(*job)]
        own = [setting.folder(*job, source) / "run" for job in left if args.teacher and not args.new_network]
        stop_if_untrained(own + [run for job in left for run in setting.source_runs(*job)], source)
    setting.record()
    report(setting, against, dict(zip(work, run_folds(setting, work), strict=True)))


def stop(*_: object) -> NoReturn:
    end_workers()
    raise KeyboardInterrupt


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options before ``--``, and as ``flags`` what comes after it."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    parser = Parser(__doc__, prog="python -m benchmarks.crossval")
    parser.add_argument("name", help="name of the setting; its runs and result.json go to OUT/NAME")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder that contains the folders below")
    parser.add_argument("--train_img_path", type=Path, help="default: DATA_ROOT/Train-Image")
    parser.add_argument("--train_msk_path", type=Path, help="default: DATA_ROOT/Train-Mask")
    parser.add_argument("--semi_img_path", type=Path, help="unlabeled slices; default: DATA_ROOT/Unlabeled")
    parser.add_argument("--teacher", metavar="NAME", help="train semi-supervised from the models of this setting")
    parser.add_argument(
        "--new_network", action="store_true", help="with --teacher: use its pseudo masks, but train a new network"
    )
    parser.add_argument("--label_flags", default="", help="for fake_labels_generator.py: --label_flags='...'")
    parser.add_argument("--trained_by", metavar="NAME", help="train nothing, score the runs of this setting")
    parser.add_argument(
        "--ensemble",
        type=number(int, 0),
        nargs="+",
        metavar="SEED",
        help="the networks of these seeds of --teacher label together, or of --trained_by are scored together: the "
        "mean of their maps; default: each seed its own network",
    )
    parser.add_argument("--test_flags", default="", help="for test.py, such as --test_flags='--no-tta'")
    parser.add_argument("--against", metavar="NAME", help="setting to compare with; default: default, if it exists")
    parser.add_argument("--folds", type=number(int, 2), default=5, help="number of folds")
    parser.add_argument(
        "--alike",
        type=number(float, 0, 1),
        default=0.8,
        help="slices with a higher correlation, at 64 pixels a side, stay in one fold, as neighbours in a scan",
    )
    parser.add_argument(
        "--labeled", type=number(int, 1), help="train on this many labeled slices of each fold; default: all"
    )
    parser.add_argument(
        "--only",
        type=number(int, 0),
        nargs="+",
        metavar="FOLD",
        help="folds to train now, counted from 0; the result includes all that are done",
    )
    parser.add_argument(
        "--seeds", type=number(int, 0), nargs="+", default=[0], help="train all folds once for each seed"
    )
    parser.add_argument(
        "--jobs", type=number(int, 1), default=1, help="folds to run in parallel; above 1, with one CPU thread each"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/crossval"), help="folder for all settings")
    args = parser.parse_args(arguments[:place])
    args.flags = arguments[place + 1 :]
    check(parser, args)
    for name in ("train_img_path", "train_msk_path", "semi_img_path"):
        setattr(args, name, getattr(args, name) or args.data_root / DEFAULT_FOLDERS[name])
    return args


def check(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse conflicting options, and flags for the scripts that are set for each fold."""
    if args.trained_by and args.flags:
        parser.error(f"--trained_by {args.trained_by}: trains nothing; leave {' '.join(args.flags)} out")
    if args.trained_by and args.teacher:
        parser.error(f"--trained_by {args.trained_by}: trains nothing; leave --teacher {args.teacher} out")
    if (args.label_flags or args.new_network) and not args.teacher:
        parser.error("--label_flags and --new_network: need --teacher, which makes pseudo masks")
    if args.ensemble and not (args.teacher or args.trained_by):
        parser.error("--ensemble: names networks of --teacher or --trained_by; give either")
    check_flags(parser, args)
    if (args.out / args.name).resolve().parent != args.out.resolve():
        parser.error(f"{args.name}: is not a plain folder name; give one")
    if args.name in (args.teacher, args.trained_by):
        parser.error(f"{args.name}: can't use its own models; give the new setting another name")
    if wrong := [fold for fold in args.only or () if fold >= args.folds]:
        parser.error(f"--only {wrong[0]}: there are {args.folds} folds, counted from 0")
    if args.against and not (args.out / args.against / "result.json").exists():
        parser.error(f"--against {args.against}: {args.out / args.against} has no result.json; run that setting first")


def check_flags(parser: Parser, args: argparse.Namespace) -> None:
    try:
        label_flags = words([], args.label_flags)
        evaluation_settings(args.test_flags)
    except ValueError as error:
        parser.error(f"--label_flags or --test_flags: {error}")
    for place, given, set_here in (
        ("after --", args.flags, SET_FOR_TRAINER),
        ("of --label_flags", label_flags, SET_FOR_GENERATOR),
    ):
        if clash := [flag for flag in given if flag.partition("=")[0].removeprefix("--") in set_here]:
            parser.error(f"{clash[0]}: is set for each fold; leave it out {place} (data and --seeds go before --)")


if __name__ == "__main__":
    run(main)
