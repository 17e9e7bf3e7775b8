"""Write a mask as a DICOM segmentation object, which refers to the slices that it was made of (with highdicom)."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.errors import InputError, installed
from data.io.volumes import Volume
from data.io.whole import whole

if TYPE_CHECKING:
    from pydicom import Dataset

MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
MANUFACTURER, MODEL, SERIES_NUMBER = "CARes-UNet", "CARes-UNet", 900


def write_segmentation(slices: np.ndarray, scan: Volume, path: Path) -> None:
    """Write a mask, bool or uint8 ``(S, H, W)``, of a scan that was read from DICOM, with a frame for each slice.

    Raises InputError if the scan is not of DICOM files, if its headers lack what a segmentation needs, or without
    highdicom.
    """
    hd = installed("highdicom")
    coded = hd.sr.CodedConcept
    if not scan.sources:
        raise InputError(f"no segmentation object {path.name}: it needs a scan of DICOM files")
    frames = scan.geometry.from_slices(slices).T.astype(np.uint8)  # as stored: rows and columns of each file
    order = np.array(sorted(range(len(frames)), key=lambda index: scan.sources[index]))
    place = hd.UID()
    files = list(dict.fromkeys(scan.sources[index][0] for index in order))
    lesion = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="COVID-19 lesion",
        segmented_property_category=coded("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=coded("52988006", "SCT", "Lesion"),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MODEL,
            version=_version(),
            family=coded("123109", "DCM", "Artificial Intelligence"),
        ),
    )
    try:
        segmentation = hd.seg.Segmentation(
            source_images=[_header(file, place) for file in files],
            pixel_array=frames[order],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[lesion],
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL,
            software_versions=_version(),
            device_serial_number="0",
            series_description="COVID-19 lesions, for research only",
            omit_empty_frames=False,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"no segmentation object {path.name}: it can't refer to these DICOM files ({reason}); use the .nii.gz"
        ) from error
    with whole(path) as temporary:
        segmentation.save_as(temporary)


def _header(file: Path, place: str) -> "Dataset":
    """The header of a slice. What may be empty in it, and was removed to hide the patient, is empty.

    place: the frame of reference, if there is none.
    """
    from pydicom import dcmread

    dataset = dcmread(file, force=True, stop_before_pixels=True)
    for name in MAY_BE_EMPTY:
        if name not in dataset:
            setattr(dataset, name, None)
    if not dataset.get("Modality"):
        dataset.Modality = "CT"
    if not dataset.get("FrameOfReferenceUID"):
        dataset.FrameOfReferenceUID = place
    return dataset


def _version() -> str:
    try:
        return version("cares-unet")
    except PackageNotFoundError:  # run from a clone
        return "unknown"
