"""test.py on a model and on saved predictions: the same scores, tables, pictures, and clear words for bad input."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from helpers import ROOT, call_here, contents, refused, resave
from PIL import Image

from data.datasets import UnlabeledSlices
from data.folders import list_slices
from data.io.images import read_map
from data.preprocess.preprocessing import Preprocessing
from models import build_model
from utils.evaluation.metrics import evaluate
from utils.inference.maps import predict
from utils.output.pictures import ERROR_COLOURS, error_panel


@pytest.fixture(scope="module")
def checkpoint(phantom, tmp_path_factory):
    """A network of random weights that finds the brighter half of the pixels."""
    torch.manual_seed(0)
    model = build_model("cares_unet", base_channels=2).eval().requires_grad_(False)
    slices = UnlabeledSlices(list_slices(phantom / "Test-Image"), Preprocessing(image_size=64))
    logits = model(torch.stack([slices[index] for index in range(4)]))
    model.head.bias[1] += (logits[:, 0] - logits[:, 1]).median()
    path = tmp_path_factory.mktemp("checkpoint") / "model.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def data(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def results(phantom, checkpoint, tmp_path_factory):
    """The results of test.py for that network and the phantom's test slices; no test may change them."""
    folder = tmp_path_factory.mktemp("results") / "model"
    flags = ["--data_root", phantom, "--pretrained_model", checkpoint, "--image_size", 64, "--save_prob"]
    code, _, error = call_here("test", *flags, "--img_save_folder", folder)
    assert code == 0, error
    return folder


@pytest.fixture
def predicted(results, tmp_path):
    """The folder of masks and maps of a model on the phantom's test slices."""
    return shutil.copytree(results, tmp_path / "model")


def table(folder):
    return list(csv.DictReader((folder / "scores.csv").open()))


def score(call, data, out, *folders, flags=()):
    code, printed, error = call(
        "test", "--data_root", data, "--predictions", *folders, "--img_save_folder", out, *flags
    )
    assert code == 0, error
    return printed


def test_saved_maps_score_as_the_model_that_made_them(call, data, predicted, tmp_path):
    score(call, data, tmp_path / "scores", predicted / "prob")
    for row, saved in zip(table(predicted), table(tmp_path / "scores"), strict=True):
        del row["reliability"]  # of views, which saved maps have not
        assert saved | {"note": ""} == {"model": "prob", **row}
    score(call, data, tmp_path / "of_masks", predicted)
    for row, saved in zip(table(predicted), table(tmp_path / "of_masks"), strict=True):
        assert (saved["dice"], saved["hd95"]) == (row["dice"], row["hd95"]) and saved["tm_dice"] != row["tm_dice"]


def test_scores_are_those_of_the_files(call, data, predicted, tmp_path):
    score(call, data, tmp_path / "scores", predicted / "prob", flags=["--threshold", 0.51, "--empty", "zero"])
    for row in table(tmp_path / "scores"):
        soft = np.asarray(Image.open(predicted / "prob" / row["image"]))
        truth = np.asarray(Image.open(data / "Test-Mask" / row["image"])) > 0
        for name, value in evaluate(soft, truth, threshold=0.51, empty="zero").items():
            assert float(row[name]) == pytest.approx(value, nan_ok=True)
        assert float(row["lesion_share"]) == pytest.approx((soft > 130).mean())
        assert float(row["true_lesion_share"]) == pytest.approx(truth.mean())


def test_several_models_in_one_table(call, data, predicted, tmp_path):
    """Black masks beat none of the scores of perfect ones; both folders are called `masks`."""
    for name, change in (("black/masks", np.zeros_like), ("perfect/masks", np.copy)):
        shutil.copytree(data / "Test-Mask", tmp_path / name)
        for file in list_slices(tmp_path / name):
            resave(file, change)
    folders = [tmp_path / "black/masks", tmp_path / "perfect/masks", predicted / "prob"]
    flags = ["--table", "markdown", "--save_type", "overlay"]
    printed = score(call, data, tmp_path / "scores", *folders, flags=flags)
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert list(summary["models"]) == [*map(str, folders)]
    assert "p = " in printed and str(folders[1]) in printed
    perfect = summary["models"][str(folders[1])]["fixed 0.5"]
    assert perfect["dice"]["mean"] == 1 and perfect["hd95"]["mean"] == 0 and perfect["dice"]["images"] == 4
    pair = summary["comparisons"][0]
    assert pair["models"] == [*map(str, folders[:2])] and 0 < pair["difference"] <= 1
    assert len(table(tmp_path / "scores")) == 12
    assert (tmp_path / "scores" / "table.md").read_text().count("**1.000 (0.000)**") >= 4
    for picture in ("figures/dice.png", "figures/worst_and_best.png", "overlay/page_001.png"):
        assert np.asarray(Image.open(tmp_path / "scores" / picture).convert("L")).std() > 5


