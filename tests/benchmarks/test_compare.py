"""``benchmarks.compare``: every network trained, scored as test.py scores it, and not trained again."""

import csv
import json
import shutil

import numpy as np
import pytest
from helpers import call_here, refused
from PIL import Image

from benchmarks.compare.published import NETWORKS, TABLES
from models import MODELS

TINY = ["--models", "unet", "cares_unet", "--widths", "cares_unet=2", "unet=2", "--epoch", 2]
FLAGS = ["--", "--image_size", 32, "--device", "cpu", "--batchsize", 2]


def compare(*arguments):
    return call_here("benchmarks.compare.__main__", *arguments)


def test_the_tables_and_pictures(phantom, call, tmp_path):
    out = tmp_path / "out"
    options = ["--data_root", phantom, *TINY, "--sweep", "5e-3", "1e-3"]
    options += ["--sweep_epoch", 1, "--semi_epoch", 2, "--alike", 1]
    code, printed, error = compare(*options, "--table", 1, "--out", out, *FLAGS)
    assert code == 0, error
    names = ["cares_unet", "semi_cares_unet", "unet"]  # the paper has no semi-supervised UNet
    rows = list(csv.DictReader((out / "comparison" / "scores.csv").open()))
    assert [row["model"] for row in rows[::4]] == names  # 4 test slices each
    table = (out / "comparison" / "table.md").read_text()
    assert table.count("| cares_unet ") == 3 and "| 0.731 " in table and "| 0.639 " in table
    assert "unet has learned too little for a choice" in printed
    assert "on held-out slices after 1 epochs" in printed and "unet against cares_unet: Dice" in printed
    dice = {name: np.mean([float(row["dice"]) for row in rows if row["model"] == name]) for name in names}
    place = "1." if dice["cares_unet"] >= dice["unet"] else "2, behind unet."
    assert f"Of 2 supervised networks, cares_unet is number {place}" in table
    for picture in ("figures/dice.png", "figures/worst_and_best.png", "overlay/page_001.png"):
        assert (out / "comparison" / picture).exists()
    cost = json.loads((out / "cost.json").read_text())
    assert all(found["milliseconds"] > 0 and found["parameters"] > 1000 for found in cost.values())

    model = out / "unet" / "seed_0_fold_0" / "run" / "best.pth"
    code, _, error = call("test", "--data_root", phantom, "--model", model, "--device", "cpu", "--out", tmp_path / "t")
    assert code == 0, error
    theirs = {row["image"]: row for row in csv.DictReader((tmp_path / "t" / "scores.csv").open())}
    for row in [row for row in rows if row["model"] == "unet"]:
        assert float(row["dice"]) == pytest.approx(float(theirs[row["image"]]["dice"]))
        assert float(row["tm_dice"]) == pytest.approx(float(theirs[row["image"]]["tm_dice"]))

    assert not list(out.rglob("last.pth")) and len(list(out.rglob("best.pth"))) == 3  # none of the sweeps
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("best.pth")}
    assert compare(*options, "--table", 1, "--out", out, *FLAGS)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("best.pth")} == trained


def test_folds_and_seeds(phantom, tmp_path, monkeypatch):
    options = [
        "--data_root",
        phantom,
        "--models",
        "unet",
        "--widths",
        "unet=2",
        "--epoch",
        1,
        "--folds",
        2,
        "--seeds",
        2,
    ]
    drawn = []

    def draw(results, models, cases, **_):
        drawn.append({f"{model.name}: {row['image']}": row["dice"] for model in models for row in model.rows})

    monkeypatch.setattr("benchmarks.compare.results.draw_scores", draw)
    code, _, error = compare(*options, "--alike", 1, "--out", tmp_path / "out", *FLAGS)
    assert code == 0, error
    rows = list(csv.DictReader((tmp_path / "out" / "comparison" / "scores.csv").open()))
    assert len(rows) == 10 and len(list((tmp_path / "out").rglob("best.pth"))) == 4
    folder = tmp_path / "out" / "unet"
    of_seeds = [
        {row["image"]: float(row["dice"]) for fold in range(2) for row in scores_of(folder, seed, fold)}
        for seed in (0, 1)
    ]
    assert of_seeds[0] != of_seeds[1]
    of_slices = {name: (of_seeds[0][name] + of_seeds[1][name]) / 2 for name in of_seeds[0]}
    means = [sum(each.values()) / 10 for each in of_seeds]
    table = (tmp_path / "out" / "comparison" / "table.md").read_text()
    assert f"| {means[0]:.3f}, {means[1]:.3f} (sd " in table and "Of 1 supervised networks, unet is number 1." in table
    assert drawn == [{f"unet, seed 0: {name}": dice for name, dice in of_seeds[0].items()}]
    for row in rows:
        assert float(row["dice"]) == pytest.approx(of_slices[row["image"]])


