"""Preprocessing: learned once, applied and undone, stored as plain types; no file is read twice."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

import data.io.images
from data.datasets import LesionSlices, UnlabeledSlices
from data.folders import list_slices, pair_by_stem
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
    assert fitted.summary() == {"image_size": 64, "align_grays": True, "align_frame": False, "align_turns": True}
    assert fitted.before_rotation == PLAIN


def test_inverted_slices_get_a_note(phantom, fitted):
    inverted = 0
    for file in list_slices(phantom / "Train-Image"):
        image = Image.open(file).convert("L")
        assert "inverted" not in fitted.apply(image)[1].frame.note
        inverted += "seem inverted" in fitted.apply(Image.eval(image, lambda gray: 255 - gray))[1].frame.note
    assert inverted >= 9


class Done(Exception):
    """Raised instead of the first epoch."""


def stop(*_):
    raise Done


@pytest.fixture
def decoded(monkeypatch):
    """How often each image is decoded, by its path."""
    counts = Counter()
    read_image = data.io.images.read_image

    def spy(path, *reading):
        counts[path] += 1
        return read_image(path, *reading)

    monkeypatch.setattr("data.io.images.read_image", spy)
    monkeypatch.setattr("data.datasets.read_image", spy)
    return counts


@pytest.mark.parametrize("script", ["supervised_train", "semi_supervised_train"])
def test_each_file_is_decoded_once_before_the_first_step(phantom, tmp_path, call, monkeypatch, decoded, script):
    """Also of sets too large to be kept; but for the six slices of a picture."""
    monkeypatch.setattr("utils.training.loop.Pictures.begin", lambda pictures: None)
    monkeypatch.setattr("utils.training.loop._train_epoch", stop)
    flags = ["--data_root", phantom, "--base_channels", 2, "--image_size", 32, "--cache_gb", 0]
    if script.startswith("semi"):
        flags += ["--semi_img_path", phantom / "Test-Image", "--semi_msk_path", phantom / "Test-Mask"]
        flags += ["--method", "teacher", "--semi_truth_path", phantom / "Test-Mask"]
    with pytest.raises(Done):
        call(script, *flags, "--save_folder", tmp_path)
    assert set(decoded.values()) == {1} and len(decoded) == (14 if "semi" in script else 10)


def test_another_orientation_needs_no_second_decoding(phantom, decoded):
    files = list_slices(phantom / "Train-Image")
    slices = UnlabeledSlices(files, PLAIN)
    typical = PLAIN.fit(Image.open(file).rotate(90) for file in files)
    turned = slices.prepared_by(typical)
    assert set(decoded.values()) == {1} and slices.placements[0].turns == 0
    again = UnlabeledSlices(files, typical)
    for index, placement in enumerate(again.placements):
        assert turned.placements[index] == placement and torch.equal(turned[index], again[index])
    assert turned.placements[0].turns and not torch.equal(turned[0], slices[0])


def test_true_masks_belong_to_the_same_slices(phantom, tmp_path):
    """As decoded beside the pseudo masks, and as decoded alone."""
    pairs = pair_by_stem(phantom / "Test-Image", phantom / "Test-Mask")
    for image, _ in pairs:
        Image.new("L", Image.open(image).size, 255).save(tmp_path / f"{image.stem}.png")
    both = LesionSlices([(i, tmp_path / f"{i.stem}.png", truth) for i, truth in pairs], PLAIN, pseudo=True)
    true, alone = both.with_truth(), LesionSlices(pairs, PLAIN)
    assert both.truth_known and not alone.truth_known
    assert true.lesion_share() == alone.lesion_share() < both.lesion_share() == 1
    assert torch.equal(true.lesion_areas(), alone.lesion_areas())
    for index in range(len(pairs)):
        assert all(torch.equal(a, b) for a, b in zip(true[index], alone[index], strict=True))
        assert torch.equal(both[index][0], true[index][0]) and (both[index][1] == 1).all()
