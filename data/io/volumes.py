"""Read and write CT volumes as axial slices: NIfTI, NRRD, MetaImage and DICOM series, with their geometry.

Arrays are axial slices ``(S, H, W)`` in one orientation, whatever the file has: from the feet up, row 0 in front,
column 0 on the patient's right, as radiologists view them. An oblique volume is not resampled: its axes are matched to
the nearest axes of the body, so that every voxel keeps its value and can be written back.
"""

import errno
import gzip
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from data.errors import FileError, one_note
from data.folders import SCAN_SUFFIXES, SUFFIXES
from data.io.checks import why_no_ct
from data.preprocess.window import LUNG

if TYPE_CHECKING:
    import SimpleITK

OUR_ORIENTATION = "LPS"  # columns run to the patient's left, rows to the back (posterior), slices up (superior)


@cache
def itk() -> ModuleType:
    """SimpleITK, imported with the first volume: slices need neither the package nor the time to import it."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # it warns of every folder without DICOM
    return SimpleITK


@dataclass(frozen=True)
class Geometry:
    """Positions of the voxels of a file, in mm; sizes and axes in the file's own order."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: "SimpleITK.Image") -> "Geometry":
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def orientation(self) -> str:
        """The three letters of the nearest body axes, such as LPS or RAS."""
        return itk().DICOMOrientImageFilter.GetOrientationFromDirectionCosines(self.direction)

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000

    def matches(self, other: "Geometry") -> bool:
        """Whether both cover the same voxels, to within a hundredth of a voxel."""
        if self.size != other.size:
            return False
        tolerance = min(self.spacing) / 100
        # An error in spacing or direction adds up over the extent of the volume: compare its far corner as well.
        return bool(
            np.allclose(self.origin, other.origin, rtol=0, atol=tolerance)
            and np.allclose(self._corner(), other._corner(), rtol=0, atol=tolerance)
            and np.allclose(self.direction, other.direction, rtol=0, atol=1e-3)
        )

    def _corner(self) -> np.ndarray:
        extent = np.array(self.spacing) * (np.array(self.size) - 1)
        return np.array(self.origin) + np.array(self.direction).reshape(3, 3) @ extent


@dataclass
class Volume:
    """Axial slices ``(S, H, W)`` with the geometry of their file.

    note: assumptions that were made, if any. modality: of a DICOM series that is no CT.
    """

    slices: np.ndarray
    geometry: Geometry
    note: str = ""
    modality: str = ""


def is_volume(path: Path) -> bool:
    """Whether a path is a volume: a file of one of SCAN_SUFFIXES, or a folder of DICOM slices."""
    if path.is_dir():
        of_slices = [file.suffix.lower() in SUFFIXES for file in path.iterdir() if file.is_file()]
        if all(of_slices):  # GDCM would read every slice
            return False
        if any(of_slices) and not find_spec("SimpleITK"):  # other files beside slices need no package to be ignored
            return False
        return bool(itk().ImageSeriesReader.GetGDCMSeriesIDs(str(path)))
    return path.name.lower().endswith(SCAN_SUFFIXES)


def read_scan(path: Path, *, any_values: bool = False) -> Volume:
    """A CT scan, float32 in Hounsfield units.

    Values that can't be HU are converted from what they most likely are, and ``note`` says so: [0, 1] and 8-bit gray
    levels from a lung window, other values without air below -200 from HU + 1024.
    Raises FileError if it can't be read, is not one 3-D volume, contains NaN, or can't be a CT of a chest (PET, MR,
    z-scores); with ``any_values``, a note says so instead.
    """
    volume = _read(path)
    hu = volume.slices.astype(np.float32)
    _stop_unless_finite(path, hu)
    low, high = hu.min(), hu.max()
    assumed = ""
    if low >= 0 and high <= 1:
        hu, assumed = LUNG.to_hu(hu), "values in [0, 1], interpreted as a lung window (-650, 1500)"
    elif low >= 0 and high <= 255:
        hu, assumed = LUNG.to_hu(hu / 255), "values in [0, 255], interpreted as a lung window (-650, 1500)"
    elif low >= 0:
        hu, assumed = hu - 1024, f"values from {low:g} to {high:g}, interpreted as HU + 1024"
    reason = volume.modality and f"modality {volume.modality}, not CT"
    if reason := reason or why_no_ct(hu):
        if not any_values:
            advice = "give a CT in Hounsfield units, or use --any_values to process it all the same"
            raise FileError(path, "not a CT of a chest", advice, f"{reason}; values from {low:g} to {high:g}")
        reason = f"not a CT of a chest: {reason}"
    return Volume(hu, volume.geometry, one_note(volume.note, assumed, reason))


def read_labels(path: Path, scan: Volume, scan_path: Path) -> np.ndarray:
    """The lesions of a scan, bool ``(S, H, W)``: all voxels that are not 0. FileError if it does not match the scan."""
    volume = _read(path)
    if volume.geometry.size != scan.geometry.size:
        sizes = " and ".join("x".join(map(str, g.size)) for g in (volume.geometry, scan.geometry))
        raise FileError(path, f"differs in shape from {scan_path.name}", "give the mask of this scan", sizes)
    if not volume.geometry.matches(scan.geometry):
        raise FileError(path, f"differs in geometry from {scan_path.name}", "export mask and scan with one affine")
    return volume.slices != 0


