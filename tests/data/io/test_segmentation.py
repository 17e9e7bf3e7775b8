"""DICOM segmentation objects: the mask of a scan, voxel for voxel, with references to its slices."""

import shutil
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from scipy.spatial import cKDTree

from data.errors import InputError
from data.io.dicom.segmentation import write_segmentation
from data.io.volumes import read_scan, write_like
from data.phantom.volumes import ORIENTATIONS

hd = pytest.importorskip("highdicom", reason="highdicom is an extra")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, on phantom headers


def places(mask, affine):
    """Where the voxels of a mask lie, in mm."""
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("index", range(len(ORIENTATIONS)))
def test_round_trip_in_every_orientation(scans, tmp_path, index):
    folder = scans / "DICOM" / f"{index:04}"
    scan = read_scan(folder)
    mask = np.random.default_rng(index).random(scan.slices.shape) > 0.7
    mask[0] = False  # a slice without lesion is in the object, too
    write_segmentation(mask, scan, tmp_path / "seg.dcm")
    write_like(mask.astype(np.uint8), scan, tmp_path / "mask.nii.gz")

    expected = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    found = sitk.Cast(sitk.ReadImage(str(tmp_path / "seg.dcm")) > 0, sitk.sitkUInt8)
    onto = sitk.Resample(found, expected, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert np.array_equal(sitk.GetArrayFromImage(onto), sitk.GetArrayFromImage(expected))

    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    axes = np.eye(4)
    axes[:3, :3] = np.array(expected.GetDirection()).reshape(3, 3) * expected.GetSpacing()
    axes[:3, 3] = expected.GetOrigin()
    ours, theirs = places(volume.array > 0, volume.affine), places(sitk.GetArrayFromImage(expected).T > 0, axes)
    distance, nearest = cKDTree(theirs).query(ours)
    assert distance.max() < 1e-2 and len(set(nearest)) == len(ours) == mask.sum()

    segmentation = dcmread(tmp_path / "seg.dcm")
    series = segmentation.ReferencedSeriesSequence[0]
    named = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert named == {dcmread(file).SOPInstanceUID for file in folder.iterdir()}
    assert segmentation.SegmentSequence[0].SegmentLabel == "COVID-19 lesion"


def test_other_scans_have_no_source(scans, tmp_path):
    scan = read_scan(next((scans / "COVID-19-20").glob("*_ct.nii.gz")))
    with pytest.raises(InputError, match=r"no segmentation object seg\.dcm: it needs a scan of DICOM files"):
        write_segmentation(scan.slices > 0, scan, tmp_path / "seg.dcm")


def test_by_the_script(scans, call, tmp_path, monkeypatch):
    flags = ["--model", "small", "--no-tta", "--save_dicom_seg", "--out"]
    for _ in range(2):  # a second run replaces the first
        assert call("test", *flags, tmp_path / "out", "--images", scans / "DICOM")[0] == 0
    assert len(list((tmp_path / "out" / "seg").glob("*.dcm"))) == len(ORIENTATIONS)
    both = tmp_path / "both"
    shutil.copytree(scans / "DICOM" / "0000", both / "0000")
    shutil.copy(next((scans / "COVID-19-20").glob("*_ct.nii.gz")), both)
    assert call("test", *flags, tmp_path / "of_both", "--images", both)[0] == 0
    assert [path.name for path in (tmp_path / "of_both" / "seg").iterdir()] == ["0000.dcm"]
    assert "no segmentation object" in (tmp_path / "of_both" / "scores.csv").read_text()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    code, _, error = call("test", *flags, tmp_path / "none", "--images", scans / "DICOM")
    assert code == 2 and "highdicom is missing; pip install highdicom" in error