def test_soft_maps_of_16_bits_and_floats(call, data, predicted, tmp_path):
    changes = {"16": lambda soft: soft.astype(np.uint16) * 257, "float": lambda soft: soft / np.float32(255)}
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        for file in list_slices(predicted / "prob"):
            Image.fromarray(change(np.asarray(Image.open(file)))).save(tmp_path / name / f"{file.stem}.tif")
    score(call, data, tmp_path / "scores", tmp_path / "16", tmp_path / "float", predicted / "prob")
    mixed = shutil.copytree(tmp_path / "float", tmp_path / "mixed")
    file = list_slices(mixed)[-1]
    file.unlink()
    shutil.copy(predicted / "prob" / f"{file.stem}.png", mixed)
    flags = ["--data_root", data, "--predictions", mixed, "--img_save_folder", tmp_path / "no"]
    refused(call, "test", *flags, names=[mixed, "floats and of whole numbers"], kept=tmp_path)
    rows = table(tmp_path / "scores")
    for row in rows:
        del row["model"]
    assert rows[:4] == rows[4:8] == rows[8:]


def test_files_are_matched_by_name_whatever_their_order(call, tmp_path, monkeypatch):
    """1 and 01 are the same number: no order of the files may pair one's map with the other's truth."""
    random = np.random.default_rng(0)
    for folder in ("images", "truths", "maps", "lungs"):
        (tmp_path / folder).mkdir()
    for name in ("1", "01", "001", "2", "02"):
        mask = 255 * random.integers(0, 2, (20, 20)).astype(np.uint8)
        for folder, pixels in (("truths", mask), ("maps", mask), ("lungs", mask), ("images", 0 * mask)):
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    iterdir = type(tmp_path).iterdir
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda folder: random.permutation(list(iterdir(folder))))
    flags = ["--test_img_path", tmp_path / "images", "--test_msk_path", tmp_path / "truths"]
    flags += ["--lung_mask_path", tmp_path / "lungs", "--predictions", tmp_path / "maps"]
    code, _, error = call("test", *flags, "--img_save_folder", tmp_path / "scores")
    assert code == 0, error
    rows = table(tmp_path / "scores")
    assert [row["image"] for row in rows] == ["001.png", "01.png", "1.png", "02.png", "2.png"]
    assert {(row["dice"], row["share_of_lung"]) for row in rows} == {("1.0", "1.0")}


def test_what_is_read_is_not_deleted(call, data, predicted, tmp_path):
    """Neither the maps in the folder of results, nor a user's files beside ours."""
    flags = ["--data_root", data, "--predictions", predicted / "prob", "--img_save_folder", tmp_path / "scores"]
    assert call("test", *flags)[0] == 0
    maps = shutil.copytree(predicted / "prob", tmp_path / "scores" / "prob")
    flags = ["--data_root", data, "--predictions", maps, "--img_save_folder", tmp_path / "scores"]
    refused(call, "test", *flags, names=[tmp_path / "scores", "which is read"], kept=tmp_path)
    (tmp_path / "scores" / "figures" / "notes.txt").write_text("mine")
    flags = ["--data_root", data, "--predictions", predicted / "prob", "--img_save_folder", tmp_path / "scores"]
    assert call("test", *flags, "--table", "latex")[0] == 0
    assert (tmp_path / "scores" / "figures" / "notes.txt").read_text() == "mine"
    assert call("test", *flags)[0] == 0 and not (tmp_path / "scores" / "table.tex").exists()


