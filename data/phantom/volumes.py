"""Phantom scans in Hounsfield units: NIfTI volumes in the public data sets' conventions, and DICOM series."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from data.io.geometry import Geometry
from data.io.nifti import write_nifti
from data.phantom.anatomy import draw_chest, sample_patient
from data.phantom.lesions import add_lesion
from data.phantom.scanner import expose, sample_scanner
from data.preprocess.window import LUNG

# Orientation of volume 0, 1, 2, ...; the last one is rotated by a few degrees about all three axes.
ORIENTATIONS = ("LPS", "RAS", "LPI", "PIR", "oblique")
LEVELS = (0.98, 0.06)  # of the lungs, from the bases up to the apices


def draw_volume(
    rng: np.random.Generator, size: int, slices: int, *, with_lesions: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One scan, from the feet up: Hounsfield units int16 (slices, size, size) and its lesions bool.

    Every slice draws anatomy and lesions with the same random numbers, so that they continue from slice to slice; only
    the noise differs.
    """
    patient, scanner = sample_patient(rng, 1.0), sample_scanner(rng, 1.0)
    texture = rng.integers(2**32)
    lesions = [
        {"seed": int(rng.integers(2**32)), "level": rng.uniform(0.15, 0.9), "reach": rng.uniform(0.06, 0.25)}
        for _ in range(rng.integers(2, 7) if with_lesions else 0)
    ]
    volume = np.empty((slices, size, size), np.int16)
    masks = np.zeros((slices, size, size), bool)
    for index, level in enumerate(np.linspace(*LEVELS, slices)):
        chest = draw_chest(patient, level, 2 * size, np.random.default_rng(texture))
        hu, density = chest.hu.copy(), np.zeros_like(chest.hu)
        for lesion in lesions:
            off = (level - lesion["level"]) / lesion["reach"]
            if abs(off) < 1:  # an ellipsoid: the section shrinks towards its ends
                scale = 1.2 * np.sqrt(1 - off**2)
                density = np.maximum(density, add_lesion(chest, hu, scale, np.random.default_rng(int(lesion["seed"]))))
        hu, masks[index] = expose(chest, hu, density, scanner, size, rng)
        volume[index] = np.round(hu)
    return volume, masks


def geometry(orientation: str, slices: int, size: int, field: float = 380, height: float = 250) -> Geometry:
    """A geometry for axial slices (slices, size, size), stored in an orientation of ORIENTATIONS.

    field: side of the field of view, and height: of all slices, in mm.
    """
    shape, affine = (size, size, slices), np.diag([field / size, field / size, height / slices, 1.0])
    affine[:3, 3] = -190, -170, -1200
    if orientation == "oblique":
        affine[:3, :3] = Rotation.from_euler("xyz", (0.09, -0.06, 0.12)).as_matrix() @ affine[:3, :3]
        return Geometry(shape, affine)
    return Geometry(shape, affine).with_axes(orientation)


def write_volumes(out: Path, count: int, size: int, slices: int, seed: int) -> None:
    """Write each scan three times: as COVID-19-20 names them, as UESTC-COVID-19 windows them, and as DICOM.

    ``COVID-19-20/volume-covid19-A-0000_ct.nii.gz`` with ``..._seg.nii.gz`` (HU); ``UESTC/image/0000.nii.gz`` with
    ``UESTC/label/0000.nii.gz`` (a lung window in [0, 1]); ``DICOM/0000/*.dcm`` with ``DICOM-Mask/0000.nii.gz``.
    """
    for folder in ("COVID-19-20", "UESTC/image", "UESTC/label", "DICOM", "DICOM-Mask"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for index, (hu, mask) in tqdm(
        enumerate(_volumes(count, size, slices, seed)), total=count, unit="scan", disable=None
    ):
        case = f"{index:04}"
        label = mask.astype(np.uint8)
        rng = np.random.default_rng([seed, 4, index])
        extent = {"field": rng.uniform(320, 420), "height": rng.uniform(220, 300)}
        place = geometry(ORIENTATIONS[index % len(ORIENTATIONS)], slices, size, **extent)
        write_nifti(hu, place, out / "COVID-19-20" / f"volume-covid19-A-{case}_ct.nii.gz")
        write_nifti(label, place, out / "COVID-19-20" / f"volume-covid19-A-{case}_seg.nii.gz")
        share = np.clip((hu - LUNG.level) / LUNG.width + 0.5, 0, 1).astype(np.float32)
        write_nifti(share, place, out / "UESTC" / "image" / f"{case}.nii.gz")
        write_nifti(label, place, out / "UESTC" / "label" / f"{case}.nii.gz")
        axial = geometry("oblique" if index % 2 else "LPS", slices, size, **extent)
        write_series(hu, axial, out / "DICOM" / case)
        write_nifti(label, axial, out / "DICOM-Mask" / f"{case}.nii.gz")


def write_series(hu: np.ndarray, place: Geometry, folder: Path) -> None:
    """Write axial slices (slices, size, size) in HU as a DICOM series, a file a slice, their names in another order."""
    folder.mkdir(parents=True)
    uid = f"1.2.826.0.1.3680043.2.1125.{int(folder.name) + 1}"
    columns, rows, _ = (place.affine[:3, :3] / place.spacing).T
    for index, section in enumerate(hu.astype(np.int16)):
        slice_ = Dataset()
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, f"{uid}.3.{index + 1}"
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
        slice_.Modality, slice_.PatientName, slice_.PatientID = "CT", f"Phantom^{folder.name}", folder.name
        slice_.SeriesNumber, slice_.InstanceNumber = 1, index + 1
        slice_.ImagePositionPatient = [f"{x:.8f}" for x in (place.affine @ (0, 0, index, 1))[:3]]
        slice_.ImageOrientationPatient = [f"{x:.10f}" for x in (*columns, *rows)]
        slice_.PixelSpacing = [f"{place.spacing[axis]:.10g}" for axis in (1, 0)]
        slice_.SliceThickness = f"{place.spacing[2]:.6f}"
        slice_.RescaleIntercept, slice_.RescaleSlope = 0, 1
        slice_.Rows, slice_.Columns = section.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.add_new("PixelData", "OW", section.tobytes())
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        # Names count down while positions count up, as from some scanners.
        slice_.save_as(folder / f"{len(hu) - index:04}.dcm", enforce_file_format=True)


def _volumes(count: int, size: int, slices: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for index in range(count):
        yield draw_volume(np.random.default_rng([seed, 3, index]), size, slices)  # 0 to 2 are the sets of slices
