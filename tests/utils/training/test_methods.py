"""Methods and fit from Python, and an augmentation that every method runs."""

import csv
from dataclasses import replace

import pytest

from data import augmentation
from utils.config import TrainingConfig
from utils.inference.predictor import Predictor
from utils.training.data import read_labeled, read_pseudo_labeled
from utils.training.loop import fit, initial_model
from utils.training.methods import SEMI_SUPERVISED, Supervised

TINY = {"base_channels": 2, "image_size": 32, "batchsize": 2, "epoch": 2, "device": "cpu"}


def test_fit_from_a_notebook(phantom, tmp_path):
    config = TrainingConfig(data_root=phantom, save_folder=tmp_path / "run", **TINY)
    labeled, validation, preprocessing = read_labeled(config)
    method = Supervised(config, labeled, preprocessing)
    fit(config, initial_model(config), method, validation, preprocessing=preprocessing)
    found = Predictor(tmp_path / "run" / "best.pth").predict(phantom / "Test-Image" / "phantom_0000.png")
    assert found.mask.shape == (64, 64)


@pytest.mark.parametrize("name", ["supervised", *SEMI_SUPERVISED])
def test_an_added_augmentation_runs_at_every_step(phantom, tmp_path, monkeypatch, name):
    moved, varied = [], []

    def count_moved(images, masks, *, mirror):
        moved.append(len(images))
        return images, masks

    def count_varied(images):
        varied.append(len(images))
        return images

    monkeypatch.setattr(augmentation, "GEOMETRY", [*augmentation.GEOMETRY, count_moved])
    monkeypatch.setattr(augmentation, "GRAYS", [*augmentation.GRAYS, count_varied])
    config = TrainingConfig(data_root=phantom, save_folder=tmp_path / "run", **TINY)
    unlabeled = {"semi_img_path": phantom / "Test-Image", "semi_msk_path": phantom / "Test-Mask"}
    config = replace(config, **unlabeled, labeled_finish=0.5)
    labeled, _, preprocessing = read_labeled(config)
    if name == "supervised":
        method = Supervised(config, labeled, preprocessing)
    else:
        method = SEMI_SUPERVISED[name](config, labeled, preprocessing, *read_pseudo_labeled(config, preprocessing))
    fit(config, initial_model(config), method, preprocessing=preprocessing)
    slices = 2 * 2 * len(method.batches)  # epochs, slices of a batch
    assert sum(moved) == sum(varied) == slices
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert len(rows) == 2 and ("kept_share" in rows[0]) == (name == "teacher")


def test_without_augmentation_none_runs(phantom, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(augmentation, "GEOMETRY", [refuse])
    config = TrainingConfig(data_root=phantom, save_folder=tmp_path / "run", data_augmentation=False, **TINY)
    labeled, _, preprocessing = read_labeled(config)
    fit(config, initial_model(config), Supervised(config, labeled, preprocessing), preprocessing=preprocessing)