def write_like(slices: np.ndarray, geometry: Geometry, path: Path) -> None:
    """Write axial slices ``(S, H, W)`` as a volume of exactly this geometry. Raises OSError if it can't be written."""
    sitk = itk()
    # Reorienting an empty image of the file's geometry gives the geometry of our orientation.
    frame = sitk.Image(geometry.size, sitk.sitkUInt8)
    frame.SetSpacing(geometry.spacing)
    frame.SetOrigin(geometry.origin)
    frame.SetDirection(geometry.direction)
    image = sitk.GetImageFromArray(slices)
    image.CopyInformation(sitk.DICOMOrient(frame, OUR_ORIENTATION))
    image = sitk.DICOMOrient(image, geometry.orientation)
    image.CopyInformation(frame)  # without the rounding of two reorientations
    temporary = path.with_name(f".writing_{path.name}")
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        _read_file(temporary)  # ITK does not report a full disk
        temporary.replace(path)
    except (RuntimeError, FileError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(errno.EIO, "can't be written, the disk may be full", str(path)) from error


def _read(path: Path) -> Volume:
    sitk = itk()
    image, note, modality = _read_series(path) if path.is_dir() else (_read_file(path), "", "")
    oriented = sitk.DICOMOrient(image, OUR_ORIENTATION)
    return Volume(sitk.GetArrayFromImage(oriented), Geometry.of(image), note, modality)


def _read_file(path: Path) -> "SimpleITK.Image":
    try:
        reader = itk().ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        size = reader.GetSize()
        if len(size) != 3 and not (len(size) == 4 and size[3] == 1):
            shape = "x".join(map(str, size))
            raise FileError(path, "not a 3-D volume", "save each of its volumes as a file of its own", shape)
        if reader.HasMetaDataKey("bitpix"):
            _check_nifti(path, reader)
        image = reader.Execute()
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise FileError(path, "not a readable volume", "replace or remove it", _last_line(error)) from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise FileError(path, "has several values a voxel", "save it as a gray-level volume")
    return image[..., 0] if image.GetDimension() == 4 else image


def _check_nifti(path: Path, reader: "SimpleITK.ImageFileReader") -> None:
    """Raise for what ITK accepts: a truncated file, and voxels that are NaN, which it reads as 0."""
    voxels = int(np.prod(reader.GetSize()))
    missing = voxels * int(reader.GetMetaData("bitpix")) // 8
    float_kind = {"16": "f4", "64": "f8"}.get(reader.GetMetaData("datatype"))
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        header = file.read(int(float(reader.GetMetaData("vox_offset"))))
        byte_order = "<" if header[0] else ">"  # of the header's length, 348 or 540
        while block := file.read(2**24):
            missing -= len(block)
            if float_kind:
                whole = len(block) - len(block) % 8  # a truncated file may end within a voxel
                _stop_unless_finite(path, np.frombuffer(block[:whole], byte_order + float_kind))
    if missing > 0:
        raise EOFError(f"{missing} bytes are missing at its end")


def _stop_unless_finite(path: Path, voxels: np.ndarray) -> None:
    if not np.isfinite(voxels).all():
        raise FileError(path, "contains voxels that are NaN or infinite", "export it again")


def _read_series(folder: Path) -> tuple["SimpleITK.Image", str, str]:
    """The image, a note if the gantry was tilted, and the modality if it is not CT."""
    sitk = itk()
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"{len(series)} DICOM series" if series else "no DICOM series"
        raise FileError(folder, f"contains {found}", "give a folder with one series")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    try:
        note, modality = _check_series(folder, names)
        return sitk.ReadImage(names), note, modality
    except RuntimeError as error:
        raise FileError(folder, "not a readable DICOM series", "export it again", _last_line(error)) from error


def _check_series(folder: Path, names: tuple[str, ...]) -> tuple[str, str]:
    """Raise if a slice is missing. Returns a note if the gantry was tilted, and the modality if it is not CT."""
    origins, modality = [], ""
    for name in names:
        reader = itk().ImageFileReader()
        reader.SetFileName(name)
        reader.ReadImageInformation()
        normal = np.array(reader.GetDirection()).reshape(3, 3)[:, 2]
        origins.append(np.array(reader.GetOrigin()))
        modality = reader.GetMetaData("0008|0060").strip() if reader.HasMetaDataKey("0008|0060") else ""
    steps = np.abs(np.diff(origins @ normal))
    if len(steps) and (steps.max() > 1.5 * np.median(steps) or steps.min() < 0.5 * np.median(steps)):
        worst = int(np.argmax(np.abs(steps - np.median(steps))))
        between = f"{Path(names[worst]).name} and {Path(names[worst + 1]).name} are {steps[worst]:g} mm apart"
        raise FileError(folder, "a slice is missing or doubled", "export the whole series", between)
    note, way = "", origins[-1] - origins[0]
    if len(steps) and (tilt := np.degrees(np.arccos(min(1.0, abs(way @ normal) / np.linalg.norm(way))))) > 1:
        note = f"gantry tilted by {tilt:.0f} degrees: slices are taken as stacked upright, volumes in mL are off"
    return note, "" if modality == "CT" else modality


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()[:200]
