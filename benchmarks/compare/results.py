"""What a comparison found: maps, scores, tables and pictures."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
from PIL import Image
from tabulate import tabulate

from benchmarks.compare.candidates import SEMI, Protocol, described
from benchmarks.compare.cost import Cost
from benchmarks.compare.published import OVER_THRESHOLDS, SETS, TABLES
from benchmarks.crossval.setting import Setting
from data.io.reading import Reading
from data.io.whole import whole
from data.preprocess.window import Window
from utils.checkpoint import read_checkpoint
from utils.evaluation.cases import Case, Model, score
from utils.evaluation.figures import draw_scores
from utils.evaluation.report import report_scores
from utils.inference.predictor import Predictor
from utils.output.folder import ResultFolder

THRESHOLD, EMPTY = 0.5, "one"


class Scored(NamedTuple):
    """A network with the scores of each slice. ``mean``: over seeds. ``first``: of the first seed, and its maps."""

    mean: Model
    first: Model
    seeds: list[float]  # mean Dice of each


def scored(setting: Setting, protocol: Protocol, cases: Sequence[Case]) -> Scored:
    """Predict and score the slices that a network does not know, once for each seed."""
    models = []
    for seed in protocol.seeds:
        models.append(Model(setting.name, maps_of(setting, seed)))
        for index, case in enumerate(cases):
            models[-1].rows.append(score(case, models[-1].read(index, case.size()), threshold=THRESHOLD, empty=EMPTY))
    mean = Model(setting.name, [])
    for rows in zip(*(model.rows for model in models), strict=True):
        numbers = {name: fmean(row[name] for row in rows) for name in rows[0] if name not in ("image", "empty_rule")}
        mean.rows.append(rows[0] | numbers | {"empty_rule": max(row["empty_rule"] for row in rows)})
    if len(models) > 1:
        models[0].name += f", seed {protocol.seeds[0]}"
    return Scored(mean, models[0], [fmean(row["dice"] for row in model.rows) for model in models])


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
    results: ResultFolder,
    protocol: Protocol,
    found: Sequence[Scored],
    cases: Sequence[Case],
    settings: Sequence[Setting],
    cost: Mapping[str, Cost],
) -> None:
    """Print and write the tables, and draw the box plot and the sheets."""
    models = [each.mean for each in found]
    for model in models:
        for row in model.rows:
            results.add_row({"model": model.name, **row})
    summary = report_scores(results, models, threshold=THRESHOLD, empty=EMPTY, table="markdown")
    draw_scores(results, [each.first for each in found], cases, threshold=THRESHOLD, overlay_by="dice")
    text = "\n\n".join([ranking(protocol, found, summary["comparisons"]), costs_table(settings, cost)])
    print(f"\n{text}\n")
    with (results.folder / "table.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    figures = {name: each._asdict() for name, each in cost.items()}
    (protocol.shared.out / "cost.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def ranking(protocol: Protocol, found: Sequence[Scored], comparisons: Sequence[dict[str, Any]]) -> str:
    """The networks by Dice, with the spread over seeds, the paper's figures and the paired test, as Markdown."""
    reference, number = found[0].mean.name, protocol.table
    against = {each["models"][1]: each for each in comparisons}
    header = ["network", "Dice"] + ["of each seed"] * (len(protocol.seeds) > 1) + ["threshold mean"]
    header += ["the paper"] * bool(number) + [f"against {reference}", "p"]
    lines = []
    ordered = sorted(found, key=lambda one: -fmean(one.seeds))
    for each in ordered:
        name, dice = each.mean.name, fmean(each.seeds)
        line = [f"**{name}**" if name == reference else name, f"{dice:.3f}"]
        if len(each.seeds) > 1:
            line.append(", ".join(f"{value:.3f}" for value in each.seeds) + f" (sd {stdev(each.seeds):.3f})")
        line.append(f"{fmean(row['tm_dice'] for row in each.mean.rows):.3f}")
        if number:
            published = TABLES[number].get(name)
            line.append(f"{published:.3f}{'*' * (name in OVER_THRESHOLDS)}" if published else "not known here")
        test = against.get(name, {"difference": None})
        if test["difference"] is None:
            line += ["-", "-"]
        else:
            low, high = test["ci95"]
            line += [f"{test['difference']:+.3f} [{low:+.3f}, {high:+.3f}]", f"{test['wilcoxon_p']:.2g}"]
        lines.append(line)
    names = [each.mean.name for each in ordered if not each.mean.name.startswith(SEMI)]
    behind = f", behind {', '.join(names[: names.index(reference)])}" if names[0] != reference else ""
    notes = [f"Of {len(names)} supervised networks, {reference} is number {names.index(reference) + 1}{behind}."]
    notes += [f"Masks at {THRESHOLD:g}; threshold mean: the mean over 256 thresholds."]
    notes += ["Interval and p (Wilcoxon) are over slices and cover no scatter between trainings; compare some --seeds."]
    if number:
        notes.append(f"The paper's figures are of {SETS[number]}, full width and 256 pixels (*: threshold means).")
    return tabulate(lines, header, tablefmt="github", disable_numparse=True) + "\n\n" + " ".join(notes)


def costs_table(settings: Sequence[Setting], cost: Mapping[str, Cost]) -> str:
    """What each network costs, as Markdown."""
    header = ["network", "learning rate", "flags", "parameters", "GFLOP", "training", "prediction", "memory"]
    lines = []
    for setting in settings:
        one = cost[setting.name]
        line = [setting.name, f"{one.rate:g}", described(setting), f"{one.parameters / 1e6:.3g} M", f"{one.gflop:.3g}"]
        memory = "-" if one.memory is None else f"{one.memory:.2g} GB"
        lines.append([*line, f"{one.training_minutes:.2g} min", f"{one.milliseconds:.3g} ms", memory])
    size = next(iter(cost.values())).size
    notes = (
        f"GFLOP, time and peak memory: of one slice of {size} x {size} pixels, one view; the latter two on the CPU "
        f"({torch.get_num_threads()} threads), memory with the network. Training: of each run, on its device; of a "
        "semi-supervised one, without that of the network it starts from."
    )
    return tabulate(lines, header, tablefmt="github", disable_numparse=True) + "\n\n" + notes
