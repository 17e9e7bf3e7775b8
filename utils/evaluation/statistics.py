"""Scores over images: mean (std), confidence intervals, paired tests."""

import math
from collections.abc import Sequence

import numpy as np

from utils.evaluation.metrics import SCORES

RESAMPLES = 2000


Rows = Sequence[dict[str, float]]  # the scores of one model, an image a row


def summarise(values: Sequence[float]) -> dict:
    """Mean, population standard deviation and count of the values that are not NaN; None for the first two if none."""
    kept = [value for value in values if not math.isnan(value)]
    if not kept:
        return {"mean": None, "std": None, "images": 0}
    return {"mean": float(np.mean(kept)), "std": float(np.std(kept)), "images": len(kept)}


def summarise_scores(rows: Rows, *, prefix: str = "") -> dict[str, dict]:
    """``summarise`` of every score of a protocol, with ``ci95``: a bootstrap confidence interval over images."""
    summary = {}
    for name in SCORES:
        if prefix + name in rows[0]:
            values = [row[prefix + name] for row in rows]
            summary[name] = summarise(values) | {"ci95": confidence_interval(values)}
    return summary


def confidence_interval(values: Sequence[float]) -> list[float] | None:
    """The 95 % percentile bootstrap interval of the mean, NaN left out; None of fewer than two values."""
    from scipy.stats import bootstrap

    kept = np.array([value for value in values if not math.isnan(value)])
    if len(kept) < 2:
        return None
    found = bootstrap((kept,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def compare_paired(first: Rows, second: Rows, name: str) -> dict:
    """Second minus first on the same images: mean difference, its ``ci95`` and the p of a Wilcoxon signed-rank test.

    Images where either value is NaN are left out. p is 1 if no image differs, None of fewer than two images.
    """
    from scipy.stats import wilcoxon

    differences = np.array([b[name] - a[name] for a, b in zip(first, second, strict=True)])
    differences = differences[~np.isnan(differences)]
    if len(differences) < 2:
        return {"difference": None, "ci95": None, "wilcoxon_p": None}
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return {"difference": float(differences.mean()), "ci95": confidence_interval(differences), "wilcoxon_p": p}
