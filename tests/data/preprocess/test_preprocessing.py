"""Preprocessing: learned once, applied and undone, stored as plain types; no file is read twice."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import data.datasets
from data.datasets import UnlabeledSlices
from data.folders import list_slices
from data.preprocess.preprocessing import Placement, Preprocessing

PLAIN = Preprocessing(image_size=64, align_grays=True)


@pytest.fixture(scope="module")
def fitted(phantom):
    return PLAIN.fit(Image.open(file) for file in list_slices(phantom / "Train-Image"))


@pytest.mark.parametrize("turns", range(4))
def test_a_map_is_undone_to_the_slice(phantom, fitted, turns):
    stored = Image.open(list_slices(phantom / "Train-Image")[1])
    upright, _ = fitted.apply(stored)
    image = Image.fromarray(np.rot90(stored, turns)).resize((90, 70))
    prepared, placement = fitted.apply(image)
    assert prepared.dtype == torch.float32 and prepared.shape == (1, 64, 64) and prepared.min() >= 0
    assert prepared.max() <= 1 and placement == Placement(placement.turns, 70, 90)
    if turns != 2:  # half a turn is left alone in doubt
        assert placement.turns == -turns % 4 and (prepared - upright).abs().mean() < 0.03
    back = fitted.undo(torch.cat([prepared, 1 - prepared]), placement)
    assert back.shape == (2, 70, 90)
    own = np.asarray(image) / 255
    assert np.corrcoef(back[0].ravel(), own.ravel())[0, 1] > 0.95


def test_data_sets_give_what_apply_gives(phantom, fitted):
    files = list_slices(phantom / "Test-Image")
    slices = UnlabeledSlices(files, fitted)
    for prepared, placement, file in zip(slices, slices.placements, files, strict=True):
        image, where = fitted.apply(Image.open(file))
        assert torch.equal(image, prepared) and where == placement


def test_it_is_kept_as_plain_types(fitted):
    assert Preprocessing(**json.loads(json.dumps(fitted.to_dict()))) == fitted
    assert Preprocessing(**{"image_size": 96}) == Preprocessing(image_size=96, align_grays=False, typical_slice=None)
    assert fitted.summary() == {"image_size": 64, "align_grays": True, "align_turns": True}
    assert replace(fitted, typical_slice=None) == PLAIN


class Done(Exception):
    """Raised instead of the first epoch."""


def stop(*_):
    raise Done


@pytest.mark.parametrize("script", ["supervised_train", "semi_supervised_train"])
def test_each_file_is_decoded_once_before_the_first_step(phantom, tmp_path, call, monkeypatch, script):
    """Also of sets too large to be kept."""
    decoded = Counter()
    read_pair = data.datasets.read_pair

    def spy(pair, **options):
        decoded[pair[0]] += 1
        return read_pair(pair, **options)

    monkeypatch.setattr("data.datasets.read_pair", spy)
    monkeypatch.setattr("utils.training.loop._train_epoch", stop)
    flags = ["--data_root", phantom, "--base_channels", 2, "--image_size", 32, "--cache_gb", 0]
    if script.startswith("semi"):
        flags += ["--semi_img_path", phantom / "Test-Image", "--semi_msk_path", phantom / "Test-Mask"]
    with pytest.raises(Done):
        call(script, *flags, "--save_folder", tmp_path)
    assert set(decoded.values()) == {1} and len(decoded) == (14 if "semi" in script else 10)
