"""The slices of DICOM files: what their headers say of place, size and values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.errors import FileError

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Plane:
    """A slice: its file, its frame in it, and the part of the header that says where it lies.

    columns, rows: the directions of both ``(3,)`` in the coordinates of DICOM, of length 1; None: not known, as the
    position of its first pixel. spacing: of rows, then of columns, in mm.
    """

    path: Path
    dataset: "Dataset"
    frame: int
    position: np.ndarray | None
    columns: np.ndarray | None
    rows: np.ndarray | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.dataset.Rows), int(self.dataset.Columns)

    @property
    def direction(self) -> np.ndarray | None:
        """Both directions in one, ``(6,)``."""
        return None if self.columns is None or self.rows is None else np.concatenate([self.columns, self.rows])

    @property
    def number(self) -> int:
        """The place in the series as the scanner counts, 0 if it does not."""
        return whole_number(self.dataset, "InstanceNumber")

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in _texts(self.dataset, "ImageType")


def whole_number(dataset: "Dataset", name: str) -> int:
    """A number in a header; 0 if it is missing, or none."""
    try:
        return int(dataset.get(name) or 0)
    except ValueError:
        return 0


def planes_of(file: Path, dataset: "Dataset") -> list[Plane]:
    """The slices of a file: one, or those of its frames (enhanced CT)."""
    count = int(dataset.get("NumberOfFrames") or 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    if count > 1 and (groups is None or len(groups) != count):
        raise FileError(file, f"has {count} frames without positions", "export it as one file a slice")
    planes = []
    for frame in range(count):
        sources = [dataset] if groups is None else [groups[frame], shared, dataset]
        get = _reader(file, [source for source in sources if source is not None])
        direction = get("ImageOrientationPatient", "PlaneOrientationSequence", 6)
        planes.append(
            Plane(
                path=file,
                dataset=dataset,
                frame=frame,
                position=get("ImagePositionPatient", "PlanePositionSequence", 3),
                columns=None if direction is None else _unit(file, direction[:3]),
                rows=None if direction is None else _unit(file, direction[3:]),
                spacing=_positive(get("PixelSpacing", "PixelMeasuresSequence", 2)),
                thickness=_distance(get),
                slope=_one(get("RescaleSlope", "PixelValueTransformationSequence", 1), 1.0),
                intercept=_one(get("RescaleIntercept", "PixelValueTransformationSequence", 1), 0.0),
            )
        )
    return planes


def _reader(file: Path, sources: Sequence["Dataset"]) -> Callable[[str, str, int], np.ndarray | None]:
    """A function that looks a number of values up in the header, or in a functional group of it."""

    def get(name: str, group: str, count: int) -> np.ndarray | None:
        for source in sources:
            holder = source if name in source else (source.get(group) or [None])[0]
            if holder is None or name not in holder or holder.get(name) in (None, ""):
                continue
            try:
                values = np.atleast_1d(np.array(holder.get(name), float))
            except (TypeError, ValueError):
                values = np.array([])
            if values.shape != (count,) or not np.isfinite(values).all():
                raise FileError(file, f"its {name} is not {count} numbers", "export it again", str(holder.get(name)))
            return values
        return None

    return get


def _distance(get: Callable[[str, str, int], np.ndarray | None]) -> float | None:
    """The distance of slices that a header tells: between their centres, or else their thickness."""
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = get(name, "PixelMeasuresSequence", 1)
        if value is not None and value[0] != 0:
            return float(abs(value[0]))
    return None


def _positive(spacing: np.ndarray | None) -> tuple[float, float] | None:
    return None if spacing is None or not (spacing > 0).all() else (float(spacing[0]), float(spacing[1]))


def _one(values: np.ndarray | None, default: float) -> float:
    return default if values is None else float(values[0])


def _unit(file: Path, direction: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(direction)
    if not 0.9 < length < 1.1:
        raise FileError(file, "its ImageOrientationPatient is no direction", "export it again", str(direction))
    return direction / length


def _texts(dataset: "Dataset", name: str) -> list[str]:
    value = dataset.get(name) or []
    return [str(part).upper() for part in ([value] if isinstance(value, str) else value)]
