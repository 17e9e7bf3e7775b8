"""Pictures of an evaluation: cases, box plot, worst and best, overlay sheets."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.evaluation.cases import Case, Model
from utils.lesions import lesion_mask
from utils.output.folder import ResultFolder
from utils.output.pictures import ERROR_COLOURS, OVERLAY, Panel, draw_boxplot, draw_sheet, error_panel

ROWS_A_PAGE = 8


EXTREME_CASES = 4  # of the worst and of the best


def format_dice(row: dict) -> str:
    """The Dice of a row for a caption."""
    return "left out" if math.isnan(row["dice"]) else f"{row['dice']:.3f}"


def draw_case(path: Path, case: Case, masks: dict[str, np.ndarray]) -> None:
    """Draw a slice, its truth if there is one, and predicted masks, bool ``(H, W)``, by caption, side by side."""
    image = case.read_image() / 255
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
    draw_boxplot(figures / "dice.png", dice, "Dice of each slice\n(line: median, dashed: mean)")
    half = min(EXTREME_CASES, (len(cases) + 1) // 2)
    worst = by_dice[:half]
    # Among the best cases, those with a lesion show more than rightly empty masks.
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
        image = case.read_image() / 255
        row = [Panel(image, caption=name), Panel(image, truth)]
    else:
        row = [Panel(np.zeros(truth.shape), truth, name)]
    for model in models:
        mask = lesion_mask(model.read(index, case.size()), threshold)
        row.append(error_panel(mask, truth, f"Dice {format_dice(model.rows[index])}"))
    return row


def _dice(model: Model, index: int) -> float:
    dice = model.rows[index]["dice"]
    return 2.0 if math.isnan(dice) else dice  # left out by --empty skip: after the best
