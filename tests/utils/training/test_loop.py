"""fit(): a run that is killed and resumed ends as one that was not; a loss that is lost stops the run."""

import csv
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT

from models import build_model
from utils.checkpoint import load_model, save_checkpoint
from utils.config import TrainingConfig
from utils.training import loop, saving
from utils.training.state import Training

TINY = ("--base_channels", 2, "--image_size", 32, "--batchsize", 2)


@pytest.fixture(scope="module")
def pseudo(phantom, tmp_path_factory):
    """The phantom's unlabeled slices, with the labeled ones' masks for pseudo masks."""
    folder = tmp_path_factory.mktemp("pseudo")
    for image, mask in zip(
        sorted((phantom / "Unlabeled").iterdir()), sorted((phantom / "Train-Mask").iterdir()), strict=False
    ):
        (folder / f"{image.stem}.png").write_bytes(mask.read_bytes())
    return folder


def epochs_logged(folder):
    log = folder / "log.csv"
    return len(log.read_text().splitlines()) - 1 if log.exists() else 0


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("supervised_train", ["--num_workers", 2, "--val_fraction", 0.2]),
        ("semi_supervised_train", ["--val_fraction", 0.2]),
        ("supervised_train", ["--optimizer_type", "adamw", "--ema_decay", 0]),
    ],
)
def test_resume_after_a_kill_is_exact(script, flags, phantom, pseudo, tmp_path, call):
    options = ["--data_root", phantom, *TINY, "--epoch", 8, *flags]
    if script.startswith("semi"):
        options += ["--semi_msk_path", pseudo]
    assert call(script, *options, "--save_folder", tmp_path / "whole")[0] == 0

    killed = tmp_path / "killed"
    command = [sys.executable, f"{script}.py", *options, "--save_folder", killed]
    process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL)
    while epochs_logged(killed) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert epochs_logged(killed) < 8, "the run ended before it could be killed"

    assert call(script, "--resume", killed / "last.pth")[0] == 0
    expected, found = (torch.load(tmp_path / run / "last.pth", weights_only=True) for run in ("whole", "killed"))
    for part in ("network", "ema"):
        for name, tensor in expected["training"][part].items():
            assert torch.equal(tensor, found["training"][part][name]), (part, name)
    assert expected["best_score"] == found["best_score"]
    assert expected["run"] == found["run"]

    tables = [list(csv.DictReader((tmp_path / run / "log.csv").open())) for run in ("whole", "killed")]
    for whole_row, resumed_row in zip(*tables, strict=True):
        assert {**whole_row, "seconds": ""} == {**resumed_row, "seconds": ""}


