"""The reliability of a mask: how far the views of a slice, or several networks, agree."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import ROOT, SIZE
from PIL import Image

from data.errors import InputError
from utils.evaluation.metrics import ratios
from utils.inference.agreement import FEW, Agreement
from utils.inference.predictor import Predictor
from utils.lesions import uncertainty
from utils.output.folder import in_order_of_review


def squares(*starts, side=40, size=100):
    """Lesion probabilities of views that find a square, each at another place."""
    views = torch.full((len(starts), size, size), 0.01)
    for view, start in zip(views, starts, strict=True):
        view[10 : 10 + side, start : start + side] = 0.99
    return views


def test_it_is_the_dice_of_each_view_and_the_mean():
    views = squares(0, 0, 20)
    mean = views.mean(dim=0)
    found = Agreement.of(views, mean)
    expected = [ratios(view.numpy() > 0.5, mean.numpy() > 0.5, undefined=1)["dice"] for view in views]
    assert found.dice == pytest.approx(np.mean(expected), abs=10 * FEW) and 0.7 < found.dice < 0.9
    assert Agreement.of(squares(5, 5), squares(5)[0]).dice == 1


def test_nothing_found_by_all_is_certain_and_by_one_is_not():
    empty = squares(0, 0, side=0)
    assert Agreement.of(empty, empty[0]).dice == 1
    some = squares(0, 0, side=20)
    some[1] = 0.01
    assert Agreement.of(some, some.mean(dim=0)).dice < 0.6


def test_one_view_is_compared_with_its_probabilities():
    sure, unsure = squares(0), squares(0).clamp(0.3, 0.7)
    assert Agreement.of(sure, sure[0]).dice > Agreement.of(unsure, unsure[0]).dice + 0.3


def test_that_of_a_scan_counts_all_voxels():
    views = squares(0, 30)
    whole = Agreement.of(views, views.mean(dim=0))
    assert Agreement.of_all([]) is None
    both = Agreement.of_all([whole, Agreement.of(squares(0, 0), squares(0)[0])])
    assert whole.dice < both.dice < 1 and both.pixels == 20000


def test_uncertainty_is_entropy():
    soft = np.arange(256, dtype=np.uint8)
    bits = uncertainty(soft)
    assert bits[0] == bits[255] == 0 and bits[127] == bits[128] == 255
    assert np.array_equal(bits, bits[::-1]) and (np.diff(bits[:128].astype(int)) >= 0).all()


def test_tables_and_maps(phantom, scans, call, tmp_path):
    out = tmp_path / "out"
    flags = ["--model", "small", "--images", phantom / "Test-Image", "--out", out]
    code, printed, _ = call("test", *flags, "--save_uncertainty", "--save_prob")
    assert code == 0 and "then by reliability, lowest first: " in printed
    summary = json.loads((out / "summary.json").read_text())
    predictor = Predictor("small", device="cpu")
    reliability = {path.name: predictor.predict(path).reliability for path in (phantom / "Test-Image").iterdir()}
    assert summary["review"] == sorted(reliability, key=reliability.get) and len(summary["review"]) == 4
    for path in (phantom / "Test-Image").iterdir():
        soft, bits = (np.asarray(Image.open(out / folder / path.name)) for folder in ("prob", "uncertainty"))
        assert np.array_equal(bits, uncertainty(soft))
    code, _, error = call("test", *flags, "--out", tmp_path / "scan", "--images", scans / "DICOM", "--save_uncertainty")
    assert code == 0, error
    from data.io.volumes import read_scan

    bits = read_scan(tmp_path / "scan" / "uncertainty" / "0000.nii.gz", any_values=True)
    assert bits.slices.shape[1:] == (SIZE, SIZE)


def test_rows_with_a_note_come_first():
    rows = [("a", 0.9, ""), ("b", 1.0, "dark"), ("c", 0.2, ""), ("d", float("nan"), "")]
    rows = [{"image": name, "reliability": value, "note": note} for name, value, note in rows]
    assert [row["image"] for row in in_order_of_review(rows)] == ["b", "d", "c", "a"]


def test_several_networks_disagree_more_than_one_with_itself(phantom, tmp_path):
    path = sorted((phantom / "Test-Image").iterdir())[0]
    copy = shutil.copy(ROOT / "weights" / "small.pth", tmp_path)
    assert Predictor("small", copy, device="cpu").predict(path).reliability == 1
    assert Predictor("small", "supervised", device="cpu").predict(path).reliability < 1
    with pytest.raises(InputError, match="given twice"):
        Predictor("small", ROOT / "weights" / "small.pth")
    assert Predictor("small", device="cpu").predict(path).reliability < 1
