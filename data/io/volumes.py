"""Read and write CT volumes as axial slices: NIfTI, NRRD, MetaImage and DICOM series, with their geometry.

Arrays are axial slices ``(S, H, W)`` in one orientation, whatever the file has: from the feet up, row 0 in front,
column 0 on the patient's right, as radiologists view them. An oblique volume is not resampled: its axes are matched to
the nearest axes of the body, so that every voxel keeps its value and can be written back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.errors import FileError, one_note
from data.folders import SCAN_SUFFIXES
from data.io.dicom.files import dicom_files, is_dicom
from data.io.geometry import Geometry
from data.io.hounsfield import sample, to_hounsfield, why_no_ct

if TYPE_CHECKING:
    from nibabel import Nifti1Header

NIFTI = (".nii", ".nii.gz", ".hdr", ".img")
NEAR = 0.1  # of a voxel: masks that are closer to their scan have its geometry
NEARLY = 1e-3  # a label that is closer to a whole number is one
SAME_PLACE = 1e-3  # of a voxel: the rounding of headers
SHOWN = 8  # values in an error
FEW = 6  # values of a volume that is a mask
SMALLEST = 16  # voxels along a side of a scan
NARROWEST, WIDEST = 80, 1200  # mm of the two longest sides of a scan


@dataclass
class Volume:
    """Axial slices ``(S, H, W)`` with the geometry of their file.

    padding: where nothing was measured, bool, if the file says so. header: of a NIfTI file. note: what was assumed, and
    what may be wrong. modality: of a DICOM series that is no CT. sources: file and frame of each slice of a DICOM
    series, in its own order.
    """

    slices: np.ndarray
    geometry: Geometry
    padding: np.ndarray | None = None
    header: "Nifti1Header | None" = None
    note: str = ""
    modality: str = ""
    sources: Sequence[tuple[Path, int]] = ()


def is_volume(path: Path) -> bool:
    """Whether a path is a volume: a file of one of SCAN_SUFFIXES or of DICOM, or a folder of DICOM slices."""
    if path.is_dir():
        return any(dicom_files(path))
    return path.name.lower().endswith(SCAN_SUFFIXES) or is_dicom(path)


def read_scan(
    path: Path, *, any_values: bool = False, hu_offset: float | None = None, series: int | None = None
) -> Volume:
    """A CT scan, float32 in Hounsfield units, at least -1024.

    ``note`` tells what was assumed of values that can't be HU (``to_hounsfield``); ``hu_offset``: what was added to
    them. series: which one of a DICOM folder with several.
    Raises FileError if it can't be read, is not one 3-D volume, contains NaN, or can't be a CT of a chest (PET, MR,
    z-scores); with ``any_values``, a note says so instead.
    """
    volume = _read(path, series)
    if not volume.geometry.is_possible:
        sides = " x ".join(f"{side:.3g}" for side in volume.geometry.spacing)
        raise FileError(path, "its voxels have no possible size", "correct its header", f"{sides} mm")
    if not np.isfinite(volume.slices).all():
        raise FileError(path, "contains voxels that are NaN or infinite", "export it again")
    low, high = volume.slices.min(), volume.slices.max()
    if not any_values and len(levels := np.unique(volume.slices[:: max(1, len(volume.slices) // 8)])) < FEW:
        shown = ", ".join(f"{level:g}" for level in levels)
        raise FileError(path, "has few values, as a mask", "give the scan itself, or use --any_values", shown)
    hu, assumed = to_hounsfield(volume.slices, volume.padding, offset=hu_offset)
    reason = volume.modality and f"modality {volume.modality}, not CT"
    if reason := reason or why_no_ct(sample(hu)):
        if not any_values:
            advice = "give a CT in Hounsfield units, or use --any_values to process it all the same"
            raise FileError(path, "not a CT of a chest", advice, f"{reason}; values from {low:g} to {high:g}")
        reason = f"not a CT of a chest: {reason}"
    note = one_note(volume.note, _doubts_on_size(volume), assumed, reason)
    return Volume(hu, volume.geometry, header=volume.header, note=note, sources=volume.sources)


def _doubts_on_size(volume: Volume) -> str:
    """A note if the file does not tell the size of voxels, or if slices of that size are no chest."""
    if not volume.geometry.knows_spacing:
        # The note of a DICOM series says which distance is missing.
        return "" if volume.sources else "no spacing of voxels in the file, volumes in mL are unknown"
    sides = sorted(volume.geometry.spacing * volume.geometry.size)[-2:]
    if max(volume.geometry.size) < SMALLEST or (sides[0] >= NARROWEST and sides[1] <= WIDEST):
        return ""
    return f"{sides[0]:.3g} x {sides[1]:.3g} mm are not the size of a chest; check the spacing in the file"


def read_volume(path: Path) -> Volume:
    """A volume with the values of its file. Raises FileError if it can't be read."""
    return _read(path, None)


