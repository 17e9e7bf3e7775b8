"""Predictor: the same from a path, an image and an array, from slices and scans, by one network or several."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data.datasets import UnlabeledSlices
from data.errors import InputError
from data.folders import list_slices
from data.io.volumes import read_scan
from data.phantom.slices import draw_slice
from data.preprocess.lungs import find_body, find_lungs
from data.preprocess.preprocessing import Preprocessing
from data.preprocess.window import LUNG
from models import build_model
from utils.checkpoint import save_checkpoint
from utils.inference.predictor import TOO_MUCH, Predictor


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
def hu_slice():
    return draw_slice(np.random.default_rng(0), 96)[0]


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


def test_arrays_of_other_types_give_the_same(predictor, slice_path):
    gray = np.asarray(Image.open(slice_path))
    found = predictor.predict(gray).map
    for same in (gray.astype(np.int64), gray.astype(np.float32), gray / 255, torch.from_numpy(gray.copy())):
        assert np.array_equal(predictor.predict(same).map, found), same.dtype
    assert np.array_equal(predictor.predict(gray.astype(np.int64) * 257).map, found)  # 16 bits


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.full((9, 9), -700, np.int32), "not gray levels .int32 from -700"),
        (np.full((9, 9), np.nan), "not gray levels .float64 from nan"),
        (np.full((9, 9), 7e4), "not gray levels .float64"),
        (np.zeros((9, 9), bool), "not gray levels .bool"),
        (np.zeros((3, 9, 9), np.uint8), r"shape .3, 9, 9.; give .height, width"),
        (np.zeros((0, 9)), "shape .0, 9"),
    ],
)
def test_arrays_that_are_no_gray_levels_are_refused(predictor, wrong, message):
    with pytest.raises(InputError, match=f"the image: .*{message}"):
        predictor.predict(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((9, 9)), "shape .9, 9.; give .slices"),
        (np.zeros((0, 9, 9)), "shape .0, 9, 9"),
        (np.full((2, 9, 9), np.nan), "not in Hounsfield units .float64 from nan"),
        (np.full((2, 9, 9), 300, np.int16), "not in Hounsfield units .int16 from 300"),
    ],
)
def test_arrays_that_are_no_scans_are_refused(predictor, wrong, message):
    with pytest.raises(InputError, match=f"the scan: .*{message}"):
        predictor.predict_scan(wrong)


@pytest.mark.parametrize("window", ["lung", (-650, 0), (-650,)])
def test_windows_that_are_none_are_refused(predictor, window):
    with pytest.raises(InputError, match="not a level and a width"):
        predictor.predict_scan(np.full((2, 9, 9), -700), window=window)


@pytest.mark.parametrize("settings", [{"amp": "x"}, {"image_size": 0}, {"batchsize": 0}, {"device": "tpu"}])
def test_settings_that_nothing_accepts_are_refused(checkpoints, settings):
    with pytest.raises(InputError, match=f"--{next(iter(settings))} "):
        Predictor(checkpoints[0], **settings)


def test_no_checkpoint_is_refused(checkpoints):
    for none in ((), (checkpoints,)):
        with pytest.raises(InputError, match="needs one checkpoint"):
            Predictor(*none)


def test_several_networks_give_the_mean_of_their_maps(checkpoints, predictor, slice_path):
    both = Predictor(*checkpoints, device="cpu", image_size=48).predict(slice_path).probabilities
    single = [Predictor(path, device="cpu", image_size=48).predict(slice_path).probabilities for path in checkpoints]
    assert torch.allclose(both, torch.stack(single).mean(dim=0)) and not torch.allclose(*single)


def save(path, *, seed, preprocessing, **options):
    """A checkpoint with random weights."""
    torch.manual_seed(seed)
    model = build_model("cares_unet", base_channels=2)
    content = {"model": model.config, "preprocessing": preprocessing, "weights": model.state_dict()}
    save_checkpoint(path, content | {"epoch": 1, "best_score": -1.0, "run": {"options": options}})
    return path


def test_an_ensemble_of_different_networks_is_the_mean_of_each_alone(checkpoints, phantom, slice_path, tmp_path):
    """Of other sizes, trained with and without flipped slices, with and without a typical slice."""
    sizes = Preprocessing(image_size=32), Preprocessing(image_size=32).fit([Image.open(slice_path).rotate(90)])
    paths = [checkpoints[0]]
    for seed, (size, flipped) in enumerate([(sizes[0], True), (sizes[1], True), (sizes[1], False)]):
        path = tmp_path / f"{seed}.pth"
        paths.append(save(path, seed=seed, preprocessing=size.to_dict(), data_augmentation=flipped))
    predictor = Predictor(*paths, device="cpu")
    assert predictor.tta == [False, True, True, False]
    files = [slice_path, *list_slices(phantom / "Test-Image")]
    for file, both in zip(files, predictor.predict_slices(predictor.read(files)), strict=True):
        single = [Predictor(path, device="cpu").predict(file).probabilities for path in paths]
        assert torch.allclose(both.probabilities, torch.stack(single).mean(dim=0), atol=1e-6)
        assert torch.allclose(predictor.predict(file).probabilities, both.probabilities, atol=1e-6)


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


def everything(images):
    return torch.cat([-torch.ones_like(images), torch.ones_like(images)], dim=1)


def test_doubts_are_noted(phantom):
    """An unlike picture, a slice without lungs, and more lesion than lung; a plausible slice has no note."""
    files = list_slices(phantom / "Train-Image")
    cropping = Preprocessing(image_size=48, align_frame=True)
    learned = cropping.learn(UnlabeledSlices(files, cropping).portraits)
    model, framed = torch.nn.Identity(), replace(learned, align_frame=True)
    model.forward = everything
    predictor = Predictor((model, framed), device="cpu", tta=False)
    stripes = np.tile(np.repeat([40, 200], 12), (72, 3)).astype(np.uint8)
    assert "unlike the training slices" in predictor.predict(stripes).note
    disc = (np.hypot(*(np.mgrid[:90, :90] - 45)) < 35) * np.uint8(190) + np.uint8(20)
    assert "no lungs found" in predictor.predict(disc).note
    assert predictor.predict(files[0]).note == TOO_MUCH
    model.forward = lambda images: -everything(images)
    assert predictor.predict(files[0]).note == ""


def test_scans_that_lie_otherwise_than_they_say_are_noted(scans):
    hu = read_scan(next((scans / "COVID-19-20").glob("*_ct.nii.gz"))).slices
    gray = [Image.fromarray(LUNG.to_gray(section)) for section in hu]
    model = torch.nn.Identity()
    model.forward = lambda images: -everything(images)
    predictor = Predictor((model, Preprocessing(image_size=48).fit(gray, frame=False)), device="cpu", tta=False)
    assert predictor.predict_hu(hu, window=LUNG).note == ""
    found = predictor.predict_hu(np.rot90(hu, 1, (1, 2)).copy(), window=LUNG, note="known before")
    assert found.note == "known before; seems rotated by 270 degrees; check the orientation in the file"


def test_lesions_within_the_lungs(hu_slice):
    """Only with --within_lungs, and then also of a slice that is not cropped."""
    model = torch.nn.Identity()
    model.forward = everything
    for preprocessing in (Preprocessing(image_size=48), Preprocessing(image_size=48, align_frame=True)):
        free, within = (
            Predictor((model, preprocessing), device="cpu", tta=False, within_lungs=flag).predict(
                LUNG.to_gray(hu_slice)
            )
            for flag in (False, True)
        )
        lungs = find_lungs(hu_slice[None], find_body(hu_slice[None]))[0]
        assert free.mask.sum() > 1.5 * within.mask.sum()
        assert within.mask[lungs].mean() > 0.95 and lungs[within.mask].mean() > 0.8
