"""Cross-validation: neighbours stay together, finished folds are kept, settings are compared slice by slice."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, call_as_process, call_here
from PIL import Image

import supervised_train
from benchmarks.crossval import run
from benchmarks.crossval.__main__ import parse
from benchmarks.crossval.folds import alike, split_in_folds
from benchmarks.crossval.report import paired, per_slice, report
from benchmarks.crossval.setting import Setting
from data.errors import InputError
from data.folders import pair_by_stem
from utils.checkpoint import fingerprint
from utils.inference.predictor import Predictor

TINY = ("--base_channels", 2, "--image_size", 32, "--batchsize", 2)


def test_neighbours_are_found_through_chains(tmp_path):
    rng = np.random.default_rng(0)
    first, other = rng.uniform(0, 255, (2, 8, 8))
    # 0, 1 and 2 drift away from each other step by step; 3 is another slice; 4 is 0 at another size.
    slices = [first, first + rng.normal(0, 25, (8, 8)), None, other, first]
    slices[2] = slices[1] + rng.normal(0, 25, (8, 8))
    paths = []
    for index, (pixels, size) in enumerate(zip(slices, (96, 96, 96, 96, 200), strict=True)):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC).save(
            paths[-1]
        )
    groups = alike(paths, 0.9)
    assert groups[0] == groups[1] == groups[2] == groups[4] != groups[3]


def test_groups_are_never_divided():
    pairs = [(f"{index}.jpg", f"{index}.png") for index in range(23)]
    groups = [index // 3 for index in range(23)]
    folds = split_in_folds(pairs, groups, 4)
    assert sorted(pair for fold in folds for pair in fold) == sorted(pairs)
    assert max(map(len, folds)) - min(map(len, folds)) <= 3
    of_pair = dict(zip(pairs, groups, strict=True))
    in_folds = [{of_pair[pair] for pair in fold} for fold in folds]
    assert sum(map(len, in_folds)) == len(set(groups))
    assert folds == split_in_folds(pairs, groups, 4)
    with pytest.raises(InputError, match="8 groups"):
        split_in_folds(pairs, groups, 9)


def test_paired_difference():
    theirs = {f"{index}": index / 40 for index in range(20)}
    ours = {image: dice + 0.1 for image, dice in theirs.items()}
    found = paired(ours, theirs, "other")
    assert found["difference"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.1) and found["high"] == pytest.approx(0.1)
    ours["0"] = 1.0
    assert paired(ours, theirs, "other")["low"] < 0.11 < paired(ours, theirs, "other")["high"]
    assert paired(ours, {"of another fold": 0.5}, "other") == {}


def test_seeds_are_averaged_over_what_all_of_them_scored():
    dice = {"0": {"a": 0.2, "b": 1.0}, "7": {"b": 0.0, "a": 0.4, "c": 0.1}, "8": {"a": 1.0}}
    assert per_slice(dice, ["0", "7"]) == pytest.approx({"a": 0.3, "b": 0.5})
    assert per_slice(dice, ["8"]) == {"a": 1.0} and per_slice(dice, []) == {}
    many = {f"{index}.png": index / 20 for index in range(20)}
    assert list(per_slice({"0": many}, ["0"])) == list(many)  # bootstrap intervals depend on the order


def test_flags_after_dashes_are_for_the_trainer():
    args = parse(["a", "--folds", "2", "--", "--lr", "1"])
    assert (args.name, args.folds, args.flags) == ("a", 2, ["--lr", "1"]) and parse(["a"]).flags == []


def test_few_labels_are_the_same_for_every_setting(phantom, tmp_path, monkeypatch):
    options = ["--data_root", phantom, "--folds", 2, "--alike", 1, "--out", tmp_path]
    trained, train = [], supervised_train.train

    def spy(config, start, pairs):
        trained.append([image.name for image, _ in pairs])
        train(config, start, pairs)

    monkeypatch.setattr(supervised_train, "train", spy)
    for name, seeds in (("few", [0, 1]), ("other", [0])):
        flags = ["--", *TINY, "--epoch", 1, "--batchsize", 2]
        code, _, error = call_here(
            "benchmarks.crossval.__main__", name, *options, "--labeled", 3, "--seeds", *seeds, *flags
        )
        assert code == 0, error
    assert [len(names) for names in trained] == [3] * 6
    assert trained[:2] == trained[2:4] == trained[4:] and trained[0] != trained[1]
    wrong = ["all", *options, "--teacher", "few", "--", *TINY, "--epoch", 1]
    code, _, error = call_here("benchmarks.crossval.__main__", *wrong)
    assert code == 2 and "was trained on 3 slices, not all" in error


def test_settings_from_start_to_end(phantom, tmp_path, monkeypatch):
    options = ["--data_root", phantom, "--folds", 2, "--alike", 0.9, "--out", tmp_path]
    flags = ["--", *TINY, "--epoch", 1]
    trained, train = [], supervised_train.train

    def spy(config, start, pairs):
        trained.append({image.name for image, _ in pairs})
        train(config, start, pairs)

    monkeypatch.setattr(supervised_train, "train", spy)

    def crossval(*arguments):
        code, _, error = call_here("benchmarks.crossval.__main__", *options, *arguments, *flags)
        assert code == 0, error

    crossval("default")
    result = json.loads((tmp_path / "default" / "result.json").read_text())
    held_out = [pair[0].name for pair in pair_by_stem(phantom / "Train-Image", phantom / "Train-Mask")]
    assert sorted(result["slices"]["0"]) == sorted(held_out)
    assert result["dice"] == pytest.approx(np.mean(list(result["slices"]["0"].values())))
    assert len(result["folds"]) == 2
    for fold in range(2):
        with (tmp_path / "default" / f"seed_0_fold_{fold}" / "scores.csv").open() as table:
            scored = {row["image"] for row in csv.DictReader(table)}
        assert not trained[fold] & scored and sorted(trained[fold] | scored) == sorted(held_out)
        of_fold = [dice for image, dice in result["slices"]["0"].items() if image in scored]
        assert result["folds"][f"{fold}"] == pytest.approx(np.mean(of_fold))

    before = (tmp_path / "default" / "seed_0_fold_0" / "run" / "log.csv").stat().st_mtime_ns
    (tmp_path / "default" / "seed_0_fold_1" / "scores.csv").unlink()
    crossval("default")  # scores fold 1 again, trains nothing
    assert json.loads((tmp_path / "default" / "result.json").read_text()) == result
    assert (tmp_path / "default" / "seed_0_fold_0" / "run" / "log.csv").stat().st_mtime_ns == before

    crossval("semi", "--teacher", "default", "--label_flags=--confidence 0.6", "--only", 1)
    half = json.loads((tmp_path / "semi" / "result.json").read_text())
    assert 0 < len(half["slices"]["0"]) < 10 and not (tmp_path / "semi" / "seed_0_fold_0").exists()
    crossval("semi", "--teacher", "default", "--label_flags=--confidence 0.6", "--only", 0)  # and all that is done
    semi = json.loads((tmp_path / "semi" / "result.json").read_text())
    assert sorted(semi["slices"]["0"]) == sorted(held_out)
    assert semi["against"] == "default" and semi["low"] <= semi["difference"] <= semi["high"]
    assert len(list((tmp_path / "semi" / "seed_0_fold_0" / "Pos-Mask").glob("*.png"))) == 8
    assert "kept_share" in (tmp_path / "semi" / "seed_0_fold_0" / "run" / "log.csv").read_text()

    # As a user starts it, each fold in a process of its own.
    paper = ["paper", "--teacher", "default", "--new_network", "--jobs", 2, "--only", 0]
    paper = call_as_process("-m", "benchmarks.crossval", *options, *paper, *flags).stdout
    log = (tmp_path / "paper" / "seed_0_fold_0" / "train.log").read_text()
    assert "teacher default new network" in paper and "method      pseudo" in log


def test_networks_of_several_seeds_label_and_are_scored_together(phantom, tmp_path, monkeypatch):
    options = ["--data_root", phantom, "--folds", 2, "--alike", 0.9, "--out", tmp_path, "--only", 0]
    flags = ["--", *TINY, "--epoch", 1]
    used = []

    class Spy(Predictor):
        def __init__(self, *networks, **settings):
            used.append([network.parts[-4:-2] for network in networks])
            super().__init__(*networks, **settings)

    def crossval(*arguments):
        code, _, error = call_here("benchmarks.crossval.__main__", *arguments)
        assert code == 0, error
        return json.loads((tmp_path / arguments[0] / "result.json").read_text())

    singly = crossval("base", *options, "--seeds", 0, 1, *flags)
    monkeypatch.setattr(run, "Predictor", Spy)
    both = crossval("both", *options, "--trained_by", "base", "--ensemble", 0, 1)
    assert used == [[("base", "seed_0_fold_0"), ("base", "seed_1_fold_0")]]
    assert both["slices"]["0"].keys() == singly["slices"]["0"].keys()

    crossval("semi", *options, "--teacher", "base", "--ensemble", 0, 1, "--seeds", 1, *flags)
    made_by = json.loads((tmp_path / "semi" / "seed_1_fold_0" / "Pos-Mask" / "summary.json").read_text())
    networks = [tmp_path / "base" / f"seed_{seed}_fold_0" / "run" / "best.pth" for seed in (0, 1)]
    assert made_by["sha256"] == ", ".join(map(fingerprint, networks))


@pytest.mark.parametrize("flags", [["--teacher", "other"], ["--trained_by", "other"], ["--against", "other"]])
def test_settings_of_other_folds_are_refused(phantom, tmp_path, call, flags):
    """Their models have seen the slices that would be held out."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "setting.json").write_text(json.dumps({"folds": [["0.png"], ["1.png"], ["2.png"]]}))
    (tmp_path / "other" / "result.json").touch()
    options = ["--data_root", phantom, "--out", tmp_path, "--folds", 2, *flags]
    code, _, error = call("benchmarks.crossval.__main__", "new", *options)
    assert code == 2 and "other folds than these 2" in error
    assert not (tmp_path / "new").exists()  # the name is free for the corrected call


