"""Methods and fit from Python, and an augmentation that every method runs."""

import csv
from dataclasses import replace

import pytest
import torch

from data import augmentation
from data.errors import InputError
from data.folders import pair_by_stem
from utils.checkpoint import load_model
from utils.config import KEEP_MASKS, TrainingConfig
from utils.inference.predictor import Predictor
from utils.training.data import read_labeled, read_pseudo_labeled
from utils.training.loop import fit
from utils.training.methods import SEMI_SUPERVISED, Supervised
from utils.training.start import Start

TINY = {"base_channels": 2, "image_size": 32, "batchsize": 2, "epoch": 2, "device": "cpu"}


@pytest.fixture
def config(phantom, tmp_path):
    return TrainingConfig(data_root=phantom, save_folder=tmp_path / "run", **TINY)


def test_fit_from_a_notebook(phantom, config):
    labeled, validation = read_labeled(config)
    fit(config, Supervised(config, labeled), validation)
    found = Predictor(config.save_folder / "best.pth").predict(phantom / "Test-Image" / "phantom_0000.png")
    assert found.mask.shape == (64, 64)


def test_fit_gives_the_weights_of_the_script_whatever_was_drawn_before(phantom, config, tmp_path, call):
    config = replace(config, seed=3)
    labeled, _ = read_labeled(config)
    torch.rand(5)
    fit(config, Supervised(config, labeled))
    flags = [word for name, value in TINY.items() for word in (f"--{name}", value)]
    flags += ["--data_root", phantom, "--seed", 3, "--save_folder", tmp_path / "script"]
    assert call("supervised_train", *flags)[0] == 0
    ours, script = (load_model(tmp_path / run / "best.pth")[0].state_dict() for run in ("run", "script"))
    assert all(torch.equal(ours[name], script[name]) for name in script)


def test_fit_continues_a_run_and_spares_a_finished_one(config):
    labeled, _ = read_labeled(config)
    fit(config, Supervised(config, labeled))
    last = config.save_folder / "last.pth"
    finished = last.read_bytes()
    with pytest.raises(InputError, match="is not empty; --resume"):
        fit(config, Supervised(config, labeled))
    with pytest.raises(InputError, match="is finished after 2 epochs"):
        fit(config, Supervised(config, labeled), start=Start.read(last, resume=True))
    with pytest.raises(InputError, match=r"--base_channels 3: the network in .* has 2"):
        fit(replace(config, base_channels=3), Supervised(config, labeled), start=Start.read(last))
    with pytest.raises(InputError, match=r"best\.pth: not the last\.pth of a run"):
        Start.read(last.with_name("best.pth"), resume=True)
    assert last.read_bytes() == finished
    longer = replace(config, epoch=3)
    fit(longer, Supervised(longer, labeled), start=Start.read(last, resume=True))
    assert Start.read(last).content["epoch"] == 3


def test_a_run_is_not_resumed_on_slices_that_it_did_not_have(config):
    """As those held out in a fold of a cross-validation."""
    pairs = pair_by_stem(config.folder("train_img_path"), config.folder("train_msk_path"))
    labeled, _ = read_labeled(config, pairs=pairs[:-1])
    fit(config, Supervised(config, labeled))
    start = Start.read(config.save_folder / "last.pth", resume=True)
    longer = replace(config, epoch=3)
    with pytest.raises(InputError, match=rf"differ from before .training: {pairs[-1][0].stem}"):
        fit(longer, Supervised(longer, read_labeled(longer)[0]), start=start)


@pytest.mark.parametrize("name", ["supervised", *SEMI_SUPERVISED])
def test_an_added_augmentation_runs_at_every_step(phantom, config, monkeypatch, name):
    moved, varied = [], []

    def count_moved(images, masks, *, mirror):
        moved.append(len(images))
        return images, masks

    def count_varied(images):
        varied.append(len(images))
        return images

    monkeypatch.setattr(augmentation, "GEOMETRY", [*augmentation.GEOMETRY, count_moved])
    monkeypatch.setitem(augmentation.GRAYS, "usual", [*augmentation.GRAYS["usual"], count_varied])
    unlabeled = {"semi_img_path": phantom / "Test-Image", "semi_msk_path": phantom / "Test-Mask"}
    config = replace(config, **unlabeled, labeled_finish=0.5)
    labeled, _ = read_labeled(config)
    if name == "supervised":
        method = Supervised(config, labeled)
    else:
        method = SEMI_SUPERVISED[name](config, labeled, read_pseudo_labeled(config, labeled.preprocessing))
    fit(config, method)
    slices = 2 * 2 * len(method.batches)  # epochs, slices of a batch
    views = len(method.batches) if name in ("two_views", "unimatch", "complementary") else 0
    assert sum(moved) == slices and sum(varied) == slices + views
    relabels = name not in ("supervised", *KEEP_MASKS)
    pictures = [config.save_folder / picture for picture in ("labels_at_start.png", "labels.png")]
    assert [picture.exists() for picture in pictures] == [relabels] * 2
    assert not relabels or pictures[0].read_bytes() != pictures[1].read_bytes()
    rows = list(csv.DictReader((config.save_folder / "log.csv").open()))
    assert len(rows) == 2 and ("kept_share" in rows[0]) == relabels


@pytest.mark.parametrize("name", ["soft", "double_threshold"])
def test_methods_that_decide_in_another_way_refuse_a_confidence(config, name):
    config = replace(config, method=name, confidence=0.9)
    labeled, _ = read_labeled(config)
    with pytest.raises(InputError, match=f"--confidence 0.9: --method {name}"):
        SEMI_SUPERVISED[name](config, labeled, labeled)


def test_methods_that_change_features_need_a_network_that_lets_them(phantom, config):
    unlabeled = {"semi_img_path": phantom / "Test-Image", "semi_msk_path": phantom / "Test-Mask"}
    config = replace(config, model="unet", method="unimatch", **unlabeled)
    labeled, _ = read_labeled(config)
    with pytest.raises(InputError, match="--method unimatch: --model unet"):
        SEMI_SUPERVISED["unimatch"](config, labeled, read_pseudo_labeled(config, labeled.preprocessing))


def test_without_augmentation_none_runs(config, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(augmentation, "GEOMETRY", [refuse])
    config = replace(config, data_augmentation=False)
    labeled, _ = read_labeled(config)
    fit(config, Supervised(config, labeled))
