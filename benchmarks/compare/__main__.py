"""Train, score and compare networks by one protocol: ``python -m benchmarks.compare [options] -- FLAGS``.

All networks have the same slices, steps, augmentation and schedule; FLAGS go to the trainer. Without --folds, they are
trained on Train-Image and scored on Test-Image, Test-Mask; with --folds, cross-validated on the labeled slices. Writes
tables, a box plot and sheets to OUT/comparison. A network that is done is not trained again.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image
from tabulate import tabulate

from benchmarks.compare.candidates import SEMI, Protocol, chosen_rate, in_order, trained
from benchmarks.compare.cost import Cost, costs
from benchmarks.compare.published import NETWORKS, SETS, TABLES
from benchmarks.crossval.__main__ import SET_FOR_TRAINER, stop
from benchmarks.crossval.folds import alike, split_in_folds
from benchmarks.crossval.setting import Setting
from data.folders import FOLDERS, pair_by_stem
from data.io.reading import Reading
from data.io.whole import whole
from data.preprocess.window import Window
from models import MODELS
from utils.checkpoint import read_checkpoint
from utils.cli.parser import Parser, number, run
from utils.evaluation.cases import Case, Model, score
from utils.evaluation.figures import draw_scores
from utils.evaluation.report import report_scores
from utils.inference.predictor import Predictor
from utils.output.folder import ResultFolder

THRESHOLD, EMPTY = 0.5, "one"
SWEEP_PARTS = 4  # of the training slices, where no folds are asked for


def main() -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    args = parse(sys.argv[1:])
    protocol = protocol_of(args)
    settings = []
    for model in in_order(args.models):
        setting = protocol.setting(model, lr=chosen_rate(protocol, model))
        settings.append(setting)
        if args.semi or SEMI + model in TABLES.get(args.table, {}):
            settings.append(protocol.semi(setting, epoch=args.semi_epoch))
            if model == "inf_net":  # also as its authors train it
                settings.append(protocol.semi(setting, epoch=args.epoch, method="pseudo_first"))
    runs = {setting.name: trained(setting, protocol.work) for setting in settings}
    pairs = [pair for part in protocol.shared.parts for pair in part]
    reading = reading_of(next(iter(runs.values()))[0]).for_slices([image for image, _ in pairs])
    cases = [Case(image, truth, reading=reading) for image, truth in pairs]
    models = [scored(setting, protocol, cases) for setting in settings]
    report(args, models, cases, settings, costs(runs))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options before ``--``, and as ``flags`` what comes after it."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    parser = Parser(__doc__, prog="python -m benchmarks.compare")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder of the slices")
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), metavar="NAME", help=f"default: all of {', '.join(MODELS)}"
    )
    parser.add_argument("--seeds", type=number(int, 1), default=1, help="how many runs of each")
    parser.add_argument("--folds", type=number(int, 2), help="cross-validate on the labeled slices")
    parser.add_argument("--alike", type=number(float, 0, 1), default=0.8, help="as in benchmarks.crossval")
    parser.add_argument("--epoch", type=number(int, 1), default=400, help="of each training")
    parser.add_argument("--widths", nargs="+", default=[], metavar="NAME=N", help="--base_channels of some networks")
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="LR",
        help="learning rates, of which each network gets the best on held-out training slices; default: the trainers'",
    )
    parser.add_argument("--sweep_epoch", type=number(int, 1), default=40, help="epochs of the trainings for --sweep")
    parser.add_argument(
        "--semi", action="store_true", help="also train each network semi-supervised; default: those of --table"
    )
    parser.add_argument("--semi_epoch", type=number(int, 1), default=200, help="of these trainings")
    sets = ", ".join(f"{number_}: {name}" for number_, name in SETS.items())
    parser.add_argument("--table", type=int, choices=TABLES, help=f"networks and figures of the paper's table ({sets})")
    parser.add_argument("--jobs", type=number(int, 1), default=1, help="as in benchmarks.crossval")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder for all of it")
    args = parser.parse_args(arguments[:place])
    args.flags = arguments[place + 1 :]
    if args.table and not args.models:
        args.models = ["cares_unet", *NETWORKS]
    set_here = {"model", "epoch", "lr", "base_channels", *SET_FOR_TRAINER}
    if clash := [flag for flag in args.flags if flag.partition("=")[0].removeprefix("--") in set_here]:
        parser.error(f"{clash[0]}: is set for each network; give --models, --epoch, --sweep, --widths or --seeds")
    args.widths = dict(parse_width(parser, text) for text in args.widths)
    return args


def parse_width(parser: Parser, text: str) -> tuple[str, int]:
    name, _, width = text.partition("=")
    if name not in MODELS or not width.isdecimal():
        parser.error(f"--widths {text}: not a network and a number, such as cares_unet=16")
    return name, int(width)


def protocol_of(args: argparse.Namespace) -> Protocol:
    (images, masks), test = ([args.data_root / name for name in FOLDERS[kind]] for kind in ("train", "test"))
    pairs = pair_by_stem(images, masks)
    groups = alike([image for image, _ in pairs], args.alike) if args.folds or args.sweep else []
    labeled_parts = split_in_folds(pairs, groups, args.folds or SWEEP_PARTS) if groups else []
    parts = labeled_parts if args.folds else [pair_by_stem(*test)]
    unlabeled = args.data_root / FOLDERS["unlabeled"][0]
    shared = Setting("", args.out, images, masks, unlabeled, pairs, parts, args.flags, jobs=args.jobs)
    seeds = list(range(args.seeds))
    return Protocol(shared, args.epoch, args.widths, args.sweep, args.sweep_epoch, labeled_parts, seeds)


def scored(setting: Setting, protocol: Protocol, cases: Sequence[Case]) -> Model:
    """The maps of a network, of the first seed, and its scores: the mean over seeds for each slice."""
    models = [Model(setting.name, maps_of(setting, seed)) for seed in protocol.seeds]
    for model in models:
        for index, case in enumerate(cases):
            model.rows.append(score(case, model.read(index, case.size()), threshold=THRESHOLD, empty=EMPTY))
    for index, rows in enumerate(zip(*(model.rows for model in models), strict=True)):
        numbers = {name: fmean(row[name] for row in rows) for name in rows[0] if name not in ("image", "empty_rule")}
        models[0].rows[index] = rows[0] | numbers
    return models[0]


def maps_of(setting: Setting, seed: int) -> list[Path]:
    """The maps by the networks of a seed, of the slices held out from each. Those that are there are kept."""
    maps = []
    for fold, part in enumerate(setting.parts):
        folder = setting.folder(seed, fold)
        (folder / "maps").mkdir(exist_ok=True)
        paths = {image: folder / "maps" / f"{image.stem}.png" for image, _ in part}
        maps += list(paths.values())
        if images := [image for image, path in paths.items() if not path.exists()]:
            reading = reading_of(folder / "run")
            options = {"window": reading.window, "hu_offset": reading.hu_offset}
            predictor = Predictor(folder / "run" / "best.pth", device=device_of(setting.flags), **options)
            for image, found in zip(images, predictor.predict_slices(predictor.read(images)), strict=True):
                with whole(paths[image]) as unfinished:
                    Image.fromarray(found.map).save(unfinished, format="PNG")
    return maps


def reading_of(run: Path) -> Reading:
    """What the values of slices meant in a training."""
    options = read_checkpoint(run / "best.pth")["run"]["options"]
    return Reading(
        window=Window(*options["window"]),
        hu_offset=options.get("hu_offset"),
        mask_threshold=options.get("mask_threshold"),
    )


def device_of(flags: Sequence[str]) -> str:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    return parser.parse_known_args(list(flags))[0].device


def report(
    args: argparse.Namespace,
    models: Sequence[Model],
    cases: Sequence[Case],
    settings: Sequence[Setting],
    cost: dict[str, Cost],
) -> None:
    """Print and write the tables, and draw the box plot and the sheets."""
    results = ResultFolder(
        args.out / "comparison",
        table="scores.csv",
        inputs=[case.truth for case in cases if case.truth],
        made_by={"command": " ".join(["python -m benchmarks.compare", *sys.argv[1:]])},
    )
    for model in models:
        for row in model.rows:
            results.add_row({"model": model.name, **row})
    report_scores(results, models, threshold=THRESHOLD, empty=EMPTY, table="markdown")
    draw_scores(results, models, cases, threshold=THRESHOLD, overlay_by="dice")
    table = cost_table(args.table, models, settings, cost)
    print(f"\n{table}\n")
    with (results.folder / "table.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{table}\n")
    figures = {name: found._asdict() for name, found in cost.items()}
    (args.out / "cost.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def cost_table(number: int | None, models: Sequence[Model], settings: Sequence[Setting], cost: dict[str, Cost]) -> str:
    """Dice beside the paper's, and what each network costs, as Markdown.

    The paper's figures of Inf-Net are means over thresholds. The training of a semi-supervised network is without that
    of the network which it starts from.
    """
    header = [
        "model",
        "Dice",
        "threshold mean",
        *(["the paper"] if number else []),
        "flags",
        "parameters",
        "GFLOP a slice",
    ]
    header += ["training", "a forward pass", "its memory"]
    lines = []
    for model, setting in zip(models, settings, strict=True):
        found = cost[model.name]
        dice, over_thresholds = (float(np.mean([row[name] for row in model.rows])) for name in ("dice", "tm_dice"))
        published = TABLES[number].get(model.name.removesuffix("_pseudo_first")) if number else None
        line = [model.name, f"{dice:.3f}", f"{over_thresholds:.3f}"]
        line += [f"{published:.3f}" if published else "-"] if number else []
        line += [" ".join(setting.flags), f"{found.parameters / 1e6:.1f} M", f"{found.gflop:.1f}"]
        memory = "-" if found.memory is None else f"{found.memory:.2f} GB"
        line += [f"{found.training_minutes:.1f} min", f"{found.milliseconds:.0f} ms", memory]
        lines.append(line)
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    run(main)
