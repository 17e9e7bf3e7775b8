"""Read DICOM series of CT slices as one stack: what belongs together, in its values, at its place.

Headers and stored values are read by pydicom. SimpleITK decompresses what pydicom can't without further packages.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.errors import FileError, listed, one_note, reason_of
from data.io.dicom.files import choose_series, dicom_files, other_files, read_files
from data.io.dicom.planes import Plane, planes_of

if TYPE_CHECKING:
    from pydicom import Dataset

UNKNOWN = (9.0,) * 6  # unlike any direction or spacing
SAME = 1e-3  # direction cosines, and millimetres, that differ less are equal
UNEVEN = 0.02  # of the median distance of slices
MISSING, DOUBLED = 1.5, 0.5  # of the median distance
TILTED = 1  # degrees
SIDEWAYS = 0.5  # of a pixel
ALIKE = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "ConvolutionKernel")  # in a scan; else a note


@dataclass(frozen=True)
class Stack:
    """The slices of a series from first to last, ``(X, Y, Z)``, float32, and what is known of them.

    padding: bool, where nothing was measured. affine: as in ``Geometry``, and whether it ``knows_spacing``.
    """

    values: np.ndarray
    padding: np.ndarray | None
    affine: np.ndarray
    knows_spacing: bool
    note: str
    modality: str
    sources: Sequence[tuple[Path, int]]  # of each slice, its file and its frame in it


def read_series(path: Path, *, number: int | None = None) -> Stack:
    """The slices of a folder, or of one file, that are one series; ``number``: which, in the order of the error.

    Raises FileError if a file is damaged, if there are several series, or if slices differ in what makes them a stack.
    """
    files = list(dicom_files(path))
    if not files:
        raise FileError(path, "contains no DICOM file", "give the folder of a series")
    datasets = read_files(path, files)
    chosen, note = choose_series(path, datasets, number)
    planes = [plane for file, dataset in chosen for plane in planes_of(file, dataset)]
    planes, left_out = _without_localizers(planes)
    _stop_unless_alike(path, planes)
    planes, affine, knows_spacing, placed = _stacked(path, planes)
    values, padding, valued = _values(path, planes)
    modality = planes[0].dataset.get("Modality", "")
    alone = path.is_file() and (more := len(list(dicom_files(path.parent))) - 1)
    beside = f"only this file is read; give its folder for the {more} beside it" if alone else ""
    if unknown := other_files(path, files):
        beside = f"{len(unknown)} files that are no DICOM left out ({listed(unknown)}); unpack them if they are slices"
    notes = one_note(beside, note, left_out, _other_differences(planes), placed, valued)
    sources = [(plane.path, plane.frame) for plane in planes]
    return Stack(values, padding, affine, knows_spacing, notes, modality, sources)


def _other_differences(planes: Sequence[Plane]) -> str:
    """A note if slices that fit together are of several patients, studies, places or kernels by their headers."""
    differ = [name for name in ALIKE if len({str(plane.dataset.get(name, "")) for plane in planes}) > 1]
    return f"slices differ in {' and '.join(differ)}; are they of one scan?" if differ else ""


def _without_localizers(planes: Sequence[Plane]) -> tuple[list[Plane], str]:
    kept = [plane for plane in planes if not plane.is_localizer]
    if not kept or len(kept) == len(planes):
        return list(planes), ""
    names = [plane.path.name for plane in planes if plane.is_localizer]
    return kept, f"{len(names)} localizer left out ({listed(names)})"


def _stop_unless_alike(folder: Path, planes: Sequence[Plane]) -> None:
    """Raise FileError that names the slices with another size, orientation or pixel spacing than most."""
    for what, values in {
        "size": [plane.shape for plane in planes],
        "number of values a pixel": [(int(plane.dataset.get("SamplesPerPixel", 1)),) for plane in planes],
        "orientation": [UNKNOWN if plane.direction is None else plane.direction for plane in planes],
        "pixel spacing": [plane.spacing or UNKNOWN[:2] for plane in planes],
    }.items():
        each = np.array(values, float)
        agree = (np.abs(each[:, None] - each) <= SAME).all(axis=2)
        most = agree[agree.sum(axis=1).argmax()]
        if not most.all():
            names = [plane.path.name for plane, own in zip(planes, most, strict=True) if not own]
            advice = "leave these out, or give each part in a folder of its own"
            detail = f"slices differ in {what}: {most.sum()} of {len(planes)} agree"
            raise FileError(folder, detail, advice, listed(names))
    if int(planes[0].dataset.get("SamplesPerPixel", 1)) > 1:
        advice = "give the CT series itself, not pictures of it"
        raise FileError(folder, "has several values a pixel (colours)", advice)


def _stacked(folder: Path, planes: Sequence[Plane]) -> tuple[list[Plane], np.ndarray, bool, str]:
    """The slices in order, the affine ``(4, 4)`` of their voxels, whether it is known, and a note."""
    first, notes = planes[0], []
    knows_spacing = first.spacing is not None
    if not knows_spacing:
        notes.append("no pixel spacing in the file, volumes in mL are unknown")
    columns, rows = first.columns, first.rows
    if columns is None or rows is None or any(plane.position is None for plane in planes):
        notes.append("no positions in the files: slices are taken to be upright, from the feet up by their numbers")
        planes = _by_number(folder, planes)
        step = first.thickness if len(planes) == 1 else None
        columns, rows, origin, way = np.eye(3)[0], np.eye(3)[1], np.zeros(3), np.eye(3)[2]
    else:
        normal = np.cross(columns, rows)
        positions = np.array([plane.position for plane in planes])
        order = np.argsort(positions @ normal, kind="stable")
        planes, positions = [planes[index] for index in order], positions[order]
        _stop_at_gaps(folder, planes, positions @ normal)
        origin, way, step = positions[0], normal, first.thickness
        if len(planes) > 1:
            way, step, note = _way_along(positions, normal, pixel=min(first.spacing or (1.0,)))
            notes.append(note)
    if step is None:
        notes.append("no distance of slices in the files, volumes in mL are unknown")
        knows_spacing = False
    row_spacing, column_spacing = first.spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3] = np.stack([columns * column_spacing, rows * row_spacing, way * (step or 1.0), origin], axis=1)
    return list(planes), affine, knows_spacing, one_note(*notes)


def _by_number(folder: Path, planes: Sequence[Plane]) -> list[Plane]:
    """Slices without positions in the order of their numbers. Raises FileError if some have none, or the same."""
    numbers = [(plane.number, plane.frame) for plane in planes]
    if len(set(numbers)) < len(planes):
        advice = "export the series again"
        raise FileError(folder, "its slices have neither positions nor numbers of their own", advice)
    return sorted(planes, key=lambda plane: (plane.number, plane.frame))


def _way_along(positions: np.ndarray, normal: np.ndarray, *, pixel: float) -> tuple[np.ndarray, float, str]:
    """The direction in which slices at these positions ``(S, 3)`` follow each other, their distance, and a note."""
    notes, off = [], positions - positions[0]
    length = float(np.linalg.norm(off[-1]))
    way = off[-1] / length
    if (tilt := float(np.degrees(np.arccos(min(1.0, abs(way @ normal)))))) > TILTED:
        notes.append(f"gantry tilted by {tilt:.0f} degrees")
    steps = np.diff(positions @ normal)
    if np.ptp(steps) > UNEVEN * np.median(steps):
        notes.append(f"slices are {steps.min():g} to {steps.max():g} mm apart, their mean is used")
    if (sideways := np.linalg.norm(off - np.outer(off @ way, way), axis=1).max()) > SIDEWAYS * pixel:
        notes.append(f"slices are shifted sideways by up to {sideways:.1f} mm, which the mask has no place for")
    return way, length / (len(positions) - 1), one_note(*notes)


def _stop_at_gaps(folder: Path, planes: Sequence[Plane], places: np.ndarray) -> None:
    steps = np.diff(places)
    if not len(steps):
        return
    if twice := [index for index, step in enumerate(steps) if step < SAME]:
        pairs = [f"{_name(planes[index])} and {_name(planes[index + 1])}" for index in twice]
        advice = "leave one of each out, or give each phase in a folder of its own"
        raise FileError(folder, "slices at the same place", advice, listed(pairs))
    usual = np.median(steps)
    if steps.max() > MISSING * usual or steps.min() < DOUBLED * usual:
        worst = int(np.argmax(np.abs(steps - usual)))
        names = " and ".join(_name(planes[index]) for index in (worst, worst + 1))
        detail = f"{names} are {steps[worst]:g} mm apart, most slices {usual:g}"
        raise FileError(folder, "a slice is missing or doubled", "export the whole series", detail)


def _name(plane: Plane) -> str:
    return plane.path.name if "NumberOfFrames" not in plane.dataset else f"frame {plane.frame + 1}"


def _values(folder: Path, planes: Sequence[Plane]) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Values ``(X, Y, Z)`` rescaled as each header says, where they are padding, and a note."""
    height, width = planes[0].shape
    values = np.empty((len(planes), height, width), np.float32)
    padding = np.zeros(values.shape, bool)
    decoded: dict[Path, np.ndarray] = {}
    broken = []
    for index, plane in enumerate(planes):
        if plane.path not in decoded:
            decoded.clear()  # all frames of a file follow each other
            try:
                decoded[plane.path] = _stored(plane)
            except Exception as error:  # by pydicom or one of its decoders
                broken.append(f"{plane.path.name} ({reason_of(error)})")
                continue
        stored = decoded[plane.path][plane.frame]
        values[index] = _rescaled(plane, stored)
        padding[index] = _is_padding(plane.dataset, stored)
    if broken:
        raise FileError(folder, "has slices whose pixels can't be read", "export the series again", listed(broken))
    note = ""
    if len(scales := {(plane.slope, plane.intercept) for plane in planes}) > 1:
        note = f"{len(scales)} rescale slopes and intercepts, each used for its slices"
    return values.T, padding.T if padding.any() else None, note


