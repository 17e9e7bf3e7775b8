"""Train, score and compare networks by one protocol: ``python -m benchmarks.compare [options] -- FLAGS``.

All networks have the same slices, steps, augmentation and schedule; FLAGS go to the trainer. Without --folds, they are
trained on Train-Image and scored on Test-Image, Test-Mask; with --folds, cross-validated on the labeled slices. Writes
tables, a box plot and sheets to OUT/comparison. A network that is done is not trained again.
"""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.compare.candidates import Protocol, check, chosen_rate, in_order, takes_width, trained
from benchmarks.compare.cost import costs
from benchmarks.compare.published import NETWORKS, SETS, TABLES
from benchmarks.compare.results import reading_of, report, scored
from benchmarks.crossval.__main__ import SET_FOR_TRAINER, stop
from benchmarks.crossval.folds import alike, split_in_folds
from benchmarks.crossval.setting import Setting
from data.errors import InputError
from data.folders import FOLDERS, pair_by_stem
from models import MODELS
from utils.cli.parser import Parser, number, run
from utils.evaluation.cases import Case
from utils.output.folder import ResultFolder

SWEEP_PARTS = 4  # of the training slices, where no folds are asked for


def main() -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    args = parse(sys.argv[1:])
    protocol = protocol_of(args)
    check(protocol)
    pairs = [pair for part in protocol.shared.parts for pair in part]
    results = ResultFolder(
        args.out / "comparison",
        table="scores.csv",
        inputs=[truth for _, truth in pairs],
        made_by={"command": " ".join(["python -m benchmarks.compare", *sys.argv[1:]]), "seeds": args.seeds},
    )
    settings = []
    for model in protocol.models:
        settings += protocol.settings(model, chosen_rate(protocol, model))
    runs = {setting.name: trained(setting, protocol.work) for setting in settings}
    reading = reading_of(next(iter(runs.values()))[0]).for_slices([image for image, _ in pairs])
    cases = [Case(image, truth, reading=reading) for image, truth in pairs]
    found = [scored(setting, protocol, cases) for setting in settings]
    report(results, protocol, found, cases, settings, costs(runs))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options before ``--``, and as ``flags`` what comes after it."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    parser = Parser(__doc__, prog="python -m benchmarks.compare")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder of the slices")
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), metavar="NAME", help=f"default: all of {', '.join(MODELS)}"
    )
    parser.add_argument("--seeds", type=number(int, 1), default=1, help="how many trainings of each, by other seeds")
    parser.add_argument("--folds", type=number(int, 2), help="cross-validate on the labeled slices")
    parser.add_argument(
        "--alike", type=number(float, 0, 1), default=0.8, help="correlation of slices that stay in one fold"
    )
    parser.add_argument("--epoch", type=number(int, 1), default=400, help="of each training on labeled slices")
    parser.add_argument("--widths", nargs="+", default=[], metavar="NAME=N", help="--base_channels of some networks")
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="LR",
        help="learning rates, of which each network gets the best on the first fold or, without --folds, on a quarter "
        "of the training slices; default: the trainers'",
    )
    parser.add_argument("--sweep_epoch", type=number(int, 1), default=40, help="epochs of the trainings for --sweep")
    parser.add_argument(
        "--semi", action="store_true", help="also train each network semi-supervised; default: those of --table"
    )
    parser.add_argument(
        "--semi_epoch", type=number(int, 1), default=200, help="of these, where they start from the trained network"
    )
    sets = ", ".join(f"{number_}: {name}" for number_, name in SETS.items())
    parser.add_argument("--table", type=int, choices=TABLES, help=f"networks and figures of the paper's table ({sets})")
    parser.add_argument("--jobs", type=number(int, 1), default=1, help="trainings at a time, of one CPU thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder for all of it")
    args = parser.parse_args(arguments[:place])
    args.flags = arguments[place + 1 :]
    if args.table and not args.models:
        args.models = ["cares_unet", *NETWORKS]
    set_here = {"model", "epoch", "lr", "base_channels", *SET_FOR_TRAINER}
    if clash := [flag for flag in args.flags if flag.partition("=")[0].removeprefix("--") in set_here]:
        parser.error(f"{clash[0]}: is set for each network; give --models, --epoch, --sweep, --widths or --seeds")
    args.widths = dict(parse_width(parser, text) for text in args.widths)
    args.sweep = parse_rates(parser, args.sweep)
    return args


def parse_width(parser: Parser, text: str) -> tuple[str, int]:
    name, _, width = text.partition("=")
    if name not in MODELS or not width.isdecimal():
        parser.error(f"--widths {text}: not a network and a number, such as cares_unet=16")
    if not takes_width(name):
        parser.error(f"--widths {text}: {name} has one width; leave it out")
    return name, int(width)


def parse_rates(parser: Parser, texts: list[str]) -> list[str]:
    """Learning rates as given, each once."""
    rates: dict[float, str] = {}
    for text in texts:
        try:
            rates.setdefault(float(text), text)
        except ValueError:
            parser.error(f"--sweep {text}: not a learning rate, such as 5e-3")
    return list(rates.values())


def protocol_of(args: argparse.Namespace) -> Protocol:
    (images, masks), test = ([args.data_root / name for name in FOLDERS[kind]] for kind in ("train", "test"))
    pairs = pair_by_stem(images, masks)
    groups = alike([image for image, _ in pairs], args.alike) if args.folds or len(args.sweep) > 1 else []
    few = len(set(groups)) < SWEEP_PARTS
    if groups and not args.folds and (few or 2 * max(map(groups.count, groups)) > len(groups)):
        raise InputError(
            "--sweep: most training slices look alike, none can be held out; give one rate, or raise --alike"
        )
    labeled_parts = split_in_folds(pairs, groups, args.folds or SWEEP_PARTS) if groups else []
    if not args.folds and not test[1].is_dir():
        raise InputError(f"{test[1]}: no such folder; give true masks of the test slices, or cross-validate by --folds")
    parts = labeled_parts if args.folds else [pair_by_stem(*test)]
    unlabeled = args.data_root / FOLDERS["unlabeled"][0]
    shared = Setting("", args.out, images, masks, unlabeled, pairs, parts, args.flags, jobs=args.jobs)
    return Protocol(
        shared,
        models=in_order(args.models),
        epoch=args.epoch,
        widths=args.widths,
        semi=args.semi,
        semi_epoch=args.semi_epoch,
        table=args.table,
        rates=args.sweep,
        sweep_epoch=args.sweep_epoch,
        sweep_parts=labeled_parts,
        seeds=list(range(args.seeds)),
    )


if __name__ == "__main__":
    run(main)
