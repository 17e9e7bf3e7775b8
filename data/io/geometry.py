"""Where the voxels of a volume lie, and the way from the axes of its file to axial slices and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

OUR_AXES = "LPS"  # columns run to the patient's left, rows to the back (posterior), slices up (superior)
SMALLEST, LARGEST = 1e-3, 1e3  # mm between voxels
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from the coordinates of DICOM, LPS, to those of NIfTI; and back


@dataclass(frozen=True, eq=False)
class Geometry:
    """Positions of the voxels of a file, which has its own order of axes, columns first.

    size: voxels along each axis. affine: from voxel to millimetres, ``(4, 4)``, in the coordinates of DICOM: x to the
    patient's left, y to the back, z up. knows_spacing: False if the file does not say how far voxels are apart.
    """

    size: tuple[int, ...]
    affine: np.ndarray
    knows_spacing: bool = True

    @property
    def axes(self) -> str:
        """Where the axes run to, by the nearest axes of the body: three letters, such as LPS or RAS."""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(TO_RAS @ self.affine))

    @property
    def spacing(self) -> np.ndarray:
        """Distance of voxels along each axis in mm, ``(3,)``."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel; NaN if it is not known."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000 if self.knows_spacing else float("nan")

    @property
    def is_possible(self) -> bool:
        """Whether a scanner can have such voxels; sizes that are 0, infinite or not numbers are none."""
        sides = self.spacing
        return bool(np.isfinite(self.affine).all() and (sides >= SMALLEST).all() and (sides <= LARGEST).all())

    @property
    def tilt(self) -> float:
        """Degrees by which slices are shifted against each other, as those of a tilted gantry are."""
        columns, rows, up = (self.affine[:3, :3] / self.spacing).T
        normal = np.cross(columns, rows)
        normal = normal / np.linalg.norm(normal)
        return float(np.degrees(np.arccos(min(1.0, abs(normal @ up)))))

    def distance(self, other: "Geometry") -> float:
        """The largest distance in mm between voxels of both that are at the same place in ``to_slices``."""
        first, second = self.with_axes(OUR_AXES), other.with_axes(OUR_AXES)
        return farthest(first.affine, second.affine, first.size)

    def with_axes(self, axes: str) -> "Geometry":
        """The same places, stored in another order, such as "RAS"."""
        from nibabel.orientations import inv_ornt_aff

        way = _way(self.axes, axes)
        size = tuple(self.size[int(axis)] for axis in np.argsort(way[:, 0]))
        return Geometry(size, self.affine @ inv_ornt_aff(way, self.size), self.knows_spacing)

    def to_slices(self, voxels: np.ndarray) -> np.ndarray:
        """Voxels ``(X, Y, Z)`` in the file's order as axial slices ``(S, H, W)``, as data/io/volumes.py has them."""
        from nibabel.orientations import apply_orientation

        return np.ascontiguousarray(apply_orientation(voxels, _way(self.axes, OUR_AXES)).T)

    def from_slices(self, slices: np.ndarray) -> np.ndarray:
        """The inverse of ``to_slices``."""
        from nibabel.orientations import apply_orientation

        return np.ascontiguousarray(apply_orientation(slices.T, _way(OUR_AXES, self.axes)))


def _way(axes: str, others: str) -> np.ndarray:
    """How to reorder and flip axes to get others, as the functions of nibabel take it."""
    from nibabel.orientations import axcodes2ornt, ornt_transform

    return ornt_transform(axcodes2ornt(tuple(axes)), axcodes2ornt(tuple(others)))


def farthest(first: np.ndarray, second: np.ndarray, size: Sequence[int]) -> float:
    """The largest distance in mm between the places that two affines ``(4, 4)`` give to a voxel of a volume."""
    corners = np.array([(*corner, 1.0) for corner in product(*((0, side - 1) for side in size))])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())