def _rescaled(plane: Plane, stored: np.ndarray) -> np.ndarray:
    """Stored values as what the scanner measured, by the header's table or its slope and intercept."""
    if "ModalityLUTSequence" in plane.dataset:
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(stored, plane.dataset)
    return stored * np.float32(plane.slope) + np.float32(plane.intercept)


def _stored(plane: Plane) -> np.ndarray:
    """The stored values of all frames of a file, ``(F, H, W)``, before rescaling, whatever the display is to invert."""
    dataset, shape = plane.dataset, (-1, *plane.shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of padding behind the pixels
            return dataset.pixel_array.reshape(shape)
    except (NotImplementedError, RuntimeError, AttributeError):
        if not dataset.file_meta.TransferSyntaxUID.is_compressed:
            raise
    from data.io.itk_files import itk

    if dataset.get("PhotometricInterpretation") == "MONOCHROME1" or "PerFrameFunctionalGroupsSequence" in dataset:
        raise ValueError("compressed; decompress it with dcmdjpeg or gdcmconv --raw")
    rescaled = itk().GetArrayFromImage(itk().ReadImage(str(plane.path))).astype(np.float32)
    return ((rescaled - plane.intercept) / plane.slope).reshape(shape)


def _is_padding(dataset: "Dataset", stored: np.ndarray) -> np.ndarray | bool:
    if (first := dataset.get("PixelPaddingValue")) in (None, ""):
        return False
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(first), int(first if last in (None, "") else last)))
    return (stored >= low) & (stored <= high)
