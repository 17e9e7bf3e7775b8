"""Scores of binary masks, an image at a time.

Rule for empty masks: a ratio 0/0 counts as 1. A slice without lesion that is predicted as such scores Dice 1,
sensitivity 1; one false pixel in it makes the Dice 0.
"""

from collections.abc import Sequence
from statistics import fmean, pstdev

from torch import Tensor

EMPTY_RULE = "0/0 counts as 1"
SCORES = ("dice", "sensitivity", "specificity")


def scores(prediction: Tensor, truth: Tensor, *, ignore: int = 255) -> dict[str, float]:
    """Dice, sensitivity and specificity of one slice.

    prediction: bool ``(H, W)``, True in lesions. truth: class indices ``(H, W)``, 0 for no lesion;
    pixels equal to ``ignore`` are not counted.
    """
    valid, truth = truth != ignore, truth > 0
    tp = (prediction & truth & valid).sum().item()
    fp = (prediction & ~truth & valid).sum().item()
    fn = (~prediction & truth & valid).sum().item()
    tn = (~prediction & ~truth & valid).sum().item()
    return {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
    }


def summarise(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and (population) standard deviation over images of every score in ``rows``."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: {"mean": fmean(values), "std": pstdev(values)} for name, values in columns.items()}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