@pytest.mark.parametrize("kind", ["--teacher", "--trained_by"])
def test_models_that_are_still_being_trained_are_refused(phantom, tmp_path, call, kind):
    run = tmp_path / "out" / "default" / "seed_0_fold_0" / "run"
    assert call("supervised_train", "--data_root", phantom, *TINY, "--epoch", 1, "--save_folder", run)[0] == 0
    last = torch.load(run / "last.pth", weights_only=True)
    last["run"]["options"]["epoch"] = 2
    torch.save(last, run / "last.pth")
    options = ["--data_root", phantom, "--out", tmp_path / "out", "--folds", 2, "--only", 0, kind, "default"]
    code, _, error = call("benchmarks.crossval.__main__", "new", *options)
    assert code == 2 and f"{run}: training is not finished" in error and not (tmp_path / "out" / "new").exists()


@pytest.mark.parametrize(
    ("options", "flags", "named"),
    [
        (["--trained_by", "default"], ["--lr", 1], "leave --lr 1 out"),
        (["--trained_by", "default", "--teacher", "default"], [], "leave --teacher default out"),
        (["--label_flags=--no-tta"], [], "--teacher"),
        (["--new_network"], [], "--teacher"),
        (["--ensemble", 0, 1], [], "--ensemble"),
        (["--against", "defualt"], [], "--against defualt"),
        (["--folds", 3, "--only", 1, 3], [], "--only 3"),
        ([], ["--seed", 7], "--seed"),
        ([], ["--train_img_path=all"], "--train_img_path"),
        ([], ["--val_img_path", "all", "--val_msk_path", "all"], "--val_img_path"),
        ([], ["--resume", "last.pth"], "--resume"),
        (["--test_flags=--no-tta --test_img_path=all"], [], "--test_img_path=all does not apply"),
        (["--test_flags=--save_prob"], [], "--save_prob does not apply"),
        (["--test_flags=--threshold 'x"], [], "No closing quotation"),
        (["--label_flags=--Mask_dir=x", "--teacher", "default"], [], "--Mask_dir=x"),
        (["--teacher", "default", "--label_flags=--model_path best.pth"], [], "--model_path"),
        (["--teacher", "new"], [], "its own models"),
    ],
)
def test_conflicting_flags_are_refused(phantom, tmp_path, call, options, flags, named):
    options = ["--data_root", phantom, "--out", tmp_path, *options]
    code, _, error = call("benchmarks.crossval.__main__", "new", *options, "--", *flags)
    assert code == 2 and named in error and not any(tmp_path.iterdir())


