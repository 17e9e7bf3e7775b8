"""The DICOM files of a folder, and the series that they belong to."""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import FileError, listed, reason_of
from data.folders import SCAN_SUFFIXES, SUFFIXES, files_of
from data.io.dicom.planes import whole_number

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
LARGEST_SIDE = 8192  # pixels
# An element of group 2 or 8, with its type or the length of a short value.
WITHOUT_PREAMBLE = re.compile(rb"[\x02\x08]\x00.\x00([A-Z]{2}|[\x00-\xff]\x00\x00\x00)", re.DOTALL)
NO_SLICES = (".txt", ".xml", ".json", ".csv", ".html", ".htm", ".pdf", ".md", ".ini", ".inf", ".exe")
File = tuple[Path, "Dataset"]


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM object, not the index DICOMDIR, by its first bytes or its name."""
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix.lower() in SUFFIXES or path.name.lower().endswith(SCAN_SUFFIXES):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or bool(WITHOUT_PREAMBLE.match(start))


def dicom_files(path: Path) -> Iterator[Path]:
    """The DICOM files of a folder; or the file itself."""
    return filter(is_dicom, files_of(path) if path.is_dir() else [path])


def other_files(folder: Path, slices: Sequence[Path]) -> list[str]:
    """The names of files beside DICOM ``slices`` that may be slices, too, such as compressed ones."""
    taken = set(slices)
    others = [file for file in files_of(folder) if file not in taken and file.name.upper() != "DICOMDIR"]
    return [file.name for file in others if file.suffix.lower() not in (*NO_SLICES, *SUFFIXES) and file.is_file()]


def read_files(folder: Path, files: Sequence[Path]) -> list[File]:
    """The datasets of all files that have an image. Raises FileError that names every file that can't be read."""
    from pydicom import dcmread
    from pydicom.dataset import FileMetaDataset
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    found: list[File] = []
    broken = []
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of values that a standard forbids
                dataset = dcmread(file, force=True)
            if "TransferSyntaxUID" not in getattr(dataset, "file_meta", ()):
                implicit = dataset.original_encoding[0] is not False
                dataset.file_meta = FileMetaDataset()
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
                raise InvalidDicomError("its pixels are floats, which are not read")
            if "PixelData" not in dataset:
                kind = dataset.get("SOPClassUID", "")
                if not kind or "Image" in kind.keyword:
                    raise InvalidDicomError("no pixels in it")
                continue  # a report, a plan
            sides = int(dataset.Rows), int(dataset.Columns)
            if not 0 < min(sides) <= max(sides) <= LARGEST_SIDE:
                raise ValueError(f"{sides[0]} rows and {sides[1]} columns")
        # A damaged header can make pydicom raise almost anything.
        except Exception as error:
            broken.append(f"{file.name} ({reason_of(error)})")
            continue
        found.append((file, dataset))
    if broken:
        raise FileError(folder, "has DICOM files that can't be read", "export the series again", listed(broken))
    if not found:
        raise FileError(folder, "has no image in its DICOM files", "give the folder of a CT series")
    return found


def choose_series(folder: Path, datasets: Sequence[File], number: int | None) -> tuple[list[File], str]:
    """The files of the one series with slices, and a note on what else is there."""
    by_uid = defaultdict(list)
    for file, dataset in datasets:
        by_uid[str(dataset.get("SeriesInstanceUID", ""))].append((file, dataset))
    groups = sorted(by_uid.values(), key=lambda group: (whole_number(group[0][1], "SeriesNumber"), group[0][0]))
    placed = [group for group in groups if any(_is_placed(dataset) for _, dataset in group)]
    others = len(groups) - len(placed) if placed else 0
    groups = placed or groups
    if number is not None and not 1 <= number <= len(groups):
        raise FileError(folder, f"has no series {number}", f"give --series 1 to {len(groups)}", _series_of(groups))
    if number is None and len(groups) > 1:
        raise FileError(folder, f"contains {len(groups)} DICOM series", "choose one by --series N", _series_of(groups))
    return groups[(number or 1) - 1], f"{others} series without positions left out" if others else ""


def _series_of(groups: Sequence[Sequence[File]]) -> str:
    rows = []
    for index, group in enumerate(groups, start=1):
        first = group[0][1]
        about = str(first.get("SeriesDescription", "")).strip() or "no description"
        slices = sum(int(dataset.get("NumberOfFrames") or 1) for _, dataset in group)
        rows.append(f"{index}: number {first.get('SeriesNumber', '-')}, {about}, {slices} slices")
    return "; ".join(rows)


def _is_placed(dataset: "Dataset") -> bool:
    return "ImagePositionPatient" in dataset or "PerFrameFunctionalGroupsSequence" in dataset
