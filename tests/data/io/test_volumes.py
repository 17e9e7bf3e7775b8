"""Scans in any orientation: every voxel keeps its value and finds its way back."""

import shutil
import sys
from itertools import pairwise

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DEPTH, SHARED, SIZE, drawn

from data.errors import FileError
from data.folders import case_of
from data.io.volumes import is_volume, read_labels, read_scan, write_like
from data.phantom.volumes import ORIENTATIONS, draw_volume, geometry
from data.preprocess.window import LUNG, Window
from utils.cli.parser import window


@pytest.mark.parametrize("index", range(len(ORIENTATIONS)), ids=ORIENTATIONS)
def test_round_trip(scans, tmp_path, index):
    hu, mask = drawn(index)
    path = scans / "COVID-19-20" / f"volume-covid19-A-{index:04}_ct.nii.gz"
    truth = path.with_name(path.name.replace("_ct", "_seg"))
    scan = read_scan(path)
    assert scan.note == "" and np.array_equal(scan.slices, hu)
    assert mask.any() and np.array_equal(read_labels(truth, scan, path)[0], mask)

    write_like(mask.astype(np.uint8), scan, tmp_path / "mask.nii.gz")
    written, original = (sitk.ReadImage(str(p)) for p in (tmp_path / "mask.nii.gz", truth))
    assert np.array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(original))
    for place in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(written, place)(), getattr(original, place)(), atol=1e-5)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd", "nii", "hdr"])
@pytest.mark.parametrize("index", range(len(ORIENTATIONS)), ids=ORIENTATIONS)
def test_other_formats(scans, tmp_path, index, suffix):
    hu, mask = drawn(index)
    path = scans / "COVID-19-20" / f"volume-covid19-A-{index:04}_ct.nii.gz"
    if suffix == "hdr":
        nibabel.save(nibabel.Nifti1Pair.from_image(nibabel.load(path)), tmp_path / "scan.img")
    else:
        sitk.WriteImage(sitk.ReadImage(str(path)), str(tmp_path / f"scan.{suffix}"))
    scan = read_scan(tmp_path / f"scan.{suffix}")
    assert scan.note == "" and np.array_equal(scan.slices, hu)
    truth = path.with_name(path.name.replace("_ct", "_seg"))
    assert np.array_equal(read_labels(truth, scan, path)[0], mask)
    write_like(mask.astype(np.uint8), scan, tmp_path / "mask.nii.gz")
    assert np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (tmp_path / "mask.nii.gz", truth)))
    assert np.allclose(nibabel.load(tmp_path / "mask.nii.gz").affine, nibabel.load(truth).affine, atol=1e-4)


def test_the_orientations_differ_in_the_files(scans):
    files = sorted((scans / "COVID-19-20").glob("*_ct.nii.gz"))
    assert [read_scan(file).geometry.axes for file in files] == ["LPS", "RAS", "LPI", "PIR", "LPS"]
    first, last = (nibabel.load(files[index]).affine for index in (0, 4))
    assert not np.allclose(first[:3, :3] / first[0, 0], last[:3, :3] / last[0, 0], atol=0.05)


def test_slices_are_seen_as_a_radiologist_does():
    """One bright voxel in front, on the patient's right, at the feet."""
    for orientation in ORIENTATIONS:
        place = geometry(orientation, 6, 10)
        voxels = np.zeros(place.size)
        # The corner with the least x (right), y (front) and z (feet) in the patient's coordinates, LPS.
        corners = [tuple(i * (n - 1) for i, n in zip(bits, place.size, strict=True)) for bits in np.ndindex(2, 2, 2)]
        voxels[min(corners, key=lambda corner: (place.affine @ (*corner, 1))[:3].sum())] = 500
        slices = place.to_slices(voxels)
        assert slices.shape == (6, 10, 10) and slices[0, 0, 0] == 500
        assert np.array_equal(place.from_slices(slices), voxels)


@pytest.mark.parametrize("index", range(2))
def test_dicom_series(scans, index):
    hu, mask = drawn(index)
    folder = scans / "DICOM" / f"{index:04}"
    assert is_volume(folder) and not is_volume(scans / "DICOM")
    scan = read_scan(folder)
    assert np.array_equal(scan.slices, hu)
    assert np.array_equal(read_labels(scans / "DICOM-Mask" / f"{index:04}.nii.gz", scan, folder)[0], mask)


def test_real_dicom_is_in_hounsfield_units():
    folder = SHARED / "datasets" / "chest-ct-dicom"
    if not folder.is_dir():
        pytest.skip("the real scan in ../shared/datasets is not part of the repository")
    scan = read_scan(folder)
    assert scan.slices.shape == (2, 512, 512) and scan.note == ""
    inside = scan.slices[0, 100:400, 100:400]
    assert np.mean(inside < -600) > 0.1 and np.mean((inside > -100) & (inside < 150)) > 0.2  # lung and soft tissue


def image(values, path):
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    return path