def test_truth_and_lungs_in_the_folder_of_results_are_not_deleted(call, data, checkpoint, predicted, tmp_path):
    """As after correcting a model's masks by hand, in place."""
    flags = ["--data_root", data, "--pretrained_model", checkpoint, "--image_size", 64, "--img_save_folder", predicted]
    flags += ["--test_img_path", data / "Test-Image"]
    for flag in ("--test_msk_path", "--lung_mask_path"):
        refused(call, "test", *flags, flag, predicted, names=[predicted, "which is read"], kept=predicted)


def test_means_that_are_compared_are_of_the_same_images(call, data, predicted, tmp_path):
    """Two slices have no lesion; the second model leaves one of them clean, which --empty skip leaves out."""
    lesion = np.eye(64, dtype=np.uint8) * 255
    for folder in (data / "Test-Mask", tmp_path / "a", tmp_path / "b"):
        folder.mkdir(exist_ok=True)
        for index in range(4):
            clean = index < {"Test-Mask": 2, "a": 0, "b": 1}[folder.name]
            Image.fromarray(0 * lesion if clean else lesion).save(folder / f"phantom_{index:04}.png")
    flags = ["--empty", "skip", "--save_type", "compare"]
    printed = score(call, data, tmp_path / "scores", tmp_path / "a", tmp_path / "b", flags=flags)
    models = json.loads((tmp_path / "scores" / "summary.json").read_text())["models"]
    for name in ("a", "b"):
        found = models[name]["fixed 0.5"]
        assert found["dice"]["images"] == 3 and found["dice"]["mean"] == pytest.approx(2 / 3)
        assert found["sensitivity"]["images"] == 2 and found["specificity"]["images"] == 4
    assert "n=3" in printed and "n=2" in printed
    assert len(list((tmp_path / "scores" / "compare").glob("*.png"))) == 4


def test_models_are_named_by_the_differing_part_of_their_folders(call, data, tmp_path):
    for name in ("a/prob", "b/prob"):
        shutil.copytree(data / "Test-Mask", tmp_path / name)
    score(call, data, tmp_path / "scores", tmp_path / "a/prob", tmp_path / "b/prob")
    assert list(json.loads((tmp_path / "scores" / "summary.json").read_text())["models"]) == ["a", "b"]


def test_maps_of_another_size_are_resized_as_the_fields_tool_does(call, data, predicted, tmp_path):
    shutil.copytree(predicted / "prob", tmp_path / "small")
    for file in list_slices(tmp_path / "small"):
        Image.open(file).resize((40, 48), Image.Resampling.BICUBIC).save(file)
    printed = score(call, data, tmp_path / "scores", tmp_path / "small")
    assert "4 resized" in printed
    for row in table(tmp_path / "scores"):
        soft = np.asarray(Image.open(tmp_path / "small" / row["image"]).resize((64, 64), Image.Resampling.BICUBIC))
        truth = np.asarray(Image.open(data / "Test-Mask" / row["image"])) > 0
        assert float(row["tm_dice"]) == pytest.approx(evaluate(soft, truth)["tm_dice"])
    flags = ["--predictions", tmp_path / "small", "--no-resize", "--img_save_folder", tmp_path / "no"]
    names = ["small", "differs in size from its true mask", "40x48, the truth 64x64", "--no-resize"]
    refused(call, "test", "--data_root", data, *flags, names=names, kept=data)


def test_masks_stored_as_0_and_1_or_in_colour(call, data, tmp_path):
    stored = {
        "ones": lambda mask: mask // 255,
        "red": lambda mask: np.dstack([mask, 0 * mask, 0 * mask]),
        "rgb": lambda mask: np.dstack([mask] * 3),
        "gray": lambda mask: mask // 255 * 100,
        "16 bits": lambda mask: mask.astype(np.uint16) // 255 * 257,
        "alpha": lambda mask: np.dstack([np.full_like(mask, 200)] * 3 + [mask]),
        "black": lambda mask: np.dstack([0 * mask] * 3 + [mask]),
    }
    for name, change in stored.items():
        shutil.copytree(data / "Test-Mask", tmp_path / name)
        for file in list_slices(tmp_path / name):
            resave(file, change)
    printed = score(call, data, tmp_path / "scores", *(tmp_path / name for name in stored))
    assert printed.count("masks of 0 and 1 ") == 1 and printed.count("masks of 0 and 257 ") == 1
    assert printed.count("masks of 0 and 100 ") == 1 and printed.count("masks of 0 and 200 ") == 1
    assert {float(row["dice"]) for row in table(tmp_path / "scores")} == {1}


