"""Whole scans through test.py and fake_labels_generator.py."""

import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers import SHARED, drawn, refused

from data.io.geometry import Geometry
from data.phantom.volumes import ORIENTATIONS
from data.scans import find_scans
from models import build_model
from utils.evaluation.scans import burden, score_scan
from utils.inference.agreement import Agreement
from utils.inference.maps import Found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "model.pth"
    torch.save(build_model("cares_unet", base_channels=2).state_dict(), path)
    return path


@pytest.fixture
def perfect_network(monkeypatch):
    """Predictions are the phantom's own lesions, scan by scan, in the order of the scans."""

    def predict(network, slices, **options):
        for index in range(len(ORIENTATIONS)):
            hu, lesions = drawn(index)
            if np.array_equal(slices.hu, hu):
                break
        for mask in lesions:
            found = torch.from_numpy(np.stack([~mask, mask])).float() * 0.8 + 0.1
            yield Found(found, Agreement.of(found[1:], found[1]))

    monkeypatch.setattr("utils.inference.predictor.predict", predict)


def voxels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def rows(path):
    return list(csv.DictReader(path.open()))


def test_masks_match_voxel_for_voxel_in_every_orientation(call, scans, checkpoint, tmp_path, perfect_network):
    source, out = scans / "COVID-19-20", tmp_path / "out"
    flags = ["--test_img_path", source, "--test_msk_path", source, "--save_prob"]
    code, printed, error = call("test", "--pretrained_model", checkpoint, *flags, "--img_save_folder", out)
    assert code == 0, error
    table = rows(out / "scores.csv")
    assert len(table) == len(ORIENTATIONS)
    for index, row in enumerate(table):
        name = f"volume-covid19-A-{index:04}"
        assert row["image"] == f"{name}_ct.nii.gz" and row["image"] in printed
        mask, truth = (sitk.ReadImage(str(p)) for p in (out / f"{name}_ct.nii.gz", source / f"{name}_seg.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(truth))
        for place in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert np.allclose(getattr(mask, place)(), getattr(truth, place)(), atol=1e-5)
        assert np.allclose(
            voxels(out / "prob" / f"{name}_ct.nii.gz"), 0.1 + 0.8 * voxels(source / f"{name}_seg.nii.gz"), atol=1 / 255
        )
        ml = np.count_nonzero(voxels(source / f"{name}_seg.nii.gz")) * np.prod(truth.GetSpacing()) / 1000
        assert float(row["lesion_ml"]) == pytest.approx(ml) == pytest.approx(float(row["true_lesion_ml"]))
        assert float(row["dice"]) == float(row["slice_dice"]) == 1 and row["lesions"] == row["true_lesions"]
        assert (out / "figures" / f"{name}_ct.png").exists()
    assert json.loads((out / "summary.json").read_text())["dice"]["mean"] == 1
    code, printed, _ = call("test", "--pretrained_model", checkpoint, *flags, "--img_save_folder", out)
    assert code == 0 and "replacing" in printed


def test_dicom_folders_and_single_files(call, scans, checkpoint, tmp_path, perfect_network):
    flags = ["--pretrained_model", checkpoint, "--test_img_path"]
    for path, truth, name in (
        (scans / "DICOM" / "0001", scans / "DICOM-Mask" / "0001.nii.gz", "0001"),
        (scans / "DICOM", scans / "DICOM-Mask", "0003"),
        (scans / "UESTC/image/0002.nii.gz", scans / "UESTC/label", "0002"),
    ):
        out = tmp_path / f"{name}_{path.name}"
        code, printed, error = call("test", *flags, path, "--test_msk_path", truth, "--img_save_folder", out)
        assert code == 0, error
        if "UESTC" in str(path):  # known by rounded values, not by the drawn ones
            assert "interpreted as a lung window" in printed
        else:
            assert np.array_equal(voxels(out / f"{name}.nii.gz"), voxels(scans / "DICOM-Mask" / f"{name}.nii.gz"))


def test_real_dicom_passes(call, checkpoint, tmp_path):
    folder = SHARED / "datasets" / "chest-ct-dicom"
    if not folder.is_dir():
        pytest.skip("the real scan in ../shared/datasets is not part of the repository")
    flags = ["--pretrained_model", checkpoint, "--test_img_path", folder, "--image_size", 64]
    code, _, error = call("test", *flags, "--img_save_folder", tmp_path / "out")
    assert code == 0, error
    mask, scan = (
        sitk.ReadImage(str(tmp_path / "out" / "chest-ct-dicom.nii.gz")),
        sitk.ReadImage(sorted(map(str, folder.iterdir()))),
    )
    assert mask.GetSize() == scan.GetSize() and np.allclose(mask.GetSpacing(), scan.GetSpacing())


def test_scans_that_cannot_be_read_are_skipped(call, scans, checkpoint, tmp_path):
    source = shutil.copytree(scans / "COVID-19-20", tmp_path / "source")
    bad = source / "volume-covid19-A-0001_ct.nii.gz"
    bad.write_bytes(bad.read_bytes()[:3000])
    flags = ["--pretrained_model", checkpoint, "--test_img_path", source, "--image_size", 16]
    code, printed, error = call("test", *flags, "--img_save_folder", tmp_path / "out")
    assert code == 1 and len(rows(tmp_path / "out" / "scores.csv")) == 4 and "4 scans" in printed
    assert error.splitlines()[0].startswith(f"error: {bad}: not a readable volume")
    assert "1 of 5 scans could not be processed" in error.splitlines()[-1]
    (source / "volume-covid19-A-0002_seg.nii.gz").unlink()
    names = [source, "volume-covid19-A-0002_ct.nii.gz", "no volume with the true lesions"]
    flags += ["--test_msk_path", source, "--img_save_folder", tmp_path / "other"]
    refused(call, "test", *flags, names=names, kept=tmp_path)


def test_pseudo_labels_of_scans(call, scans, checkpoint, tmp_path, perfect_network):
    flags = ["--model_path", checkpoint, "--Image_dir", scans / "DICOM", "--Mask-dir", tmp_path / "masks"]
    refused(call, "fake_labels_generator", *flags, "--confidence", 0.9, names=["--confidence"], kept=tmp_path)
    code, _, error = call("fake_labels_generator", *flags)
    assert code == 0, error
    for index, row in enumerate(rows(tmp_path / "masks" / "pseudo_labels.csv")):
        assert row["image"] == f"{index:04}" and float(row["mean_confidence"]) == pytest.approx(0.9, abs=1 / 255)
        mask = voxels(tmp_path / "masks" / f"{index:04}.nii.gz")
        assert np.array_equal(mask, voxels(scans / "DICOM-Mask" / f"{index:04}.nii.gz"))


def test_burden_and_scores_by_hand():
    mask, truth = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 3, 4] = True  # the first two touch at a corner: one lesion
    truth[0, 0, 0] = truth[0, 0, 1] = True
    place = Geometry((5, 4, 3), np.diag([2.0, 2.0, 5.0, 1.0]))
    assert burden(mask, place) == {"lesion_ml": pytest.approx(3 * 0.02), "lesions": 2}
    found = score_scan(mask, truth, empty="one")
    assert found["dice"] == pytest.approx(2 / 5) and found["precision"] == pytest.approx(1 / 3)
    assert found["slice_dice"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert score_scan(mask[1:], truth[1:], empty="one")["slice_dice"] == 0
    assert np.isnan(score_scan(~mask[:0], truth[:0], empty="skip")["dice"])


def test_scans_of_one_name_and_flags_of_slices(call, scans, checkpoint, tmp_path):
    shutil.copytree(scans / "DICOM" / "0000", tmp_path / "in" / "case")
    shutil.copy(scans / "UESTC/image/0000.nii.gz", tmp_path / "in" / "case.nii.gz")
    flags = ["--pretrained_model", checkpoint, "--test_img_path", tmp_path / "in"]
    refused(call, "test", *flags, names=["two scans named case"], kept=tmp_path)
    flags = ["--pretrained_model", checkpoint, "--test_img_path", scans / "DICOM" / "0000", "--save_type", "overlay"]
    refused(call, "test", *flags, "--test_msk_path", scans / "DICOM-Mask", names=["--save_type"], kept=tmp_path)


def test_a_truth_in_the_folder_of_results_is_not_deleted(call, scans, checkpoint, tmp_path):
    flags = ["--pretrained_model", checkpoint, "--test_img_path", scans / "DICOM" / "0000", "--image_size", 16]
    flags += ["--img_save_folder", tmp_path / "out"]
    assert call("test", *flags)[0] == 0
    truth = tmp_path / "out" / "0000.nii.gz"
    refused(call, "test", *flags, "--test_msk_path", truth, names=[truth, "which is read"], kept=tmp_path)


def test_results_are_kept_if_no_scan_can_be_read(call, scans, checkpoint, tmp_path):
    folder = shutil.copytree(scans / "DICOM" / "0000", tmp_path / "scan")
    flags = ["--pretrained_model", checkpoint, "--test_img_path", folder, "--image_size", 16, "--out", tmp_path / "out"]
    assert call("test", *flags)[0] == 0
    next(folder.iterdir()).unlink()
    file = next(folder.iterdir())
    shutil.copy(file, folder / "again.dcm")
    refused(call, "test", *flags, names=["again.dcm"], kept=tmp_path)
    flags = ["--pretrained_model", checkpoint, "--test_img_path", scans / "UESTC/image", "--out", tmp_path / "seg"]
    refused(call, "test", *flags, "--save_dicom_seg", names=["DICOM files, not 0000.nii.gz"], kept=tmp_path)


def test_a_full_disk_is_reported_in_a_line(call, scans, checkpoint, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "mask.nii.gz"))

    monkeypatch.setattr("test.write_like", full)
    flags = ["--pretrained_model", checkpoint, "--test_img_path", scans / "DICOM" / "0000", "--image_size", 16]
    code, _, error = call("test", *flags, "--img_save_folder", tmp_path / "out")
    assert code == 2 and error.splitlines()[-1].startswith(f"error: {tmp_path / 'out' / 'mask.nii.gz'}: No space left")


def test_a_folder_of_slices_has_no_scan(phantom):
    assert find_scans(phantom / "Test-Image").scans == []