def test_a_killed_worker_is_reported(tmp_path, monkeypatch):
    def broken(*_):
        raise BrokenProcessPool

    monkeypatch.setattr(run.ProcessPoolExecutor, "map", broken)
    with pytest.raises(InputError, match="fewer --jobs"):
        run.run_folds(setting(tmp_path, jobs=2), [(0, 0)])


def setting(out, **options):
    folders = dict.fromkeys(("train_img_path", "train_msk_path", "semi_img_path"), out)
    return Setting(name="new", out=out, pairs=[], flags=[], **{"parts": [], **folders, **options})


@pytest.mark.parametrize("name", ["..", "../new", "part/new"])
def test_a_name_stays_in_the_folder_of_settings(phantom, tmp_path, call, name):
    code, _, error = call(
        "benchmarks.crossval.__main__", name, "--data_root", phantom, "--folds", 2, "--out", tmp_path / "out"
    )
    assert code == 2 and "not a plain folder name" in error and not any(tmp_path.iterdir())


@pytest.mark.parametrize(("ending", "jobs"), [(signal.SIGTERM, 1), (signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_no_trainer_continues_alone(phantom, tmp_path, ending, jobs):
    """It would write to the folder of the next call."""
    command = [sys.executable, "-m", "benchmarks.crossval", "new", "--data_root", phantom, "--folds", 2, "--alike", 0.9]
    command = [str(part) for part in [*command, "--jobs", jobs, "--out", tmp_path, "--", *TINY, "--epoch", 1000]]
    script = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not (tmp_path / "new" / "seed_0_fold_0" / "run" / "log.csv").exists():
            assert script.poll() is None
            time.sleep(0.2)
        script.send_signal(ending)
        # With one job, the trainer itself is asked, and stops after its epoch.
        assert script.wait(60) in (130, 128 + ending) and script.stderr.read().startswith("stopped")
        with pytest.raises(ProcessLookupError):  # soon nobody is left in its group
            for _ in range(100):
                os.killpg(script.pid, 0)
                time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)


def test_the_seeds_are_compared_on_the_slices_of_all(tmp_path, capsys):
    (tmp_path / "new").mkdir()
    parts = [[(Path("a"), Path("a")), (Path("b"), Path("b"))], [(Path("c"), Path("c"))]]
    scores = {(0, 0): {"a": 0.2, "b": 0.4}, (0, 1): {"c": 0.9}, (1, 0): {"a": 0.4, "b": 0.6}}
    report(setting(tmp_path, parts=parts), "default", scores)
    assert "| 2 slices | 0.400 (sd over seeds 0.141) | 0.400 |" in capsys.readouterr().out


def test_networks_scored_together_compare_with_the_mean_of_each(tmp_path):
    for name, other in (("new", {}), ("base", {"0": {"a": 0.2, "b": 0.2}, "1": {"a": 0.6, "b": 0.6}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps({"slices": other}))
    parts = [[(Path("a"), Path("a")), (Path("b"), Path("b"))]]
    for options, difference in (({"trained_by": "base"}, 0.3), ({"teacher": "base"}, 0.5)):
        report(setting(tmp_path, parts=parts, ensemble=[0, 1], **options), "base", {(0, 0): {"a": 0.7, "b": 0.7}})
        result = json.loads((tmp_path / "new" / "result.json").read_text())
        assert result["difference"] == pytest.approx(difference)


def test_a_name_stands_for_one_setting(phantom, tmp_path, call):
    (tmp_path / "default" / "seed_0_fold_0").mkdir(parents=True)
    (tmp_path / "default" / "seed_0_fold_0" / "scores.csv").touch()
    (tmp_path / "default" / "setting.json").write_text(json.dumps({"flags": ["--lr", "0.1"]}))
    code, _, error = call(
        "benchmarks.crossval.__main__", "default", "--data_root", phantom, "--folds", 2, "--out", tmp_path
    )
    assert code == 2 and "was started with" in error and "another name" in error


def test_a_failed_fold_ends_the_run_and_leaves_the_name_free(phantom, tmp_path, call):
    options = ["new", "--data_root", phantom, "--folds", 2, "--out", tmp_path]
    for wrong in (["--epoch", 0], ["--lr", -1]):
        code, _, error = call("benchmarks.crossval.__main__", *options, "--", *wrong)
        assert code == 2 and wrong[0] in error and "see supervised_train.py --help" in error
    assert not (tmp_path / "new" / "seed_0_fold_1").exists()
