"""The four scripts from end to end."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import call_as_process, call_here
from PIL import Image

from data.folders import list_slices
from data.labels import IGNORED_GRAY
from data.sampling import HalfAndHalf
from models import build_model
from utils.training.state import Training

SMALL = ("--base_channels", 4, "--image_size", 48, "--epoch", 3)
VALIDATED = ("--val_fraction", 0.2)


def test_packages_are_imported_where_they_are_used():
    heavy = {"SimpleITK", "matplotlib", "py_sod_metrics", "scipy", "tensorboard", "torchvision"}
    scripts = "test, supervised_train, semi_supervised_train, fake_labels_generator"
    done = call_as_process("-c", f"import sys, {scripts}; print(*sys.modules)")
    loaded = set(done.stdout.split())
    assert "utils.training.loop" in loaded and not heavy & loaded


@pytest.fixture(scope="module")
def chain(phantom, tmp_path_factory):
    """The folder in which the four scripts have run, with their outputs."""
    root = tmp_path_factory.mktemp("chain")
    data, runs = root / "data", root / "runs"
    shutil.copytree(phantom, data)
    best = runs / "supervised" / "best.pth"
    trained, pictured = [*SMALL, *VALIDATED, "--save_folder"], ["--save_type", "compare", "--img_save_folder"]
    printed = {}
    for script, *flags in (
        ("supervised_train", *trained, runs / "supervised"),
        ("fake_labels_generator", "--model_path", best),
        ("semi_supervised_train", *trained, runs / "semi", "--pretrained_model", best, "--method", "pseudo"),
        ("test", *pictured, root / "out", "--pretrained_model", runs / "semi" / "best.pth"),
    ):
        code, printed[script], error = call_here(script, "--data_root", data, *flags)
        assert code == 0, error
    return root, printed


def test_training_says_what_it_found(chain):
    _, printed = chain
    supervised = printed["supervised_train"]
    assert "8 pairs from" in supervised and "2 pairs from" in supervised
    assert "of the pixels are lesion" in supervised
    parameters = sum(p.numel() for p in build_model("cares_unet", base_channels=4).parameters()) / 1e6
    assert re.search(rf"width 4, {parameters:.2f} M parameters, 48 px, on CPU .*, float32", supervised)
    assert "pseudo      8 pairs" in printed["semi_supervised_train"]


@pytest.mark.parametrize("run", ["supervised", "semi"])
def test_a_run_leaves_its_record(chain, run):
    folder = chain[0] / "runs" / run
    assert {"best.pth", "last.pth", "log.csv", "curves.png", "validation.png"} <= {f.name for f in folder.iterdir()}
    assert list(folder.glob("events.out.tfevents.*"))
    assert len(list(csv.DictReader((folder / "log.csv").open()))) == 3
    for picture in ("curves.png", "validation.png"):
        assert np.asarray(Image.open(folder / picture).convert("L")).std() > 5


def test_without_validation_a_run_shows_slices_it_learned(phantom, tmp_path, call):
    run = tmp_path / "run"
    code, out, _ = call("supervised_train", "--data_root", phantom, *SMALL, "--save_folder", run)
    assert code == 0 and "labeled     10 pairs" in out and "validation  none" in out
    assert torch.load(run / "best.pth", weights_only=True)["epoch"] == 3
    assert {"val_loss", "val_dice"}.isdisjoint(csv.DictReader((run / "log.csv").open()).fieldnames)
    assert not (run / "validation.png").exists()
    for picture in ("curves.png", "training.png"):
        assert np.asarray(Image.open(run / picture).convert("L")).std() > 5


def test_pseudo_labels(chain):
    data = chain[0] / "data"
    rows = list(csv.DictReader((data / "Pos-Mask" / "pseudo_labels.csv").open()))
    assert [row["image"] for row in rows] == [f.name for f in list_slices(data / "Unlabeled")]
    for row, file in zip(rows, list_slices(data / "Pos-Mask"), strict=True):
        mask = np.asarray(Image.open(file))
        assert mask.shape == (64, 64) and set(np.unique(mask)) <= {0, 255}
        assert float(row["lesion_share"]) == pytest.approx((mask == 255).mean())
        assert 0.5 <= float(row["mean_confidence"]) <= 1 and float(row["kept_share"]) == 1


def test_confidence_marks_pixels_to_ignore(chain, tmp_path, call):
    root, _ = chain
    arguments = ["--model_path", root / "runs" / "semi" / "best.pth", "--Image_dir", root / "data" / "Unlabeled"]
    code, _, _ = call("fake_labels_generator", *arguments, "--Mask-dir", tmp_path / "masks", "--confidence", 0.9)
    assert code == 0
    rows = list(csv.DictReader((tmp_path / "masks" / "pseudo_labels.csv").open()))
    shares = [float(row["kept_share"]) for row in rows]
    for share, file in zip(shares, list_slices(tmp_path / "masks"), strict=True):
        mask = np.asarray(Image.open(file))
        assert set(np.unique(mask)) <= {0, IGNORED_GRAY, 255}
        assert share == pytest.approx((mask != IGNORED_GRAY).mean())
    assert min(shares) < 1
    code, out, _ = call(
        "semi_supervised_train",
        *("--data_root", root / "data", "--semi_msk_path", tmp_path / "masks"),
        *("--base_channels", 2, "--image_size", 32, "--epoch", 1, "--save_folder", tmp_path / "run"),
    )
    assert code == 0 and "pseudo      8 pairs" in out


def test_the_teacher_method(chain, tmp_path, call):
    root, _ = chain
    start = ["--data_root", root / "data", "--pretrained_model", root / "runs" / "supervised" / "best.pth", *SMALL]
    code, out, _ = call("semi_supervised_train", *start, "--confidence", 0.6, "--save_folder", tmp_path / "whole")
    assert code == 0 and "pseudo      8 pairs" in out
    kept = [float(row["kept_share"]) for row in csv.DictReader((tmp_path / "whole" / "log.csv").open())]
    assert len(kept) == 3 and all(0 < share <= 1 for share in kept[:2])
    assert kept[2] == 0  # the finish on labeled slices


def test_the_teachers_labels_are_scored_where_the_truth_is_known(chain, tmp_path, call):
    data, best = chain[0] / "data", chain[0] / "runs" / "supervised" / "best.pth"
    start = ["--data_root", data, "--pretrained_model", best, *SMALL, "--semi_img_path", data / "Test-Image"]
    start += ["--semi_msk_path", data / "Test-Mask", "--semi_truth_path", data / "Test-Mask"]
    code, out, _ = call("semi_supervised_train", *start, "--save_folder", tmp_path / "run")
    dice = [float(row["label_dice"]) for row in csv.DictReader((tmp_path / "run" / "log.csv").open())]
    assert code == 0 and 0 < dice[0] < 1 and f"with Dice {dice[0]:.3f}" in out
    code, _, error = call("semi_supervised_train", *start, "--method", "pseudo", "--save_folder", tmp_path / "other")
    assert code == 2 and "--semi_truth_path" in error


@pytest.mark.parametrize(("flags", "favored"), [([], True), (["--recipe", "paper"], False)])
def test_slices_are_drawn_by_their_pseudo_labeled_lesions(chain, tmp_path, call, monkeypatch, flags, favored):
    data = chain[0] / "data"
    weights = []

    class Spy(HalfAndHalf):
        def __init__(self, labeled, pseudo_weights, batchsize, **options):
            weights.extend(pseudo_weights.tolist())
            super().__init__(labeled, pseudo_weights, batchsize, **options)

    monkeypatch.setattr("utils.training.methods.pseudo.HalfAndHalf", Spy)
    out = ["--epoch", 1, "--save_folder", tmp_path / "run"]
    assert call("semi_supervised_train", "--data_root", data, *SMALL, *flags, *out)[0] == 0
    areas = [
        (np.asarray(Image.open(file).resize((48, 48), Image.Resampling.NEAREST)) > 0).sum()
        for file in list_slices(data / "Pos-Mask")
    ]
    assert sum(areas) > 0
    assert weights == [1 + area if favored else 1 for area in areas]


def test_the_last_epochs_are_for_labeled_slices(chain, tmp_path, call, monkeypatch):
    shares, step = [], Training.step

    def spy(training, images, masks, labeled, *more):
        shares.append(labeled.mean().item())
        return step(training, images, masks, labeled, *more)

    monkeypatch.setattr(Training, "step", spy)
    flags = ["--epoch", 4, "--labeled_finish", 0.25, "--save_folder", tmp_path / "run"]
    assert call("semi_supervised_train", "--data_root", chain[0] / "data", *SMALL, *flags)[0] == 0
    assert shares == 3 * len(shares) // 4 * [0.5] + len(shares) // 4 * [1.0]


@pytest.mark.parametrize(("flags", "warned"), [([], False), (["--seed", 1], True)])
def test_validation_slices_that_the_start_was_trained_on(chain, tmp_path, call, flags, warned):
    start = ["--pretrained_model", chain[0] / "runs" / "supervised" / "best.pth", "--save_folder", tmp_path / "run"]
    code, out, _ = call("supervised_train", "--data_root", chain[0] / "data", *SMALL, *VALIDATED, *start, *flags)
    assert code == 0 and ("may have been trained on validation slices" in out) == warned


def test_scored_pseudo_labels(chain, tmp_path, call):
    """Their Dice is that of test.py on the same masks."""
    root, _ = chain
    best = root / "runs" / "supervised" / "best.pth"
    data = ["--truth_path", root / "data" / "Test-Mask", "--Image_dir", root / "data" / "Test-Image"]
    code, out, _ = call("fake_labels_generator", "--model_path", best, *data, "--Mask-dir", tmp_path / "masks")
    assert code == 0
    rows = {row["image"]: row for row in csv.DictReader((tmp_path / "masks" / "pseudo_labels.csv").open())}
    call(
        "test",
        *("--data_root", root / "data", "--predictions", tmp_path / "masks", "--img_save_folder", tmp_path / "out"),
    )
    for scored in csv.DictReader((tmp_path / "out" / "scores.csv").open()):
        row = rows[scored["image"]]
        assert float(row["dice"]) == pytest.approx(float(scored["dice"])) and row["dice"] == row["kept_dice"]
    assert "Dice        " in out


def test_masks_and_tables_of_test(chain):
    root, printed = chain
    out = root / "out"
    rows = list(csv.DictReader((out / "scores.csv").open()))
    summary = json.loads((out / "summary.json").read_text())
    assert len(rows) == summary["images"] == 4 and summary["tta"]
    for row, truth_file in zip(rows, list_slices(root / "data" / "Test-Mask"), strict=True):
        mask, truth = (np.asarray(Image.open(f)) == 255 for f in (out / truth_file.name, truth_file))
        assert mask.shape == truth.shape
        both = mask.sum() + truth.sum()
        assert float(row["dice"]) == pytest.approx(2 * (mask & truth).sum() / both if both else 1)
    dice = [float(row["dice"]) for row in rows]
    found = summary["models"]["out"]["fixed 0.5"]["dice"]
    assert found["mean"] == pytest.approx(np.mean(dice)) and found["std"] == pytest.approx(np.std(dice))
    assert f"{np.mean(dice):.3f} ({np.std(dice):.3f})" in printed["test"]
    assert len(list((out / "compare").glob("*.png"))) == 4


def test_masks_are_the_likelier_class(phantom, tmp_path, call):
    torch.manual_seed(0)
    model = build_model("cares_unet", base_channels=2).eval().requires_grad_(False)
    logits = model(torch.rand(1, 1, 64, 64))[0]
    model.head.bias[1] += (logits[0] - logits[1]).median()  # so that both classes are found
    torch.save(model.state_dict(), tmp_path / "model.pth")
    flags = ["--image_size", 64, "--data_root", phantom]
    call("test", "--pretrained_model", tmp_path / "model.pth", "--img_save_folder", tmp_path / "test", *flags)
    call("fake_labels_generator", "--model_path", tmp_path / "model.pth", "--Mask-dir", tmp_path / "fake", *flags)
    for images, masks in (("Test-Image", "test"), ("Unlabeled", "fake")):
        for file in list_slices(phantom / images):
            image = torch.from_numpy(np.array(Image.open(file)))[None, None] / 255
            lesion = model(image)[0].argmax(dim=0) == 1
            mask = np.asarray(Image.open(tmp_path / masks / file.name)) == 255
            assert 0 < mask.mean() < 1 and (mask == lesion.numpy()).mean() > 0.999


def test_masks_of_slices_of_any_size_without_truth(chain, tmp_path, call):
    images = tmp_path / "images"
    images.mkdir()
    for stem, size in {"a": (50, 40), "b": (33, 71)}.items():
        Image.fromarray(np.random.default_rng(0).integers(0, 256, size, np.uint8)).save(images / f"{stem}.jpg")
    checkpoint = chain[0] / "runs" / "semi" / "best.pth"
    code, out, _ = call(
        "test", "--pretrained_model", checkpoint, "--test_img_path", images, "--img_save_folder", tmp_path / "out"
    )
    assert code == 0 and "no truth was given" in out
    assert Image.open(tmp_path / "out" / "a.png").size == (40, 50)
    assert Image.open(tmp_path / "out" / "b.png").size == (71, 33)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["models"]["out"]) == ["burden"] and summary["images"] == 2


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A checkpoint in the form of the released one, at a width of 2."""
    renames = {"bottleneck.": "decoder5.", "decoder4.": "decoder6.", "decoder3.": "decoder7.", "decoder2.": "decoder8."}
    renames |= {"decoder1.": "conv.", "head.": "classfier."}
    torch.manual_seed(0)
    weights = {}
    for key, value in build_model("cares_unet", base_channels=2).state_dict().items():
        for ours, theirs in renames.items():
            if key.startswith(ours):
                key = theirs + key.removeprefix(ours)
                break
        if key.startswith("up"):
            key = f"up{5 - int(key[2])}{key[3:]}".replace(".compressor.", ".down.")
        elif key.startswith("down"):
            key = key.replace(".conv.", ".0.", 1) if key[5:11] == ".conv." else key.replace(".residual.", ".1.")
        else:
            key = key.replace(".residual.", ".resnet.")
            key = key.replace(".conv.", ".bconv.", 1) if ".resnet." not in key and ".bn" not in key[-3:] else key
        for ours, theirs in ((".conv1.conv.", ".inc.0."), (".conv1.bn.", ".inc.1."), (".conv2.", ".inc.3.")):
            key = key.replace(ours, theirs)
        weights[key.replace(".bn2.", ".inc.4.")] = value
    path = tmp_path_factory.mktemp("released") / "CARes-UNet.pth"
    torch.save(weights, path)
    return path


def test_released_checkpoint_is_taken_as_it_is(released, phantom, tmp_path, call):
    code, _, error = call(
        "test", "--data_root", phantom, "--pretrained_model", released, "--img_save_folder", tmp_path / "test"
    )
    assert code == 0, error
    assert json.loads((tmp_path / "test" / "summary.json").read_text())["image_size"] == 256
    code, _, error = call(
        "fake_labels_generator",
        *("--model_path", released, "--Image_dir", phantom / "Unlabeled", "--Mask-dir", tmp_path / "pseudo"),
    )
    assert code == 0, error
    assert len(list_slices(tmp_path / "pseudo")) == 8