@pytest.mark.parametrize(
    ("values", "says", "expected"),
    [
        ([0, 0.5, 1], "values in [0, 1]", [-1400, -650, 100]),
        ([0, 51, 255], "values in [0, 255]", [-1400, -1100, 100]),
        ([0, 1024, 2000], "interpreted as HU + 1024", [-1024, 0, 976]),
        ([-100, 0, 50], "not a CT of a chest: 0.0% of the voxels are air", [-100, 0, 50]),
        ([-1000, 0, 50], "", [-1000, 0, 50]),
    ],
)
def test_values_that_are_no_hounsfield_units(tmp_path, values, says, expected):
    scan = read_scan(image(np.tile(np.float32(values), (2, 3, 1)), tmp_path / "scan.nii.gz"), any_values=True)
    assert scan.note.startswith(says) or says in scan.note
    assert bool(scan.note) == bool(says)
    assert np.allclose(scan.slices[0, 0], expected, atol=1e-3)


def test_files_that_are_no_scan(scans, tmp_path):
    good = scans / "COVID-19-20" / "volume-covid19-A-0000_ct.nii.gz"
    truncated = tmp_path / "truncated.nii.gz"
    truncated.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    plain = tmp_path / "plain.nii"
    sitk.WriteImage(sitk.ReadImage(str(good)), str(plain))
    plain.write_bytes(plain.read_bytes()[:-2000])
    text = tmp_path / "text.nii"
    text.write_text("not a volume")
    voxels = np.zeros((4, 5, 6), np.float32)
    voxels[1, 2, 3] = np.nan
    series = sitk.JoinSeries([sitk.Image(4, 4, 4, sitk.sitkInt16)] * 2)
    sitk.WriteImage(series, str(tmp_path / "4d.nii.gz"))
    for path, says in {
        truncated: "not a readable volume",
        plain: "not a readable volume",
        text: "not a readable volume",
        tmp_path / "missing.nii.gz": "can't be read (No such file or directory); check the path",
        image(voxels, tmp_path / "nan.nii.gz"): "NaN",
        tmp_path / "4d.nii.gz": "not a 3-D volume (4x4x4x2)",
    }.items():
        with pytest.raises(FileError) as error:
            read_scan(path)
        assert str(error.value).startswith(f"{path}: ") and says in str(error.value)
        assert "\n" not in str(error.value)


def test_masks_of_other_scans(scans, tmp_path):
    path = scans / "COVID-19-20" / "volume-covid19-A-0000_ct.nii.gz"
    scan = read_scan(path)
    with pytest.raises(FileError, match=r"small\.nii\.gz: differs in shape .*5x4x3 and 48x48x6"):
        read_labels(image(np.zeros((3, 4, 5), np.uint8), tmp_path / "small.nii.gz"), scan, path)
    for name, change in {
        "origin": lambda mask: mask.SetOrigin(np.add(mask.GetOrigin(), (0, 0, 1))),
        "spacing": lambda mask: mask.SetSpacing(np.array(mask.GetSpacing()) * 1.01),
        "direction": lambda mask: mask.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1)),
    }.items():
        mask = sitk.ReadImage(str(path.with_name(path.name.replace("_ct", "_seg"))))
        change(mask)
        sitk.WriteImage(mask, str(tmp_path / f"{name}.nii.gz"))
        with pytest.raises(FileError, match=rf"{name}\.nii\.gz: differs in geometry"):
            read_labels(tmp_path / f"{name}.nii.gz", scan, path)


def test_incomplete_and_mixed_dicom_folders(scans, tmp_path):
    gap = shutil.copytree(scans / "DICOM" / "0000", tmp_path / "gap")
    (gap / "0004.dcm").unlink()
    with pytest.raises(FileError, match=r"gap: a slice is missing or doubled \(0005\.dcm and 0003\.dcm are [\d.]+ mm"):
        read_scan(gap)
    two = shutil.copytree(scans / "DICOM" / "0000", tmp_path / "two")
    for file in (scans / "DICOM" / "0001").iterdir():
        shutil.copy(file, two / f"other_{file.name}")
    with pytest.raises(FileError, match="two: contains 2 DICOM series"):
        read_scan(two)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileError, match="none: contains no DICOM file"):
        read_scan(tmp_path / "none")


def retagged(series, folder, change):
    """A copy of a DICOM series whose tags ``change(tags, index)`` has altered."""
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, file in enumerate(sorted(series.iterdir())):
        section = sitk.ReadImage(str(file))[:, :, 0]
        original = sitk.ReadImage(str(file))
        tags = {key: original.GetMetaData(key) for key in original.GetMetaDataKeys()}
        change(tags, index)
        for key, value in tags.items():
            section.SetMetaData(key, value)
        writer.SetFileName(str(folder / file.name))
        writer.Execute(section)
    return folder


