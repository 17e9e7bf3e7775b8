"""Find whole scans and predict their lesions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.datasets import ScanSlices
from data.errors import FileError, InputError, one_note
from data.folders import bare_case, case_of
from data.io.volumes import Volume, is_volume, read_labels, read_scan
from data.preprocess.window import Window
from utils.inference.predictor import Predictor
from utils.lesions import lesion_mask

LARGEST_LUNGS_ML = 8000


@dataclass(frozen=True)
class Scan:
    """A scan and, if there is one, the volume with its true lesions."""

    path: Path
    truth: Path | None = None


def find_scans(path: Path, truths: Path | None = None) -> list[Scan]:
    """The scans at ``path``: a volume, a folder with a DICOM series, or a folder of either, except
    ``a_seg.nii.gz``. A folder of slices has none.

    ``truths``: a volume or a folder of volumes; ``a_ct.nii.gz`` matches ``a.nii.gz`` or ``a_seg.nii.gz``.
    Raises InputError that names every scan without truth.
    """
    if is_volume(path):
        paths = [path]
    else:
        paths = sorted(child for child in path.iterdir() if is_volume(child)) if path.is_dir() else []
        paths = [child for child in paths if not case_of(child).endswith("_seg")]
    if doubled := [name for name, times in Counter(map(case_of, paths)).items() if times > 1]:
        raise InputError(
            f"{path}: two scans named {', '.join(doubled)}; their masks would be one file, rename one of each"
        )
    if truths is None or not paths:
        return [Scan(path) for path in paths]
    if len(paths) == 1 and is_volume(truths):
        return [Scan(paths[0], truths)]
    volumes = [child for child in sorted(truths.iterdir()) if is_volume(child)] if truths.is_dir() else []
    by_case = {bare_case(volume): volume for volume in volumes if not case_of(volume).endswith("_ct")}
    if missing := [path.name for path in paths if bare_case(path) not in by_case]:
        raise InputError(
            f"{truths}: no volume with the true lesions of {', '.join(missing)}; add it under the scan's name"
        )
    return [Scan(path, by_case[bare_case(path)]) for path in paths]


class PredictedScan(NamedTuple):
    """A scan with its volume, its lesion map uint8 ``(S, H, W)``, its true lesions or None, and notes on it."""

    scan: Scan
    volume: Volume
    soft: np.ndarray
    truth: np.ndarray | None
    note: str


def predict_scans(
    predictor: Predictor, scans: Sequence[Scan], left_out: list[FileError], *, window: Window
) -> Iterator[PredictedScan]:
    """Predict each scan, and print what was done to it.

    Keeps one scan in memory. A scan that can't be read is skipped, and its error appended to ``left_out``.
    """
    for number, scan in enumerate(scans, start=1):
        tqdm.write(f"{'scan':<11} {number} of {len(scans)}: {scan.path}")
        try:
            volume = read_scan(scan.path, any_values=predictor.config.any_values)
            truth = read_labels(scan.truth, volume, scan.path) if scan.truth else None
        except FileError as error:
            left_out.append(error)
            continue
        soft, slices, note = predictor.predict_hu(volume.slices, window=window, note=volume.note)
        if np.count_nonzero(lesion_mask(soft, 0.5)) * volume.geometry.voxel_ml > LARGEST_LUNGS_ML:
            note = one_note(note, "more lesion than lungs can hold")
        tqdm.write(f"{'':<11} {_describe(slices)}")
        if note:
            tqdm.write(f"{'':<11} WARNING: {note}")
        yield PredictedScan(scan, volume, soft, truth, note)


def _describe(slices: ScanSlices) -> str:
    """What was done to the slices of a scan."""
    cropped = sum(placement.frame.box is not None for placement in slices.placements)
    parts = [f"predicted {len(slices)} of {len(slices.hu)} slices"]
    parts += [f"cropped {cropped} to the lungs"] if cropped else []
    if slices.placements and (turns := slices.placements[0].turns):
        parts.append(f"rotated by {90 * turns} degrees to the orientation of the training set")
    return ", ".join(parts)