def test_a_lost_loss_stops_the_run(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY, "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *flags, "--epoch", 1)[0] == 0
    good = (tmp_path / "run" / "last.pth").read_bytes()
    code, _, error = call(
        "supervised_train",
        *("--resume", tmp_path / "run" / "last.pth", "--epoch", 9),
        *("--lr", 1e30),
    )
    assert code == 2
    assert re.search(r"error: NaN or infinite: the loss is at step \d+, learning rate .*last good checkpoint is", error)
    assert (tmp_path / "run" / "last.pth").read_bytes() == good


@pytest.mark.parametrize("validation", [[], ["--val_fraction", 0.2]])
def test_lost_weights_are_never_saved(phantom, tmp_path, call, validation):
    """One step an epoch: its loss is taken before the weights are lost."""
    flags = ["--data_root", phantom, *TINY, "--batchsize", 8, "--lr", 1e38, "--optimizer_type", "sgd"]
    code, _, error = call("supervised_train", *flags, *validation, "--epoch", 1, "--save_folder", tmp_path / "run")
    assert code == 2 and "NaN or infinite" in error and "no checkpoint was saved yet" in error
    assert not list((tmp_path / "run").glob("*.pth"))


def test_the_best_epoch_is_kept(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY, "--epoch", 6, "--snapshots", 2, "--save_start_epoch", 3]
    assert call("supervised_train", *flags, "--val_fraction", 0.2, "--save_folder", tmp_path)[0] == 0
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    best = max(rows, key=lambda row: float(row["val_dice"]))
    content = torch.load(tmp_path / "best.pth", weights_only=True)
    assert content["epoch"] == int(best["epoch"]) and content["best_score"] == float(best["val_dice"])
    assert {f.name for f in tmp_path.glob("*.pth")} == {"best.pth", "last.pth", "epoch_4.pth", "epoch_6.pth"}
    assert len(rows) == 6  # N epochs are N, not N - 1


def test_without_validation_weights_are_saved_as_seldom_as_the_run(phantom, tmp_path, call, monkeypatch):
    """At full width, writing a checkpoint takes as long as an epoch on a GPU."""
    saved = []

    def spy(path, content):
        saved.append((path.name, content["epoch"]))
        save_checkpoint(path, content)

    monkeypatch.setattr(saving, "save_checkpoint", spy)
    monkeypatch.setattr(saving, "SAVE_SHARE", 1e-9)
    assert (
        call("supervised_train", "--data_root", phantom, *TINY, "--epoch", 4, "--save_folder", tmp_path / "run")[0] == 0
    )
    assert saved == [("best.pth", 1), ("last.pth", 1), ("best.pth", 4), ("last.pth", 4)]


@pytest.mark.parametrize(("finish", "epoch"), [(0.5, 3), (0, 1), (1, 1)])
def test_the_best_epoch_is_sought_in_the_labeled_finish(phantom, pseudo, tmp_path, call, monkeypatch, finish, epoch):
    falling = iter([0.8, 0.7, 0.6, 0.5])
    monkeypatch.setattr(loop, "validate", lambda *_: {"val_loss": 1.0, "val_dice": next(falling)})
    flags = ["--data_root", phantom, *TINY, "--epoch", 4, "--semi_msk_path", pseudo, "--labeled_finish", finish]
    assert call("semi_supervised_train", *flags, "--val_fraction", 0.2, "--save_folder", tmp_path / "run")[0] == 0
    assert torch.load(tmp_path / "run" / "best.pth", weights_only=True)["epoch"] == epoch


def test_published_schedule(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY, "--epoch", 5, "--lr", 0.01]
    decay = ["--decay_rate", 0.5, "--decay_start_epoch", 1, "--decay_epoch", 2]
    assert call("supervised_train", *flags, *decay, "--save_folder", tmp_path)[0] == 0
    rates = [float(row["lr"]) for row in csv.DictReader((tmp_path / "log.csv").open())]
    assert rates == [0.01, 0.01, 0.01, 0.005, 0.005]


@pytest.mark.parametrize(
    ("flags", "lr"), [([], 5e-3), (["--base_channels", 32], 2.5e-3), (["--base_channels", 32, "--lr", 0.004], 0.004)]
)
def test_wider_networks_learn_at_a_lower_rate(phantom, tmp_path, call, flags, lr):
    options = ["--data_root", phantom, *TINY, "--batchsize", 8, "--epoch", 1, *flags]  # of one step
    assert call("supervised_train", *options, "--save_folder", tmp_path)[0] == 0
    first = next(csv.DictReader((tmp_path / "log.csv").open()))
    assert float(first["lr"]) == pytest.approx(lr)


def test_bf16_trains(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY, "--epoch", 4, "--amp", "bf16", "--save_folder", tmp_path]
    code, out, _ = call("supervised_train", *flags)
    losses = [float(row["train_loss"]) for row in csv.DictReader((tmp_path / "log.csv").open())]
    assert code == 0 and "bf16" in out and losses[-1] < losses[0]
    assert torch.load(tmp_path / "best.pth", weights_only=True)["weights"]["head.weight"].dtype == torch.float32


def test_paper_recipe_and_flags_over_it(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY, "--recipe", "paper", "--epoch", 1, "--save_folder", tmp_path]
    code, _, _ = call("supervised_train", *flags)
    options = torch.load(tmp_path / "best.pth", weights_only=True)["run"]["options"]
    assert code == 0
    assert (options["epoch"], options["lr"], options["lr_schedule"], options["decay_start_epoch"]) == (
        1,
        5e-4,
        "step",
        800,
    )
    assert options["data_augmentation"] is False and options["ema_decay"] == 0
    assert options["lesion_margin"] == 0 and options["dice_over"] == "batch"
    assert not load_model(tmp_path / "best.pth")[0].knows_turns


def test_a_run_resumed_elsewhere_has_a_best_epoch_of_its_own(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY, "--val_fraction", 0.2, "--epoch", 1]
    assert call("supervised_train", *flags, "--save_folder", tmp_path / "first")[0] == 0
    last = torch.load(tmp_path / "first" / "last.pth", weights_only=True)
    torch.save({**last, "best_score": 1.0}, tmp_path / "first" / "last.pth")  # which no later epoch will pass
    resume = ["--resume", tmp_path / "first" / "last.pth", "--epoch", 2, "--save_folder"]
    assert call("supervised_train", *resume, tmp_path / "second")[0] == 0
    assert (tmp_path / "second" / "best.pth").exists()


def test_a_new_learning_rate_applies_from_the_first_resumed_step(phantom, tmp_path, call):
    """The published schedule halves it every epoch; 5 steps are an epoch."""
    flags = ["--data_root", phantom, *TINY, "--decay_rate", 0.5, "--decay_start_epoch", 0, "--decay_epoch", 1]
    assert call("supervised_train", *flags, "--epoch", 2, "--save_folder", tmp_path)[0] == 0
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    config = TrainingConfig(**content["run"]["options"])
    training = Training(build_model(**content["model"]), config, steps_per_epoch=5)
    training.load_state_dict(content["training"], lr=config.lr / 10, weight_decay=0.25)
    assert training.lr == pytest.approx(config.lr / 10 / 4)
    assert training.optimizer.param_groups[0]["weight_decay"] == 0.25
