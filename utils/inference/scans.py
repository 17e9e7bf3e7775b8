"""Predict the lesions of whole scans."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.datasets import ScanSlices
from data.errors import FileError, one_note, printable
from data.io.volumes import Volume, read_labels, read_scan
from data.scans import Scan, find_scans
from utils.inference.predictor import Predictor
from utils.lesions import lesion_mask
from utils.output.console import warn

LARGEST_LUNGS_ML = 8000


def scans_at(path: Path, truths: Path | None = None) -> list[Scan]:
    """``find_scans``; warns of what it leaves out."""
    found = find_scans(path, truths)
    if found.note:
        warn(found.note)
    return found.scans


class PredictedScan(NamedTuple):
    """A scan with its volume, its lesion map uint8 ``(S, H, W)``, its true lesions or None, the reliability of the map,
    and notes on it."""

    scan: Scan
    volume: Volume
    soft: np.ndarray
    truth: np.ndarray | None
    reliability: float
    note: str


def predict_scans(
    predictor: Predictor,
    scans: Sequence[Scan],
    left_out: list[FileError],
    *,
    labels: Sequence[int] = (),
) -> Iterator[PredictedScan]:
    """Predict each scan, and print what was done to it.

    labels: as in ``read_labels``. Keeps one scan in memory. A scan that can't be read is skipped, and its error
    appended to ``left_out``.
    """
    for number, scan in enumerate(scans, start=1):
        tqdm.write(f"{'scan':<11} {number} of {len(scans)}: {printable(str(scan.path))}")
        try:
            volume = read_scan(scan.path, **predictor.config.scan_options)
            truth, note = read_labels(scan.truth, volume, scan.path, labels=labels) if scan.truth else (None, "")
        except FileError as error:
            left_out.append(error)
            continue
        found = predictor.predict_hu(volume.slices, window=predictor.config.window, note=one_note(volume.note, note))
        soft, note = found.map, found.note
        if np.count_nonzero(lesion_mask(soft, 0.5)) * volume.geometry.voxel_ml > LARGEST_LUNGS_ML:
            note = one_note(note, "more lesion than lungs can hold")
        tqdm.write(f"{'':<11} {_describe(found.slices)}")
        if note:
            warn(note)
        yield PredictedScan(scan, volume, soft, truth, found.reliability, note)


def _describe(slices: ScanSlices) -> str:
    """What was done to the slices of a scan."""
    cropped = sum(placement.frame.box is not None for placement in slices.placements)
    parts = [f"{len(slices)} of {len(slices.hu)} slices predicted"]
    parts += [f"{cropped} of them cropped to the lungs"] if cropped else []
    if slices.placements and (turns := slices.placements[0].turns):
        parts.append(f"rotated by {90 * turns} degrees for the network (the mask lies as the scan)")
    return ", ".join(parts)
