"""Where scans are found, and how they are named."""

import shutil
from pathlib import Path

import pytest

from data.errors import InputError
from data.scans import find_scans


def labels(path, truths=None):
    return [scan.label.name for scan in find_scans(path, truths).scans]


def test_scans_at_any_depth(scans, tmp_path):
    deep = tmp_path / "in" / "PATIENT" / "STUDY"
    deep.mkdir(parents=True)
    shutil.copytree(scans / "DICOM" / "0000", deep / "A")
    shutil.copytree(scans / "DICOM" / "0001", deep / "B")
    (tmp_path / "in" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (deep / ".hidden").mkdir()
    shutil.copy(scans / "UESTC/image/0000.nii.gz", deep / ".hidden")
    expected = ["PATIENT_STUDY_A", "PATIENT_STUDY_B"]
    assert labels(tmp_path / "in") == labels(tmp_path / "in" / "DICOMDIR") == expected
    assert labels(tmp_path / "in" / "PATIENT") == ["STUDY_A", "STUDY_B"] and labels(deep) == ["A", "B"]
    shutil.copy(scans / "UESTC/image/0000.nii.gz", tmp_path / "in" / "PATIENT" / "ct.nii.gz")
    assert labels(tmp_path / "in") == ["PATIENT_STUDY_A", "PATIENT_STUDY_B", "PATIENT_ct.nii.gz"]
    assert {scan.label.parent for scan in find_scans(tmp_path / "in").scans} == {tmp_path / "in"}


def test_the_current_folder_has_a_name(scans, tmp_path, monkeypatch):
    shutil.copytree(scans / "DICOM" / "0000", tmp_path / "scan")
    monkeypatch.chdir(tmp_path / "scan")
    assert labels(Path(".")) == ["scan"] and labels(Path("..")) == ["scan"]


def test_one_file(scans):
    assert labels(scans / "DICOM" / "0000" / "0003.dcm") == ["0003.dcm"]
    assert labels(scans / "UESTC/image/0000.nii.gz") == ["0000.nii.gz"]


def test_slices_beside_scans_are_told(scans, phantom, tmp_path):
    folder = shutil.copytree(phantom / "Test-Image", tmp_path / "mixed")
    count = len(list(folder.iterdir()))
    assert find_scans(folder).scans == [] and find_scans(folder).note == ""
    shutil.copy(scans / "UESTC/image/0000.nii.gz", folder)
    found = find_scans(folder)
    assert len(found.scans) == 1 and found.note.startswith(f"{count} slices beside the scans, such as phantom_0000.png")


def test_pairs_of_header_and_voxels_are_one_scan(scans, tmp_path):
    import nibabel

    for index in range(2):
        image = nibabel.load(scans / "UESTC/image" / f"{index:04}.nii.gz")
        nibabel.save(nibabel.Nifti1Pair.from_image(image), tmp_path / f"{index}.img")
    assert labels(tmp_path) == ["0.hdr", "1.hdr"]


def test_truths(scans, tmp_path):
    for folder in ("COVID-19-20", "UESTC/image"):
        truths = scans / ("COVID-19-20" if folder == "COVID-19-20" else "UESTC/label")
        assert all(scan.truth and scan.truth != scan.path for scan in find_scans(scans / folder, truths).scans)
    with pytest.raises(InputError, match=r"no volume with the true lesions of 0000\.nii\.gz, 0001\.nii\.gz"):
        find_scans(scans / "UESTC/image", tmp_path)
