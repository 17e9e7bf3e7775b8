"""Read NIfTI volumes, and write masks in the space of any volume as NIfTI."""

import errno
import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from data.errors import FileError, one_note, stop_unless_file, unreadable
from data.io.geometry import TO_RAS, Geometry, farthest
from data.io.whole import whole

nibabel.imageglobals.logger.setLevel("CRITICAL")  # it reports headers that it mends
TILTED = 1  # degrees
NEAR = 0.1  # of a voxel: transforms that differ less are the same
GZIP = b"\x1f\x8b"
UNITS = {"meter": 1000.0, "micron": 0.001}  # in mm


def read_nifti(path: Path) -> tuple[np.ndarray, Geometry, str, nibabel.Nifti1Header]:
    """Voxels ``(X, Y, Z)`` as stored, scaled as the header says, their geometry, a note, and the header.

    Reads NIfTI-1 and -2, in one file or as ``.hdr`` and ``.img``. Raises FileError if the file is damaged or not one
    3-D volume of numbers.
    """
    _check_suffix(path)
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):  # also the class of the others
            raise FileError(path, "not NIfTI", "convert it to NIfTI, NRRD or MetaImage", type(image).__name__)
        shape = image.shape
        if len(shape) < 3 or max(shape[3:], default=1) > 1:
            advice = "store a slice as an image, such as PNG" if len(shape) < 3 else "save each volume of it as a file"
            raise FileError(path, "not a 3-D volume", advice, "x".join(map(str, shape)))
        kind = image.get_data_dtype()
        if kind.fields or kind.kind not in "iuf":
            detail = "colours" if kind.fields else f"{kind} numbers"
            raise FileError(path, "has no single value a voxel", "save it as a volume of gray levels", detail)
        voxels = np.asanyarray(image.dataobj).reshape(shape[:3])
        _check_sum(path)
    except FileError:
        raise
    except (
        ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, OverflowError, zlib.error,
        MemoryError,
    ) as error:  # fmt: skip
        raise unreadable(path, error, "volume") from error
    if 0 in voxels.shape:
        raise FileError(path, "not a 3-D volume", "export it again", "no voxels")
    header = image.header
    factor = UNITS.get(header.get_xyzt_units()[0], 1.0)
    scale = np.diag([factor, factor, factor, 1.0])
    affine = scale @ np.asarray(image.affine, float)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise FileError(path, "its header gives no positions of voxels", "set its sform or qform", "zero or not finite")
    sides = header.get_zooms()[:3]
    knows_spacing = bool(header["sform_code"] or header["qform_code"] or (min(sides) > 0 and set(sides) != {1.0}))
    geometry = Geometry(voxels.shape, TO_RAS @ affine, knows_spacing)
    return voxels, geometry, _note(geometry, header, factor), header


def write_nifti(slices: np.ndarray, geometry: Geometry, path: Path, header: nibabel.Nifti1Header | None = None) -> None:
    """Write axial slices ``(S, H, W)`` as a volume of exactly this geometry; ``header``: of a NIfTI file that has it.

    A header keeps its transforms and their codes. Where a geometry has a shear, only the sform has it. Raises OSError
    if the file can't be written.
    """
    voxels = geometry.from_slices(slices)
    if header is None:
        image = nibabel.Nifti1Image(voxels, None)
        image.set_sform(TO_RAS @ geometry.affine, 1)
        image.set_qform(TO_RAS @ geometry.affine, 1)  # without shears, which it has no place for
        image.header.set_xyzt_units("mm")
    else:
        image = nibabel.Nifti1Image(voxels, None, nibabel.Nifti1Header.from_header(header))
        image.header.set_data_dtype(voxels.dtype)
        image.header["cal_min"] = image.header["cal_max"] = 0
        image.header["descrip"] = image.header["aux_file"] = b""
        image.header["intent_code"] = 0
        for form in ("sform", "qform"):
            transform, code = getattr(header, f"get_{form}")(coded=True)
            getattr(image, f"set_{form}")(transform, code)
    try:
        with whole(path) as temporary:
            nibabel.save(image, temporary)
            read_nifti(temporary)  # a full disk may show only here
    except (OSError, ValueError, FileError) as error:
        code = getattr(error, "errno", None) or errno.EIO
        raise OSError(code, f"can't be written, the disk may be full ({error})", str(path)) from error


def _check_suffix(path: Path) -> None:
    stop_unless_file(path, "volume")
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise unreadable(path, error, "volume") from error
    if not start:
        raise FileError(path, "is empty", "export or copy it again")
    compressed = start == GZIP
    if compressed != path.name.lower().endswith(".gz"):
        new = path.name.removesuffix(".gz") if not compressed else f"{path.name}.gz"
        state = "is compressed" if compressed else "is not compressed"
        raise FileError(path, f"{state}, unlike its name says", f"rename it to {new}")


def _check_sum(path: Path) -> None:
    """Raise OSError or zlib.error if the checksum of a compressed file is wrong, which is read at its end only."""
    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as file:
            while file.read(2**20):
                pass


def _note(geometry: Geometry, header: nibabel.Nifti1Header, factor: float) -> str:
    """What may be wrong with the transforms of a file."""
    (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    notes = []
    if not (s_code or q_code):
        notes.append("its header has neither sform nor qform: left and right, or front and back, may be swapped")
    if s_code and q_code:
        off = factor * farthest(sform, qform, geometry.size)
        if off > NEAR * geometry.spacing.min():
            notes.append(f"its sform and qform differ by up to {off:.1f} mm; the sform is used, the mask keeps both")
    if geometry.tilt > TILTED:
        notes.append(f"slices are shifted against each other, as by a gantry tilted by {geometry.tilt:.0f} degrees")
    return one_note(*notes)
