"""Configs: plain types in and out, cross-checks, and networks with other options."""

import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import models
from data.errors import InputError
from utils.checkpoint import load_model, save_checkpoint
from utils.config import RECIPES, TrainingConfig, overrides
from utils.training.state import Training


class Thin(nn.Conv2d):
    """A network of one convolution, with neither width nor blocks nor batch norm."""

    def __init__(self, in_channels: int = 1, num_classes: int = 2) -> None:
        super().__init__(in_channels, num_classes, 1)


@pytest.fixture
def thin(monkeypatch):
    monkeypatch.setitem(models.MODELS, "thin", Thin)
    return TrainingConfig(model="thin", epoch=1, amp="off").validate()


def test_paths_may_be_strings_and_nothing_changes_later():
    config = TrainingConfig(data_root="data", save_folder="runs/new")
    assert config.folder("train_img_path") == Path("data/Train-Image") and config.save_folder == Path("runs/new")
    with pytest.raises(FrozenInstanceError):
        config.epoch = 2


def test_a_config_is_kept_as_plain_types():
    kept = TrainingConfig(train_img_path=Path("a/b")).to_dict()
    assert kept["train_img_path"] == "a/b" and kept["lr"] == 5e-3 / 4 and "device" not in kept
    again = TrainingConfig(**kept)
    assert kept["loss"] == "ce_dice" and replace(again, lr=None, loss=None) == TrainingConfig(
        train_img_path=Path("a/b")
    )


def test_recipes_are_valid_and_named_by_what_they_override():
    for name, config in RECIPES.items():
        assert config.validate().recipe == name and replace(TrainingConfig(), **overrides(name)) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epoch": 0}, "--epoch 0: must be at least 1"),
        ({"epoch": "3"}, "--epoch '3': not of type int"),
        ({"lr": 0}, "--lr 0: must be above 0"),
        ({"lr": math.nan}, "--lr nan: must be above 0"),
        ({"val_fraction": 0.95}, "--val_fraction 0.95: must be at least 0 and at most 0.9"),
        ({"model": "vnet"}, "--model vnet: not one of cares_unet"),
        ({"loss": "bce"}, "--loss bce: not one of ce_dice, ce"),
        ({"optimizer_type": "lion"}, "--optimizer_type lion: not one of ranger"),
        ({"lr_schedule": "x"}, "--lr_schedule x: not one of flat_cosine"),
        ({"method": "x"}, "--method x: not one of pseudo, pseudo_first, teacher"),
        ({"amp": "x"}, "--amp x: not one of auto, off"),
        ({"recipe": "x"}, "--recipe x: not one of default"),
        ({"method": "pseudo", "batchsize": 3}, "--batchsize 3: half of it is labeled"),
        ({"loss": "ce", "dice_over": "batch"}, "--dice_over batch: --loss ce has no such option"),
    ],
)
def test_settings_that_nothing_accepts_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**wrong).validate()


def test_a_network_gets_only_the_options_that_it_has(thin, tmp_path):
    assert thin.network == {"name": "thin"}
    with pytest.raises(InputError, match="--block plain: --model thin has no such option"):
        replace(thin, block="plain").validate()
    model = models.build_model(**thin.network)
    images = torch.rand(2, 1, 8, 8)
    training = Training(model, thin, steps_per_epoch=1)  # averages weights without batch-norm counters, too
    assert training.step(images, (images[:, 0] > 0.5).long()).isfinite()
    entries = {"preprocessing": {}, "epoch": 1, "best_score": 0.0, "run": {}}
    save_checkpoint(tmp_path / "thin.pth", {"model": models.config_of(model), "weights": model.state_dict(), **entries})
    assert torch.equal(load_model(tmp_path / "thin.pth")[0](images), model(images))


def test_a_checkpoint_of_an_unknown_network_is_refused(thin, tmp_path, monkeypatch):
    entries = {"preprocessing": {}, "epoch": 1, "best_score": 0.0, "run": {}, "weights": {}}
    save_checkpoint(tmp_path / "thin.pth", {"model": thin.network, **entries})
    monkeypatch.delitem(models.MODELS, "thin")
    with pytest.raises(InputError, match="network 'thin', not one of cares_unet"):
        load_model(tmp_path / "thin.pth")
