"""Volume and number of the lesions of a scan, their scores, and a picture."""

from pathlib import Path

import numpy as np

from data.io.volumes import Geometry, Volume
from data.preprocess.window import Window
from utils.evaluation.metrics import EMPTY_RULES, ratios
from utils.output.pictures import Panel, draw_sheet

SHOWN = 6  # slices of a scan


def burden(mask: np.ndarray, geometry: Geometry) -> dict[str, float]:
    """Volume of the lesions in mL (NaN: unknown) and their number (26-connected) in a mask, bool ``(S, H, W)``."""
    from scipy import ndimage  # slow to import, and not needed for slices

    count = ndimage.label(mask, structure=np.ones((3, 3, 3)))[1]
    return {"lesion_ml": float(np.count_nonzero(mask) * geometry.voxel_ml), "lesions": int(count)}


def score_scan(mask: np.ndarray, truth: np.ndarray, *, empty: str) -> dict[str, float]:
    """Dice, sensitivity, specificity and precision over all voxels of two masks, bool ``(S, H, W)``; and the mean
    Dice of the slices, ``slice_dice``. ``empty``: what 0/0 counts as."""
    undefined = EMPTY_RULES[empty]
    found = ratios(mask, truth, undefined=undefined)
    by_slice = [ratios(m, t, undefined=undefined)["dice"] for m, t in zip(mask, truth, strict=True)]
    return {**found, "slice_dice": float(np.nanmean(by_slice)) if not np.isnan(by_slice).all() else undefined}


def draw_scan(path: Path, volume: Volume, window: Window, mask: np.ndarray, truth: np.ndarray | None) -> None:
    """Draw the slices with the most lesion, in order, with the prediction and, below it, the truth laid over them."""
    amount = mask.sum(axis=(1, 2)) + (truth.sum(axis=(1, 2)) if truth is not None else 0)
    chosen = np.sort(np.argsort(amount, kind="stable")[-SHOWN:])
    images = [window.to_gray(volume.slices[index]) / 255 for index in chosen]
    rows = []
    for name, labels in (("prediction", mask), ("truth", truth)):
        if labels is not None:
            rows.append([Panel(i, labels[k], f"slice {k}, {name}") for i, k in zip(images, chosen, strict=True)])
    draw_sheet(path, rows)