def scores_of(folder, seed, fold):
    return csv.DictReader((folder / f"seed_{seed}_fold_{fold}" / "scores.csv").open())


def test_wrong_options(phantom, tmp_path):
    flags = ["--data_root", phantom, "--out", tmp_path / "out"]
    refused(call_here, "benchmarks.compare.__main__", *flags, "--widths", "unet", names=["unet"], kept=tmp_path)
    for flag in ("--lr", "--seed=7", "--save_folder"):
        given = [*flags, "--", flag, 1]
        refused(call_here, "benchmarks.compare.__main__", *given, names=[f"{flag}: is set for each"], kept=tmp_path)


def test_the_paper_has_no_network_that_is_missing_here():
    assert set(NETWORKS) <= set(MODELS)
    named = {name.removeprefix("semi_").removesuffix("_pseudo_first") for table in TABLES.values() for name in table}
    assert named <= set(MODELS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--models", "fcn", "--widths", "fcn=8", *FLAGS], "--widths fcn=8: fcn has one width"),
        (["--sweep", "5e-3", "x", *FLAGS], "--sweep x"),
        (["--models", "cares_unet", "unet", *FLAGS, "--block", "plain"], "--block plain: --model unet"),
        (["--models", "inf_net", *FLAGS, "--loss", "ce"], "--loss ce: --model inf_net"),
        (["--models", "unet", "--semi", *FLAGS], "Unlabeled"),
        (["--models", "inf_net", "--semi", "--epoch", 1, *FLAGS], "learns no labeled slice"),
    ],
)
def test_what_a_later_training_would_refuse_is_refused_at_once(phantom, tmp_path, options, named, monkeypatch):
    monkeypatch.setattr("benchmarks.compare.candidates.run_folds", None)
    data = tmp_path / "data"
    data.mkdir()
    for folder in ("Train-Image", "Train-Mask", "Test-Image", "Test-Mask"):
        (data / folder).symlink_to(phantom / folder)
    if named != "Unlabeled":
        (data / "Unlabeled").symlink_to(phantom / "Test-Image")
    arguments = ["--data_root", data, "--out", tmp_path / "out", *options]
    refused(call_here, "benchmarks.compare.__main__", *arguments, names=[named], kept=tmp_path)


def test_a_sweep_needs_slices_that_can_be_held_out(phantom, tmp_path):
    arguments = ["--data_root", phantom, "--out", tmp_path / "out", "--models", "unet", "--sweep", "5e-3", "1e-3"]
    named = ["--sweep: most training slices look alike", "--alike"]
    refused(call_here, "benchmarks.compare.__main__", *arguments, "--alike", 0, *FLAGS, names=named, kept=tmp_path)


def test_without_true_masks_folds_are_advised(phantom, tmp_path):
    for folder in ("Train-Image", "Train-Mask", "Test-Image"):
        (tmp_path / folder).symlink_to(phantom / folder)
    arguments = ["--data_root", tmp_path, "--out", tmp_path / "out", "--models", "unet", *FLAGS]
    refused(call_here, "benchmarks.compare.__main__", *arguments, names=["Test-Mask: no", "--folds"], kept=tmp_path)


def test_other_slices_of_the_same_names_are_no_old_results(phantom, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    arguments = ["--data_root", data, "--models", "unet", "--widths", "unet=2", "--epoch", 1, "--out", tmp_path / "out"]
    assert compare(*arguments, *FLAGS)[0] == 0
    mask = next((data / "Test-Mask").iterdir())
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
    code, _, error = compare(*arguments, *FLAGS)
    assert code == 2 and "was started with other contents of slices or masks" in error
