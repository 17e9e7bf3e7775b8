"""Predictor: the same from a path, an image and an array, from slices and scans, by one network or several."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import InputError
from data.folders import list_slices
from data.io.volumes import read_scan
from models import build_model
from utils.inference.predictor import Predictor


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two networks of random weights, as bare state dicts."""
    paths = [tmp_path_factory.mktemp("models") / f"{seed}.pth" for seed in range(2)]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        torch.save(build_model("cares_unet", base_channels=2).state_dict(), path)
    return paths


@pytest.fixture(scope="module")
def predictor(checkpoints):
    return Predictor(checkpoints[0], device="cpu", image_size=48)


@pytest.fixture
def slice_path(phantom, tmp_path):
    Image.open(list_slices(phantom / "Test-Image")[0]).resize((70, 50)).save(tmp_path / "slice.png")
    return tmp_path / "slice.png"


def test_path_image_and_array_give_the_same(predictor, slice_path):
    found = predictor.predict(slice_path)
    assert found.probabilities.shape == (2, 50, 70) and found.map.dtype == np.uint8 and found.map.std() > 0
    assert found.mask.dtype == bool and np.array_equal(found.mask, found.map > 127)
    assert np.array_equal(found.mask_at(0.2), found.map > 51)
    gray = np.asarray(Image.open(slice_path))
    for same in (str(slice_path), Image.open(slice_path), gray, gray.astype(np.uint16) * 257, np.stack([gray] * 3, -1)):
        assert torch.equal(predictor.predict(same).probabilities, found.probabilities)


@pytest.mark.parametrize("wrong", [np.full((9, 9), -700, np.int32), np.zeros((9, 9))])
def test_arrays_that_are_no_gray_levels_are_refused(predictor, wrong):
    with pytest.raises(InputError, match="the image: not gray levels of 8 or 16 bits"):
        predictor.predict(wrong)


def test_several_networks_give_the_mean_of_their_maps(checkpoints, predictor, slice_path):
    both = Predictor(*checkpoints, device="cpu", image_size=48).predict(slice_path).probabilities
    single = [Predictor(path, device="cpu", image_size=48).predict(slice_path).probabilities for path in checkpoints]
    assert torch.allclose(both, torch.stack(single).mean(dim=0)) and not torch.allclose(*single)


def test_networks_of_other_sizes_see_their_own_slices(checkpoints, slice_path, tmp_path):
    torch.manual_seed(2)
    model = build_model("cares_unet", base_channels=2)
    content = {"model": model.config, "preprocessing": {"image_size": 32}, "weights": model.state_dict()}
    content |= {"format": "cares-unet-1", "epoch": 1, "best_score": -1.0, "run": {}}
    torch.save(content, tmp_path / "small.pth")
    paths = [checkpoints[0], tmp_path / "small.pth"]
    predictor = Predictor(*paths, device="cpu")
    [both] = predictor.predict_slices(predictor.read([slice_path]))
    single = [Predictor(path, device="cpu").predict(slice_path).probabilities for path in paths]
    assert torch.allclose(both.probabilities, torch.stack(single).mean(dim=0), atol=1e-6)


def test_it_finds_what_test_py_saves(checkpoints, phantom, tmp_path, call):
    out = ["--img_save_folder", tmp_path / "out", "--save_prob", "--image_size", 48]
    code, _, error = call("test", "--data_root", phantom, "--pretrained_model", *checkpoints, *out)
    assert code == 0, error
    predictor = Predictor(*checkpoints, image_size=48)
    for file in list_slices(phantom / "Test-Image"):
        found = predictor.predict(file)
        assert np.array_equal(found.map, np.asarray(Image.open(tmp_path / "out" / "prob" / file.name)))
        assert np.array_equal(found.mask, np.asarray(Image.open(tmp_path / "out" / file.name)) > 0)


def test_scans_by_path_and_as_hounsfield_units(predictor, scans):
    path = next((scans / "COVID-19-20").glob("*_ct.nii.gz"))
    hu = read_scan(path).slices
    found = predictor.predict_scan(path)
    assert found.shape == hu.shape and found.dtype == np.uint8 and found.std() > 0
    assert np.array_equal(predictor.predict_scan(hu), found)
