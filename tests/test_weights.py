"""The checkpoints in weights/: small, without traces of a machine, and ready for whole scans."""

import re

import numpy as np
import pytest
import torch
from helpers import ROOT

from data.phantom.volumes import draw_volume
from data.preprocess.window import LUNG
from utils.checkpoint import read_checkpoint
from utils.inference.predictor import Predictor

WEIGHTS = sorted((ROOT / "weights").glob("*.pth"))


def test_there_are_some_and_they_are_small():
    assert WEIGHTS and sum(path.stat().st_size for path in WEIGHTS) <= 4 * 2**20


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
    """Never trained on phantoms, it finds too much in them; but it must see a scan at the right place and way up."""
    hu, lesions = draw_volume(np.random.default_rng([0, 3, 0]), 96, 12)
    found = Predictor(path, device="cpu").predict_hu(hu.astype(np.float32), window=LUNG)
    mask = found.map > 127
    assert found.note == ""  # as "seems rotated" would be
    assert 2 * (mask & lesions).sum() / (mask.sum() + lesions.sum()) > 0.4
