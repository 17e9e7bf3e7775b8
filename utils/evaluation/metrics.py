"""Scores of one slice: of a lesion mask, and of a soft map over all thresholds.

Two protocols, not to be mixed. *Fixed*: the map is cut at one threshold and the mask scored. *Threshold mean*: the
map is stretched to its full range; Dice, IoU, sensitivity, specificity, precision and E-measure are averaged over
256 thresholds, S-measure and MAE taken of the map itself. This is what the saliency field's tools report.

A ratio 0/0 (nothing to find, and nothing found) follows ``--empty``; a missed lesion never does: its precision is
0, its distances the diagonal of the image. Over all thresholds 0/0 is 0, as in the field's tools.
"""

import math

import numpy as np
from torch import Tensor

from data.labels import IGNORE
from utils.lesions import lesion_mask

EMPTY_RULES = {"one": 1.0, "zero": 0.0, "skip": math.nan}
FROM_COUNTS = ("dice", "iou", "sensitivity", "specificity", "precision")
SCORES = (*FROM_COUNTS, "s_measure", "e_mean", "e_max", "e_adaptive", "mae", "hd95", "assd")
THRESHOLD_MEAN = "tm_"  # what the names of threshold-mean scores begin with


def scores(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Dice, sensitivity and specificity of a slice in training; 0/0 counts as 1.

    prediction: bool ``(H, W)``, True in lesions. truth: class indices ``(H, W)``, 0 for no lesion; pixels equal to
    IGNORE are not counted.
    """
    valid = truth != IGNORE
    found = ratios(prediction[valid].numpy(), truth[valid].numpy() > 0, undefined=1.0)
    return {name: found[name] for name in ("dice", "sensitivity", "specificity")}


def evaluate(soft: np.ndarray, truth: np.ndarray, *, threshold: float = 0.5, empty: str = "one") -> dict[str, float]:
    """All SCORES of one slice by the fixed protocol, then, each name with ``tm_`` before it, by threshold mean.

    soft: a map of lesion probability, uint8 ``(H, W)``, 255 for certainty. truth: bool ``(H, W)``. Pixels above
    ``threshold``, in [0, 1), are lesion. Distances are in pixels and of the fixed protocol only. A score that
    ``empty`` = skip leaves out is NaN.
    """
    mask = lesion_mask(soft, threshold)
    fixed = ratios(mask, truth, undefined=EMPTY_RULES[empty])
    fixed |= _saliency(mask * np.uint8(255), truth) | _distances(mask, truth, empty)
    over_thresholds = _ratios_over_thresholds(soft, truth) | _saliency(soft, truth)
    return fixed | {THRESHOLD_MEAN + name: value for name, value in over_thresholds.items()}


def follows_empty_rule(truth: np.ndarray) -> bool:
    """Whether some score of this slice is 0/0: its truth, bool ``(H, W)``, has no lesion, or nothing else."""
    return not truth.any() or bool(truth.all())


def ratios(mask: np.ndarray, truth: np.ndarray, *, undefined: float) -> dict[str, float]:
    """FROM_COUNTS of a mask, bool of any shape; 0/0 is ``undefined``, but the precision of a miss is 0."""
    areas = (mask & truth, mask & ~truth, ~mask & truth, ~mask & ~truth)
    tp, fp, fn, tn = (int(np.count_nonzero(area)) for area in areas)

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else undefined

    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "iou": ratio(tp, tp + fp + fn),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "precision": ratio(tp, tp + fp) if tp + fp or not fn else 0.0,
    }


def _saliency(soft: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    from py_sod_metrics import MAE, Emeasure, Smeasure

    s_measure, e_measure, mae = Smeasure(alpha=0.5), Emeasure(), MAE()
    for measure in (s_measure, e_measure, mae):
        measure.step(soft, truth * np.uint8(255))
    e_measures = e_measure.changeable_ems[0]
    return {
        "s_measure": float(s_measure.sms[0]),
        "e_mean": float(e_measures.mean()),
        "e_max": float(e_measures.max()),
        "e_adaptive": float(e_measure.adaptive_ems[0]),
        "mae": float(mae.maes[0]),
    }


def _ratios_over_thresholds(soft: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    from py_sod_metrics import (
        DICEHandler,
        FmeasureV2,
        IOUHandler,
        PrecisionHandler,
        SensitivityHandler,
        SpecificityHandler,
    )

    kinds = (DICEHandler, IOUHandler, SensitivityHandler, SpecificityHandler, PrecisionHandler)
    handlers = {
        name: kind(with_dynamic=True, with_adaptive=False) for name, kind in zip(FROM_COUNTS, kinds, strict=True)
    }
    FmeasureV2(handlers).step(soft, truth * np.uint8(255))
    return {name: float(np.mean(handler.dynamic_results[0])) for name, handler in handlers.items()}


def _distances(mask: np.ndarray, truth: np.ndarray, empty: str) -> dict[str, float]:
    diagonal = math.hypot(*truth.shape)
    if not mask.any() or not truth.any():
        agreed = {"one": 0.0, "zero": diagonal, "skip": math.nan}[empty]
        return dict.fromkeys(("hd95", "assd"), diagonal if mask.any() or truth.any() else agreed)
    from scipy.ndimage import binary_erosion, distance_transform_edt

    rims = [area & ~binary_erosion(area) for area in (mask, truth)]  # at the image's border, too
    to_mask, to_truth = (distance_transform_edt(~rim) for rim in rims)
    there_and_back = to_truth[rims[0]], to_mask[rims[1]]
    hd95 = max(np.percentile(distances, 95) for distances in there_and_back)
    return {"hd95": float(hd95), "assd": float(np.concatenate(there_and_back).mean())}