def read_labels(path: Path, scan: Volume, scan_path: Path, *, labels: Sequence[int] = ()) -> tuple[np.ndarray, str]:
    """The lesions of a scan, bool ``(S, H, W)``, and a note.

    All voxels that are not 0 are lesion if they have one value; ``labels``: those with these values. Raises FileError
    if the file does not match the scan, or if it is not clear which values are lesion.
    """
    volume = _read(path, None)
    note = _match(path, volume, scan, scan_path)
    lesions = _lesions(path, volume.slices, labels)
    note = one_note(note, "more lesion than background in its mask; is that inverted?" if lesions.mean() > 0.5 else "")
    return lesions, note


def read_saved(path: Path, scan: Volume, scan_path: Path, *, most: float | None = None) -> tuple[np.ndarray, str]:
    """A saved map of lesion probability of a scan, uint8 ``(S, H, W)`` with 255 for certainty, and a note.

    The file has a mask of 0 and one value, or fractions in [0, 1]; ``most``: the value of certainty of others. Raises
    FileError if it does not match the scan, or has other values.
    """
    volume = _read(path, None)
    note = _match(path, volume, scan, scan_path)
    values = volume.slices
    if not np.isfinite(values).all():
        raise FileError(path, "contains voxels that are NaN or infinite", "export it again")
    low, high = float(values.min()), float(values.max())
    whole = high == round(high) if most is None else high == 1
    if low == 0 and whole and len(np.unique(values)) <= 2:
        return (values == high) * np.uint8(255 if high else 0), note
    certain = most or 1.0
    if low < -NEARLY or high > certain + NEARLY:
        advice = "save 0 and one value, or fractions in [0, 1]; or say which value is certainty by --map_max"
        raise FileError(path, "neither a mask nor a map of probabilities", advice, f"values from {low:g} to {high:g}")
    return np.round(values * (255 / certain)).clip(0, 255).astype(np.uint8), note


def _match(path: Path, volume: Volume, scan: Volume, scan_path: Path) -> str:
    """Raise FileError unless a volume has the voxels of a scan; otherwise, a note if it is a bit off."""
    shapes = [each.slices.shape[::-1] for each in (volume, scan)]
    if shapes[0] != shapes[1]:
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
        raise FileError(path, f"differs in shape from {scan_path.name}", "give the mask of this scan", sizes)
    off = volume.geometry.distance(scan.geometry)
    if off > NEAR * scan.geometry.spacing.min():
        advice = "export mask and scan with one affine"
        raise FileError(path, f"differs in geometry from {scan_path.name}", advice, f"by up to {off:.3g} mm")
    return f"its mask is off by up to {off:.2g} mm" if off > SAME_PLACE * scan.geometry.spacing.min() else ""


def _lesions(path: Path, values: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    whole = np.round(values)
    if not (np.isfinite(values).all() and np.abs(values - whole).max() <= NEARLY):
        low, high = values.min(), values.max()
        detail = f"fractions from {low:g} to {high:g}" if np.isfinite(values).all() else "NaN or infinite values"
        advice = "threshold it and save whole numbers: 0, and one for lesions"
        raise FileError(path, "a map, not a mask", advice, detail)
    found = np.unique(whole).astype(int)
    if labels:
        return np.isin(whole, labels)
    shown = ", ".join(map(str, found[:SHOWN])) + (", ..." if len(found) > SHOWN else "")
    if len(found) > 2:
        raise FileError(path, "a mask of several labels", "say which of them are lesion by --label", shown)
    if 0 not in found:
        raise FileError(path, "a mask without background (0)", "say which value is lesion by --label", shown)
    return whole != 0


def write_like(slices: np.ndarray, scan: Volume, path: Path) -> None:
    """Write axial slices ``(S, H, W)`` as NIfTI in the space of a scan, with its header if it has one.

    Raises OSError if the file can't be written.
    """
    from data.io.nifti import write_nifti

    write_nifti(slices, scan.geometry, path, scan.header)


def _read(path: Path, series: int | None) -> Volume:
    name = path.name.lower()
    if path.is_dir() or is_dicom(path):
        from data.io.dicom.series import read_series

        stack = read_series(path, number=series)
        geometry = Geometry(stack.values.shape, stack.affine, stack.knows_spacing)
        padding = None if stack.padding is None else geometry.to_slices(stack.padding)
        modality = "" if stack.modality == "CT" else stack.modality
        values = geometry.to_slices(stack.values)
        return Volume(values, geometry, padding, note=stack.note, modality=modality, sources=stack.sources)
    if name.endswith(NIFTI):
        from data.io.nifti import read_nifti

        voxels, geometry, note, header = read_nifti(path)
        return Volume(geometry.to_slices(voxels), geometry, header=header, note=note)
    from data.io.itk_files import read_itk

    voxels, geometry = read_itk(path)
    return Volume(geometry.to_slices(voxels), geometry)
