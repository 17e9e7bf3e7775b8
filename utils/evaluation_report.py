"""What test.py ends with: the tables of its models, their comparison, and the pictures that explain them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.files import read_image
from utils.evaluation import Case, Model
from utils.metrics import THRESHOLD_MEAN, lesion_mask
from utils.pictures import ERROR_COLOURS, OVERLAY, Panel, draw_boxplot, draw_sheet, error_panel
from utils.results import ResultFolder
from utils.tables import aligned, compare_paired, publication_table, summarise, summarise_scores, text_table

ROWS_A_PAGE = 8
EXTREME_CASES = 4  # of the worst and of the best

EMPTY_RULE_IN_WORDS = {
    "one": "counts as perfect",
    "zero": "counts as the worst",
    "skip": "is left out of the mean, for all models if for one",
}


def report_scores(
    results: ResultFolder, models: Sequence[Model], *, threshold: float, empty: str, table: str | None
) -> None:
    """Print the tables of both protocols and of the burden, and write them to ``summary.json`` and ``table.*``."""
    rows = models[0].rows
    burden = {
        model.name: {name: summarise([row[name] for row in model.rows]) for name in rows[0] if "share" in name}
        for model in models
    }
    print(f"{'results':<11} {len(rows)} slices; {results.table}")
    for model in models:
        shares = ", ".join(f"{_in_words(name)} {_percent(found)}" for name, found in burden[model.name].items())
        print(f"{'burden':<11} {model.name}: {shares}; mean (std)")
    if "dice" not in rows[0]:
        print(f"{'scores':<11} none: no truth was given")
        results.write_summary(
            {"images": len(rows), "models": {name: {"burden": found} for name, found in burden.items()}}
        )
        return

    touched = sum(row["empty_rule"] for row in rows)
    protocols = {
        f"fixed {threshold:g}": (
            "",
            f"pixels above {threshold:g} are lesion; 0/0 {EMPTY_RULE_IN_WORDS[empty]} (--empty {empty}), "
            f"which touches scores of {touched} of {len(rows)} images",
        ),
        "threshold mean": (
            THRESHOLD_MEAN,
            "maps stretched to their range, mean over 256 thresholds, 0/0 counts as 0",
        ),
    }
    summary = {"images": len(rows), "images_touched_by_empty_rule": touched, "rules": {}, "models": {}}
    publication = []
    for protocol, (prefix, rule) in protocols.items():
        summaries = {model.name: summarise_scores(model.rows, prefix=prefix) for model in models}
        summary["rules"][protocol] = rule
        for name, found in summaries.items():
            summary["models"].setdefault(name, {"burden": burden[name]})[protocol] = found
        if table:
            caption = f"Mean (standard deviation) over {len(rows)} images; {protocol}: {rule}."
            publication.append(publication_table(summaries, table, caption=caption))
    _print_tables(summary)
    summary["comparisons"] = _compare(models)
    results.write_summary(summary)
    if publication:
        path = results.folder / {"markdown": "table.md", "latex": "table.tex"}[table]
        path.write_text("\n\n".join(publication) + "\n")
        print(f"\n{path.read_text()}\n{'table':<11} {path}")


def report_scans(results: ResultFolder) -> None:
    """Print a row for each scan and the mean (std) over scans, which also goes to ``summary.json``."""
    rows = results.rows
    print(f"\n{'results':<11} {len(rows)} scans; {results.table}")
    if not rows:
        return
    columns = [name for name in rows[0] if name not in ("image", "slices")]
    summary = {name: summarise([row[name] for row in rows]) for name in columns}
    lines = [["scan", *columns]]
    lines += [[row["image"], *(f"{row[name]:.4g}" for name in columns)] for row in rows]
    means = (summary[name] for name in columns)
    lines.append(["mean (std)", *("-" if m["mean"] is None else f"{m['mean']:.3f} ({m['std']:.3f})" for m in means)])
    print(aligned(lines))
    results.write_summary({"scans": len(rows), **summary})


def dice_in_words(row: dict) -> str:
    """The Dice of a row for a caption."""
    return "left out" if math.isnan(row["dice"]) else f"{row['dice']:.3f}"


def draw_case(path: Path, case: Case, masks: dict[str, np.ndarray]) -> None:
    """Draw a slice, its truth if there is one, and predicted masks, bool ``(H, W)``, by caption, side by side."""
    width, height = case.size()
    image = np.asarray(read_image(case.image)) / 255 if case.image else np.zeros((height, width))
    panels = [Panel(image, caption=case.name)]
    if case.truth:
        panels.append(Panel(image, case.read_truth(), "truth"))
    panels += [Panel(image, mask, caption) for caption, mask in masks.items()]
    draw_sheet(path, [panels])


def draw_scores(
    results: ResultFolder, models: Sequence[Model], cases: Sequence[Case], *, threshold: float, overlay_by: str | None
) -> None:
    """Draw a box plot and the first model's worst and best cases; with ``overlay_by`` (dice or name) all, so sorted."""
    by_dice = sorted(range(len(cases)), key=lambda index: _dice(models[0], index))
    figures = results.folder / "figures"
    figures.mkdir(exist_ok=True)
    dice = {model.name: [row["dice"] for row in model.rows] for model in models}
    draw_boxplot(figures / "dice.png", dice, "Dice of each slice (line: median, dashed: mean)")
    half = min(EXTREME_CASES, (len(cases) + 1) // 2)
    worst = by_dice[:half]
    # A slice that is rightly left clean is a best case with nothing to see; one with a lesion tells more.
    best = sorted(by_dice[half:], key=lambda index: models[0].rows[index]["true_lesion_share"] > 0)[-half:]
    extremes = dict.fromkeys(worst, "worst: ") | dict.fromkeys(best, "best: ")
    pages = {figures / "worst_and_best.png": extremes}
    if overlay_by:
        (results.folder / "overlay").mkdir(exist_ok=True)
        order = by_dice if overlay_by == "dice" else range(len(cases))
        for start in range(0, len(cases), ROWS_A_PAGE):
            page = results.folder / "overlay" / f"page_{start // ROWS_A_PAGE + 1:03}.png"
            pages[page] = dict.fromkeys(order[start : start + ROWS_A_PAGE], "")
    titles = (["image"] if cases[0].image else []) + ["truth", *(model.name for model in models)]
    for page, notes in tqdm(pages.items(), desc="drawing", unit="page", leave=False, disable=None):
        rows = [_error_row(cases[index], note, models, index, threshold) for index, note in notes.items()]
        draw_sheet(page, rows, titles, legend={"lesion": OVERLAY, **ERROR_COLOURS, "true negative": (0, 0, 0)})
    ranked = f" (by the Dice of {models[0].name})" if len(models) > 1 else ""
    print(f"{'pictures':<11} {', '.join(str(page) for page in [*pages][:2])}{ranked}, {figures / 'dice.png'}")


def _error_row(case: Case, note: str, models: Sequence[Model], index: int, threshold: float) -> list[Panel]:
    truth, name = case.read_truth(), note + case.name
    if case.image:
        image = np.asarray(read_image(case.image)) / 255
        row = [Panel(image, caption=name), Panel(image, truth)]
    else:
        row = [Panel(np.zeros(truth.shape), truth, name)]
    for model in models:
        mask = lesion_mask(model.read(index, case.size()), threshold)
        row.append(error_panel(mask, truth, f"Dice {dice_in_words(model.rows[index])}"))
    return row


def _print_tables(summary: dict) -> None:
    rules, models = summary["rules"], summary["models"]
    if len(models) == 1:  # its two protocols side by side
        (found,) = models.values()
        print("\n" + text_table({protocol: found[protocol] for protocol in rules}))
        for protocol, rule in rules.items():
            print(f"{protocol}: {rule}")
    else:
        for protocol, rule in rules.items():
            print(f"\n{protocol}: {rule}")
            print(text_table({name: found[protocol] for name, found in models.items()}))
    print("mean (std) [95 % bootstrap interval of the mean] over images, each at its truth's size")


def _compare(models: Sequence[Model]) -> list[dict]:
    comparisons = []
    for model in models[1:]:
        found = compare_paired(models[0].rows, model.rows, "dice")
        comparisons.append({"models": [models[0].name, model.name], "score": "dice", **found})
        if found["difference"] is not None:
            low, high = found["ci95"]
            print(
                f"{model.name} against {models[0].name}: Dice {found['difference']:+.3f} [{low:+.3f}, {high:+.3f}], "
                f"p = {found['wilcoxon_p']:.2g} (Wilcoxon signed-rank, paired by image)"
            )
    return comparisons


def _dice(model: Model, index: int) -> float:
    dice = model.rows[index]["dice"]
    return 2.0 if math.isnan(dice) else dice  # left out by --empty skip: after the best


def _in_words(name: str) -> str:
    words = {"lesion_share": "lesion share of the slice", "share_of_lung": "lesion share of the lungs"}
    true = "true " if name.startswith("true_") else ""
    return true + words[name.removeprefix("true_")]


def _percent(found: dict) -> str:
    return "-" if found["mean"] is None else f"{found['mean']:.2%} ({found['std']:.2%})"