def test_burden_with_lung_masks(call, data, predicted, tmp_path):
    shutil.copytree(data / "Test-Mask", tmp_path / "lungs")
    halves = np.zeros((64, 64), np.uint8)
    halves[:, :20], halves[:, 44:] = 1, 2
    for file in list_slices(tmp_path / "lungs"):
        Image.fromarray(halves).save(file)
    Image.fromarray(0 * halves).save(tmp_path / "lungs" / "phantom_0000.png")
    flags = ["--lung_mask_path", tmp_path / "lungs"]
    printed = score(call, data, tmp_path / "scores", predicted, flags=flags)
    assert "lesion share of the lungs" in printed
    for row in table(tmp_path / "scores"):
        masks = {"": Image.open(predicted / row["image"]), "true_": Image.open(data / "Test-Mask" / row["image"])}
        for prefix, mask in masks.items():
            share = float(row[f"{prefix}share_of_lung"])
            inside = (np.asarray(mask) > 0)[halves > 0].mean()
            assert np.isnan(share) if row["image"] == "phantom_0000.png" else share == pytest.approx(inside)


def test_threshold_of_a_model(call, data, checkpoint, predicted, tmp_path):
    flags = ["--data_root", data, "--pretrained_model", checkpoint, "--image_size", 64, "--threshold", 0.51]
    assert call("test", *flags, "--img_save_folder", tmp_path / "higher")[0] == 0
    for file in list_slices(tmp_path / "higher"):
        soft = np.asarray(Image.open(predicted / "prob" / file.name))
        assert np.array_equal(np.asarray(Image.open(file)) == 255, soft > 130)
        assert np.array_equal(np.asarray(Image.open(predicted / file.name)) == 255, soft > 127)


def test_averaging_over_views_makes_predictions_rotate_with_the_slice(phantom, checkpoint, tmp_path):
    from utils.checkpoint import load_model

    model, _ = load_model(checkpoint)
    for turns in range(4):
        image = np.asarray(Image.open(phantom / "Test-Image" / "phantom_0001.png"))
        Image.fromarray(np.rot90(image, turns).copy()).save(tmp_path / f"{turns}.png")
        Image.fromarray(np.rot90(image, turns)[::-1].copy()).save(tmp_path / f"{turns}_flipped.png")
    slices = UnlabeledSlices(list_slices(tmp_path), Preprocessing(image_size=64))

    def turned_back(tta):
        maps = predict(model, slices, device=torch.device("cpu"), tta=tta)
        for path, (probabilities, _) in zip(slices.files, maps, strict=True):
            if path.stem.endswith("flipped"):
                probabilities = probabilities.flip(-2)
            yield probabilities.rot90(-int(path.stem[0]), (-2, -1))

    first, *others = turned_back(tta=True)
    assert all(torch.allclose(other, first, atol=1e-5) for other in others)
    plain = torch.stack(list(turned_back(tta=False)))
    assert (plain - plain[0]).abs().max() > 1e-3
    assert torch.allclose(plain.mean(dim=0), first, atol=1e-5)


def test_colours_of_right_and_wrong_pixels():
    prediction, truth = np.array([[True, True], [False, False]]), np.array([[True, False], [True, False]])
    expected = [
        [ERROR_COLOURS["true positive"], ERROR_COLOURS["false positive"]],
        [ERROR_COLOURS["false negative"], (0, 0, 0)],
    ]
    assert np.array_equal(error_panel(prediction, truth, "").image, expected)


def test_overlays_are_sorted_by_dice_or_name(call, data, predicted, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "utils.evaluation.figures.draw_sheet",
        lambda path, rows, *_, **__: drawn.update({path.name: [row[0].caption for row in rows]}),
    )
    dice = {row["image"]: float(row["dice"]) for row in table(predicted)}
    for order in ("name", "dice"):
        flags = ["--save_type", "overlay", "--sort", order]
        score(call, data, tmp_path / order, predicted / "prob", flags=flags)
        assert drawn["page_001.png"] == sorted(dice, key=dice.get if order == "dice" else None)
    ranked = sorted(dice, key=dice.get)
    assert drawn["worst_and_best.png"] == [f"{'worst' if i < 2 else 'best'}: {name}" for i, name in enumerate(ranked)]


