"""Temperatures that make maps mean chances, and what says how well they do."""

import numpy as np
import pytest
import torch
from helpers import TINY

from data.folders import pair_by_stem
from utils.checkpoint import load_model, read_checkpoint, save_checkpoint
from utils.inference.calibration import calibrate, how_well
from utils.inference.predictor import Predictor
from utils.weights import save_half


def test_chances_that_are_right_have_no_error():
    draw = np.random.default_rng(0)
    chance = draw.uniform(size=(300, 300))
    truth = draw.uniform(size=chance.shape) < chance
    right, sure = how_well([chance], [truth]), how_well([np.where(chance > 0.5, 0.999, 0.001)], [truth])
    assert right.error < 0.01 and sure.error == pytest.approx(0.25, abs=0.01) and right.loss < sure.loss
    assert how_well([np.ones((2, 2))], [np.ones((2, 2), bool)]).error == 0
    assert how_well([np.ones((2, 2))], [np.zeros((2, 2), bool)]).error == 1


@pytest.fixture
def overconfident(tmp_path):
    """The small network with logits three times as far from 0."""
    content = read_checkpoint("small")
    for name in ("head.weight", "head.bias"):
        content["weights"][name] = 3 * content["weights"][name].float()
    save_checkpoint(tmp_path / "sure.pth", content)
    return tmp_path / "sure.pth"


def test_a_network_that_is_too_sure_is_cooled_down(phantom, overconfident):
    pairs = pair_by_stem(phantom / "Train-Image", phantom / "Train-Mask")
    masks = [Predictor(overconfident, device="cpu", tta=False).predict(image).mask for image, _ in pairs]
    found = calibrate(overconfident, pairs, device="cpu", tta=False)
    assert found.temperature > 2
    assert load_model(overconfident)[0].temperature == pytest.approx(found.temperature)
    cooled = Predictor(overconfident, device="cpu", tta=False)
    changed = [np.mean(cooled.predict(image).mask != mask) for (image, _), mask in zip(pairs, masks, strict=True)]
    assert max(changed) < 0.01  # only at outlines, between the pixels of the network
    plain = calibrate(overconfident, pairs, device="cpu", tta=False)  # once more: nothing is left to do
    assert plain.temperature == pytest.approx(found.temperature, rel=0.05)


def test_small_files_and_ensembles_keep_it(phantom, overconfident, tmp_path):
    save_checkpoint(overconfident, read_checkpoint(overconfident) | {"temperature": 3.0})
    save_half(overconfident, tmp_path / "half.pth")
    path = sorted((phantom / "Test-Image").iterdir())[0]
    maps = [Predictor(name, device="cpu").predict(path).probabilities for name in ("small", tmp_path / "half.pth")]
    assert torch.allclose(*maps, atol=1e-2)
    both = Predictor("small", tmp_path / "half.pth", device="cpu").predict(path).probabilities
    assert torch.allclose(both, (maps[0] + maps[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "hot", True, 1e9])
def test_other_temperatures_are_refused(overconfident, value):
    from data.errors import InputError

    save_checkpoint(overconfident, read_checkpoint(overconfident) | {"temperature": value})
    with pytest.raises(InputError, match="its temperature is"):
        read_checkpoint(overconfident)


def test_trainers_calibrate_on_the_validation_slices(phantom, call, tmp_path):
    flags = ["--data_root", phantom, *TINY, "--calibrate", "--save_folder"]
    code, printed, error = call("supervised_train", *flags, tmp_path / "run", "--val_fraction", 0.3)
    assert code == 0 and "calibration error" in printed, error
    assert read_checkpoint(tmp_path / "run" / "best.pth")["temperature"] != 1
    code, _, error = call("supervised_train", *flags, tmp_path / "none")
    assert code == 2 and "--calibrate: needs slices to validate on" in error