def test_series_that_are_no_upright_ct_are_noted(scans, tmp_path):
    def resonance(tags, index):
        tags["0008|0060"] = "MR"

    def tilted(tags, index):
        x, y, z = map(float, tags["0020|0032"].split("\\"))
        tags["0020|0032"] = f"{x}\\{y + 0.2679 * z}\\{z}"  # tan 15 degrees

    series = scans / "DICOM" / "0000"
    assert read_scan(series).note == ""
    with pytest.raises(FileError, match=r"mr: not a CT of a chest \(modality MR, not CT; .*--any_values"):
        read_scan(retagged(series, tmp_path / "mr", resonance))
    assert "modality MR, not CT" in read_scan(tmp_path / "mr", any_values=True).note
    assert "gantry tilted by 15 degrees" in read_scan(retagged(series, tmp_path / "tilted", tilted)).note


def test_a_picture_among_dicom_files(scans, tmp_path):
    folder = shutil.copytree(scans / "DICOM" / "0000", tmp_path / "case")
    (folder / "preview.png").write_bytes(b"a picture")
    assert is_volume(folder) and np.array_equal(read_scan(folder).slices, drawn(0)[0])


def test_a_volume_that_is_not_written_whole_is_removed(scans, tmp_path, monkeypatch):
    scan = read_scan(next((scans / "COVID-19-20").glob("*_ct.nii.gz")))
    write = nibabel.save

    def write_half(image, path):
        write(image, path)
        with open(path, "r+b") as file:
            file.truncate(100)

    monkeypatch.setattr(nibabel, "save", write_half)
    (tmp_path / "mask.nii.gz").write_text("the one before")
    with pytest.raises(OSError, match="disk may be full"):
        write_like(np.zeros((DEPTH, SIZE, SIZE), np.uint8), scan, tmp_path / "mask.nii.gz")
    assert [file.name for file in tmp_path.iterdir()] == ["mask.nii.gz"]
    assert (tmp_path / "mask.nii.gz").read_text() == "the one before"


def test_windows():
    assert window("lung") == LUNG == Window(-650, 1500) and window("40,400") == Window(40, 400)
    hu = np.linspace(-1400, 100, 1501)
    assert np.abs(LUNG.to_hu(LUNG.to_gray(hu) / 255) - hu).max() <= 1500 / 255 / 2 + 1e-3  # half a gray level
    for text in ("lungs", "40", "40,0", "40,-400", "nan,400"):
        with pytest.raises(Exception, match=text):
            window(text)


def test_names_of_cases(tmp_path):
    assert [case_of(tmp_path / name) for name in ("a.b.nii.gz", "c.MHA", "folder.1")] == ["a.b", "c", "folder.1"]


def test_lesions_of_a_phantom_scan_go_on_from_slice_to_slice():
    hu, mask = draw_volume(np.random.default_rng([0, 3, 0]), 64, 24)
    assert hu.dtype == np.int16 and hu.min() >= -1024 and 0 < mask.mean() < 0.2
    overlap = [(a & b).sum() / max(1, min(a.sum(), b.sum())) for a, b in pairwise(mask) if a.any()]
    assert np.median(overlap) > 0.5
    again, _ = draw_volume(np.random.default_rng([0, 3, 0]), 64, 24)
    assert np.array_equal(hu, again)


def test_only_volumes_need_their_packages(scans, phantom, tmp_path, monkeypatch):
    for package in ("SimpleITK", "nibabel", "pydicom"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "data.io.nifti", raising=False)
    shutil.copy(phantom / "Test-Image" / "phantom_0000.png", tmp_path)
    (tmp_path / "notes.txt").touch()
    assert not is_volume(tmp_path) and is_volume(scans / "DICOM" / "0000")
    with pytest.raises(ModuleNotFoundError, match="pydicom"):
        read_scan(scans / "DICOM" / "0000")
    with pytest.raises(ModuleNotFoundError, match="nibabel"):
        read_scan(sorted((scans / "COVID-19-20").glob("*_ct.nii.gz"))[0])


def test_volumes_that_are_no_ct_are_refused(scans, tmp_path):
    """MR, PET and z-scores; and every phantom scan, however stored, is accepted."""
    rng = np.random.default_rng(0)
    hu = read_scan(next((scans / "COVID-19-20").glob("*_ct.nii.gz"))).slices
    others = {
        "mr": np.where(hu > -900, rng.gamma(4, 100, hu.shape), rng.gamma(1, 10, hu.shape)).astype(np.float32),
        "pet": rng.gamma(1, 1, hu.shape).astype(np.float32),
        "z": ((hu - hu.mean()) / hu.std()).astype(np.float32),
        "bone": np.full(hu.shape, 900, np.float32),
    }
    for name, values in others.items():
        why = r"has few values, as a mask \(900\)" if name == "bone" else r"not a CT of a chest \(.*; values from .*"
        with pytest.raises(FileError, match=rf"{name}\.nii\.gz: {why}.*--any_values"):
            read_scan(image(values, tmp_path / f"{name}.nii.gz"))
    for path in [*(scans / "COVID-19-20").glob("*_ct.nii.gz"), *(scans / "UESTC/image").iterdir()]:
        assert "not a CT" not in read_scan(path).note