def test_best_cases_have_a_lesion_to_show(call, data, tmp_path, monkeypatch):
    """Perfect predictions, except for the second slice; the last two have no lesion."""
    lesion = np.eye(64, dtype=np.uint8) * 255
    (tmp_path / "perfect").mkdir()
    for index in range(4):
        for folder in (data / "Test-Mask", tmp_path / "perfect"):
            clean = index > 1 or (index == 1 and folder.name == "perfect")
            Image.fromarray(0 * lesion if clean else lesion).save(folder / f"phantom_{index:04}.png")
    drawn = {}
    monkeypatch.setattr(
        "utils.evaluation.figures.draw_sheet",
        lambda path, rows, *_, **__: drawn.update({path.name: [row[0].caption for row in rows]}),
    )
    monkeypatch.setattr("utils.evaluation.figures.EXTREME_CASES", 1)
    score(call, data, tmp_path / "scores", tmp_path / "perfect")
    assert drawn["worst_and_best.png"] == ["worst: phantom_0001.png", "best: phantom_0000.png"]


def test_faults_in_predictions(call, data, predicted, tmp_path):
    maps = tmp_path / "maps"
    shutil.copytree(predicted / "prob", maps)
    flags = ["--data_root", data, "--predictions", maps, "--img_save_folder", tmp_path / "scores"]

    def refuses(*names):
        refused(call, "test", *flags, names=names, kept=tmp_path)
        assert not (tmp_path / "scores").exists()

    (maps / "phantom_0003.png").rename(maps / "other.png")
    refuses("no prediction", "phantom_0003.png", "no truth", "other.png")
    (maps / "other.png").rename(maps / "phantom_0003.png")
    for file in list_slices(maps)[:3]:
        resave(file, lambda soft: np.dstack([soft, soft // 2, 255 - soft]))
    refuses("maps", "colour picture", "phantom_0000.png, phantom_0001.png, phantom_0002.png", "overlays")
    for file in list_slices(maps):
        file.write_bytes((predicted / "prob" / file.name).read_bytes())
    resave(data / "Test-Mask/phantom_0001.png", lambda mask: np.arange(4096, dtype=np.uint8).reshape(64, 64))
    refuses("Test-Mask/phantom_0001.png", "not a mask of two classes (256 values)")
    shutil.rmtree(data / "Test-Mask")
    refuses("Test-Mask: no such folder")


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], ["--pretrained_model", "--predictions"]),
        (["--predictions", "maps", "./maps"], ["--predictions", "twice"]),
        (["--predictions", "maps", "--tta"], ["--tta", "--pretrained_model"]),
        (["--predictions", "maps", "--save_prob"], ["--save_prob", "--pretrained_model"]),
        (["--predictions", "maps", "--image_size", 64], ["--image_size", "--pretrained_model"]),
        (["--pretrained_model", "m.pth", "--no-resize"], ["--no-resize", "--predictions"]),
        (["--pretrained_model", "m.pth", "--image_size", 100000], ["--image_size", "at most 2048"]),
        (["--predictions", "maps", "--pretrained_model", "m.pth"], ["--pretrained_model", "--predictions"]),
        (["--pretrained_model", "m.pth", "--test_img_path", "x", "--table", "latex"], ["--table latex", "true masks"]),
        (["--pretrained_model", "m.pth", "--threshold", 1], ["--threshold", "at most"]),
        (["--pretrained_model", "m.pth", "--empty", "two"], ["--empty", "two"]),
    ],
)
def test_conflicting_flags(call, data, flags, names):
    refused(call, "test", "--data_root", data, *flags, names=names, kept=data)


