"""Volume and number of the lesions of a scan, their scores, and a picture."""

from pathlib import Path

import numpy as np

from data.io.volumes import Geometry
from data.preprocess.window import Window
from utils.evaluation.metrics import EMPTY_RULES, ratios
from utils.output.pictures import Panel, draw_sheet

SHOWN = 6  # slices of a scan


def scan_row(
    name: str, mask: np.ndarray, truth: np.ndarray | None, geometry: Geometry, *, empty: str
) -> dict[str, str | float]:
    """The row of a scan in a table: burden of its mask, bool ``(S, H, W)``, and scores if there is a truth."""
    row: dict[str, str | float] = {"image": name, "slices": len(mask), **burden(mask, geometry)}
    if truth is not None:
        row |= {f"true_{name}": value for name, value in burden(truth, geometry).items()}
        row |= score_scan(mask, truth, empty=empty)
    return row


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


def draw_scan(
    path: Path, hu: np.ndarray | None, window: Window, masks: dict[str, np.ndarray], heading: str = ""
) -> None:
    """Draw the slices with the most lesion, in order and counted from 1: a row for each mask, by name, laid over them.

    hu: ``(S, H, W)``, or None for a black background; masks: bool ``(S, H, W)``.
    """
    amount = sum(mask.sum(axis=(1, 2), dtype=int) for mask in masks.values())
    chosen = np.sort(np.argsort(amount, kind="stable")[-SHOWN:])
    first = next(iter(masks.values()))
    images = [np.zeros(first.shape[1:]) if hu is None else window.to_gray(hu[k]) / 255 for k in chosen]
    rows = [
        [Panel(image, mask[k], f"slice {k + 1}, {name}") for image, k in zip(images, chosen, strict=True)]
        for name, mask in masks.items()
    ]
    draw_sheet(path, rows, heading=heading)
