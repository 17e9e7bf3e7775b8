"""The checkpoints in weights/: small, without traces of a machine, and ready for whole scans."""

import json
import re

import numpy as np
import pytest
import torch
from helpers import ROOT, refused
from PIL import Image

from data.phantom.volumes import draw_volume
from data.preprocess.window import LUNG
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.inference.predictor import Predictor

DICE = {"small": 0.464, "supervised": 0.322}  # of a phantom scan, which is unlike their training slices
WEIGHTS = sorted((ROOT / "weights").glob("*.pth"))


def test_there_are_some_and_they_are_small():
    assert WEIGHTS and sum(path.stat().st_size for path in WEIGHTS) <= 8e6


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_a_checkpoint_tells_its_settings_and_no_path(path):
    content = read_checkpoint(path)
    assert {weight.dtype for weight in content["weights"].values()} <= {torch.float16, torch.int64}
    assert content["preprocessing"]["align_frame"] and content["preprocessing"]["typical_slice"]
    assert content["run"]["options"]["seed"] == 0 and "training" not in content
    assert not re.search(rb"/(home|root|tmp|work|Users)/", path.read_bytes())
    assert f"`{path.name}`" in (ROOT / "weights" / "README.md").read_text()


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_lesions_of_a_phantom_scan_are_found(path):
    """Never trained on phantoms, it finds too much in them; but it sees a scan at the right place and way up."""
    hu, lesions = draw_volume(np.random.default_rng([0, 3, 0]), 96, 12)
    found = Predictor(path, device="cpu").predict_hu(hu.astype(np.float32), window=LUNG)
    mask = found.map > 127
    assert found.note == ""  # as "seems rotated" would be
    assert 2 * (mask & lesions).sum() / (mask.sum() + lesions.sum()) == pytest.approx(DICE[path.stem], abs=2e-3)


def test_they_are_known_by_name(phantom, call, tmp_path):
    found = []
    for model in ("small", ROOT / "weights" / "small.pth"):
        out = tmp_path / str(len(found))
        assert call("test", "--model", model, "--images", phantom / "Test-Image", "--out", out)[0] == 0
        found.append({path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".json"})
    assert found[0] == found[1] and json.loads((tmp_path / "0" / "summary.json").read_text())["checkpoint"] == "small"
    code, _, error = call("test", "--model", "smal", "--images", phantom / "Test-Image", "--out", tmp_path / "no")
    assert code == 2 and "smal: can't be opened" in error and "or small" in error


def test_training_starts_from_them(phantom, call, tmp_path):
    flags = ["--data_root", phantom, "--pretrained_model", "small", "--image_size", 32, "--epoch", 1]
    code, printed, error = call("supervised_train", *flags, "--val_fraction", 0.2, "--out", tmp_path / "run")
    assert code == 0 and "small may have been trained on validation slices" in printed, error


def test_training_from_them_crops_whole_slices_as_predictions_do(phantom, call, tmp_path):
    (tmp_path / "data").mkdir()
    for kind in ("Image", "Mask"):  # upright, as scanners give them
        (tmp_path / "data" / f"Train-{kind}").mkdir()
    for path in sorted((phantom / "Train-Image").iterdir()):
        for kind in ("Image", "Mask"):
            image = Image.open(phantom / f"Train-{kind}" / path.name)
            image.resize((128, 128), Image.Resampling.NEAREST).save(tmp_path / "data" / f"Train-{kind}" / path.name)
    flags = ["--data_root", tmp_path / "data", "--image_size", 32, "--epoch", 1, "--pretrained_model", "small"]
    code, trained, error = call("supervised_train", *flags, "--out", tmp_path / "run")
    assert code == 0, error
    images = tmp_path / "data" / "Train-Image"
    code, labeled, error = call(
        "fake_labels_generator", "--model", "small", "--images", images, "--out", tmp_path / "m"
    )
    assert code == 0, error
    seen = [re.findall(r"(\d+) of them (cropped|rotated)", text) for text in (trained, labeled)]
    assert seen[0] == seen[1] != []


def test_names_of_results_do_not_hide_them(phantom, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        code, _, error = call("test", "--model", "small", "--images", phantom / "Test-Image", "--out", "small")
        assert code == 0, error


def test_an_ensemble_of_other_classes_is_refused_and_its_settings_are_kept(phantom, call, tmp_path):
    three = tmp_path / "three.pth"
    content = read_checkpoint(WEIGHTS[0])
    content["model"]["num_classes"] = 3
    for name in ("weight", "bias"):
        head = content["weights"][f"head.{name}"]
        content["weights"][f"head.{name}"] = torch.cat([head, head[1:]])
    save_checkpoint(three, content)
    flags = ["--images", phantom / "Test-Image", "--out", tmp_path / "out"]
    refused(call, "test", "--model", three, "small", *flags, names=["2 and 3 classes"], kept=tmp_path)
    assert call("test", "--model", "small", "supervised", *flags)[0] == 0
    each = json.loads((tmp_path / "out" / "summary.json").read_text())["networks"]
    assert [network["checkpoint"] for network in each] == ["small", "supervised"]
    assert all(network["image_size"] == 192 for network in each)


def test_labels_of_several_networks_are_by_the_mean_of_their_maps(phantom, call, tmp_path):
    flags = ["--images", phantom / "Unlabeled", "--out", tmp_path / "masks"]
    other = tmp_path / "other.pth"
    torch.manual_seed(0)
    whole = read_checkpoint(WEIGHTS[0])
    whole["weights"]["head.bias"] = whole["weights"]["head.bias"] + torch.tensor([1.0, -1.0])
    save_checkpoint(other, whole)
    assert call("fake_labels_generator", "--model", "small", other, *flags)[0] == 0
    predictor = Predictor("small", other, device="cpu")
    for path in sorted((phantom / "Unlabeled").iterdir())[:3]:
        mask = np.asarray(Image.open(tmp_path / "masks" / path.name)) > 0
        assert np.array_equal(mask, predictor.predict(path).mask)
    summary = json.loads((tmp_path / "masks" / "summary.json").read_text())
    assert summary["checkpoint"] == f"small, {other}" and summary["sha256"].count(", ") == 1