def test_scores_do_not_replace_masks_nor_scores_of_other_slices(call, data, predicted, tmp_path):
    flags = ["--data_root", data, "--predictions", predicted / "prob"]
    refused(call, "test", *flags, "--img_save_folder", predicted, names=[predicted], kept=predicted)
    score(call, data, tmp_path / "scores", predicted / "prob")
    before = contents(tmp_path / "scores")
    shutil.copytree(data, tmp_path / "other")
    flags = ["--data_root", tmp_path / "other", "--predictions", predicted / "prob"]
    refused(call, "test", *flags, "--img_save_folder", tmp_path / "scores", names=[data / "Test-Mask"], kept=tmp_path)
    assert "replacing" in score(call, data, tmp_path / "scores", predicted / "prob")
    assert contents(tmp_path / "scores").keys() == before.keys()


def test_predictions_without_images(call, data, predicted, tmp_path):
    shutil.rmtree(data / "Test-Image")
    score(call, data, tmp_path / "scores", predicted / "prob", flags=["--save_type", "overlay"])
    assert (tmp_path / "scores" / "overlay" / "page_001.png").exists()


def test_soft_maps_that_are_nearly_black_are_not_taken_for_masks(call, data, tmp_path):
    """A gray level of 1 is a lesion only where no file of the folder has more."""
    shutil.copytree(data / "Test-Mask", tmp_path / "maps")
    resave(tmp_path / "maps" / "phantom_0000.png", lambda mask: np.ones_like(mask))
    score(call, data, tmp_path / "scores", tmp_path / "maps")
    assert float(table(tmp_path / "scores")[0]["lesion_share"]) == 0
    assert np.unique(read_map(tmp_path / "maps" / "phantom_0000.png")).tolist() == [1]


def test_predictions_on_several_scales_or_with_ignored_pixels_are_refused(call, data, tmp_path):
    flags = ["--data_root", data, "--out", tmp_path / "scores", "--predictions", tmp_path / "maps"]
    shutil.copytree(data / "Test-Mask", tmp_path / "maps")
    first = sorted((tmp_path / "maps").iterdir())[0]
    Image.fromarray((np.asarray(Image.open(first)) > 0).astype(np.uint8)).save(first)
    code, _, error = call("test", *flags)
    assert code == 2 and f"{first.name} of 0 and 1, the others up to 255" in error
    resave(first, lambda mask: np.where(np.indices(mask.shape)[0] < 3, 255, mask).astype(np.uint8))
    code, _, error = call("test", *flags)
    assert code == 2 and "has 0, 1 and 255, of which one means ignore" in error


def test_floats_on_another_scale(call, data, predicted, tmp_path):
    (tmp_path / "maps").mkdir()
    for path in (predicted / "prob").iterdir():
        percent = np.asarray(Image.open(path)).astype(np.float32) * np.float32(100 / 255)
        Image.fromarray(percent).save(tmp_path / "maps" / f"{path.stem}.tif")
    flags = ["--data_root", data, "--predictions", tmp_path / "maps", "--out"]
    code, _, error = call("test", *flags, tmp_path / "no")
    assert code == 2 and "--map_max" in error
    assert call("test", *flags, tmp_path / "scores", "--map_max", 100)[0] == 0
    for row, saved in zip(table(predicted), table(tmp_path / "scores"), strict=True):
        assert float(row["dice"]) == pytest.approx(float(saved["dice"]), abs=0.02)


def test_inverted_masks_are_told(call, data, predicted, tmp_path):
    for name, source in (("maps", predicted / "prob"), ("truth", data / "Test-Mask")):
        shutil.copytree(source, tmp_path / name)
        for path in (tmp_path / name).iterdir():
            resave(path, lambda pixels: 255 - pixels)
    for folder, truth, says in (
        (tmp_path / "maps", data / "Test-Mask", "in most predictions; are they inverted?"),
        (predicted / "prob", tmp_path / "truth", "in most true masks; are they inverted?"),
    ):
        code, printed, _ = call(
            "test", "--predictions", folder, "--masks", truth, "--out", tmp_path / folder.name / "s"
        )
        assert code == 0 and says in printed


def test_a_missing_package_is_named(call, data, predicted, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "py_sod_metrics", None)
    code, _, error = call(
        "test", "--data_root", data, "--predictions", predicted / "prob", "--img_save_folder", tmp_path / "scores"
    )
    assert code == 2 and "py_sod_metrics is missing" in error and "requirements.txt" in error
    listed = (ROOT / "requirements.txt").read_text()
    assert all(package in listed for package in ("pysodmetrics", "scipy"))
