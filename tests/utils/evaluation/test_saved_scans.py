"""Saved masks and maps of whole scans, scored by test.py --predictions."""

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import ROOT, refused

SMALL = ROOT / "weights" / "small.pth"


def rows(path):
    return list(csv.DictReader(path.open()))


def save(values, like, path):
    """Save voxels in the space of another volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, nibabel.load(like).affine), path)


@pytest.fixture(scope="module")
def truths(scans, tmp_path_factory) -> Path:
    """True masks alone, in their own orientations."""
    folder = tmp_path_factory.mktemp("truths")
    for path in sorted((scans / "COVID-19-20").glob("*_seg.nii.gz"))[:3]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def two_models(truths, tmp_path) -> list[Path]:
    """Folders of masks that lack a lesion voxel in three, and of maps that are right."""
    for path in sorted(truths.iterdir()):
        mask = np.asarray(nibabel.load(path).dataobj)
        some = mask.copy().ravel()
        some[np.flatnonzero(some)[::3]] = 0
        name = path.name.replace("_seg", "")
        save(some.reshape(mask.shape).astype(np.uint8), path, tmp_path / "masks" / name)
        save((0.2 + 0.5 * mask).astype(np.float32), path, tmp_path / "maps" / name)
    return [tmp_path / "masks", tmp_path / "maps"]


def test_they_score_as_when_they_were_predicted(call, scans, tmp_path):
    source = scans / "COVID-19-20"
    flags = ["--images", source, "--masks", source]
    code, _, error = call("test", "--model", SMALL, *flags, "--save_prob", "--out", tmp_path / "out")
    assert code == 0, error
    expected = rows(tmp_path / "out" / "scores.csv")
    for index, saved in enumerate((tmp_path / "out", tmp_path / "out" / "prob")):
        out = tmp_path / str(index)
        code, printed, error = call("test", "--predictions", saved, *flags, "--out", out)
        assert code == 0 and "5 scans" in printed, error
        for row, was in zip(rows(out / "scores.csv"), expected, strict=True):
            scores = {name: was[name] for name in was if name not in ("note", "reliability")}
            assert row == {"model": saved.name, **scores, "note": row["note"]}
        assert len(list((out / "figures").glob("*.png"))) == 5 and not list(out.glob("*.nii.gz"))


def test_models_are_compared_without_the_scans(call, truths, two_models, tmp_path):
    code, printed, error = call(
        "test", "--predictions", *two_models, "--masks", truths, "--out", tmp_path / "scores", "--data_root", tmp_path
    )
    assert code == 0, error
    assert "maps against masks: Dice +0.2" in printed and "Wilcoxon" in printed
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["scans"] == 3 and summary["models"]["maps"]["dice"]["mean"] == 1
    assert summary["models"]["masks"]["dice"]["mean"] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3), abs=0.01)
    table = rows(tmp_path / "scores" / "scores.csv")
    assert [row["model"] for row in table] == 3 * ["masks", "maps"]
    code, printed, _ = call(
        *("test", "--predictions", two_models[1], "--masks", truths, "--out", tmp_path / "all"),
        *("--data_root", tmp_path, "--threshold", 0.1),
    )
    assert code == 0 and float(rows(tmp_path / "all" / "scores.csv")[0]["sensitivity"]) == 1
    assert float(rows(tmp_path / "all" / "scores.csv")[0]["specificity"]) == 0


@pytest.mark.parametrize(
    "change, names",
    [
        (lambda values: values * 100, ["neither a mask nor a map", "--map_max"]),
        (lambda values: values * np.nan, ["NaN"]),
        (lambda values: values[:-1], ["differs in shape"]),
    ],
    ids=["percent", "nan", "shape"],
)
def test_other_values_are_refused(call, truths, two_models, tmp_path, change, names):
    path = next(two_models[1].iterdir())
    save(change(np.asarray(nibabel.load(path).dataobj)), path, path)
    flags = ["--predictions", two_models[1], "--masks", truths, "--data_root", tmp_path]
    code, _, error = call("test", *flags, "--out", tmp_path / "scores")
    assert code == 1 and all(name in error.splitlines()[0] for name in [path.name, *names])
    assert len(rows(tmp_path / "scores" / "scores.csv")) == 2
    path.unlink()
    names = [two_models[1], path.name.replace(".nii.gz", "_seg.nii.gz"), "no volume with the lesions"]
    refused(call, "test", *flags, "--out", tmp_path / "scores", names=names, kept=tmp_path)


def test_percent_with_their_scale(call, truths, two_models, tmp_path):
    for path in two_models[1].iterdir():
        save(np.asarray(nibabel.load(path).dataobj) * 100, path, path)
    flags = ["--predictions", two_models[1], "--masks", truths, "--data_root", tmp_path, "--map_max", 100]
    code, _, error = call("test", *flags, "--out", tmp_path / "scores")
    assert code == 0, error
    assert {float(row["dice"]) for row in rows(tmp_path / "scores" / "scores.csv")} == {1}


def test_flags_of_slices_are_refused(call, truths, two_models, tmp_path):
    flags = ["--predictions", two_models[1], "--masks", truths, "--data_root", tmp_path, "--out", tmp_path / "scores"]
    refused(call, "test", *flags, "--table", "latex", names=["--table"], kept=tmp_path)


def test_masks_beside_maps_of_another_scale(call, truths, two_models, tmp_path):
    """--map_max is for maps: masks of 0 and 1 stay masks."""
    masks, maps = two_models
    for path in maps.iterdir():
        save(np.asarray(nibabel.load(path).dataobj) * 255, path, path)
    flags = ["--predictions", masks, maps, "--masks", truths, "--data_root", tmp_path, "--map_max", 255]
    code, _, error = call("test", *flags, "--out", tmp_path / "scores")
    assert code == 0, error
    models = json.loads((tmp_path / "scores" / "summary.json").read_text())["models"]
    assert models["masks"]["dice"]["mean"] > 0.7 and models["maps"]["dice"]["mean"] == 1


def test_a_map_of_two_values_is_no_mask(call, truths, two_models, tmp_path):
    path = next(two_models[1].iterdir())
    faint = np.zeros(nibabel.load(path).shape, np.float32)
    faint[0, 0, 0] = 0.02
    save(faint, path, path)
    flags = ["--predictions", two_models[1], "--masks", truths, "--data_root", tmp_path]
    assert call("test", *flags, "--out", tmp_path / "scores")[0] == 0
    row = next(row for row in rows(tmp_path / "scores" / "scores.csv") if row["image"][:21] == path.name[:21])
    assert float(row["lesion_ml"]) == 0


def test_doubled_predictions_are_refused_and_pairs_of_files_are_one(call, truths, two_models, tmp_path):
    masks = two_models[0]
    path = next(masks.iterdir())
    shutil.copytree(truths, tmp_path / "pairs")
    truth = next((tmp_path / "pairs").iterdir())
    image = nibabel.load(truth)
    nibabel.save(nibabel.Nifti1Pair(np.asarray(image.dataobj), image.affine), tmp_path / "pairs" / truth.name[:-7])
    truth.unlink()
    flags = ["--predictions", masks, "--data_root", tmp_path, "--out", tmp_path / "scores", "--masks"]
    code, _, error = call("test", *flags, tmp_path / "pairs")
    assert code == 0 and len(rows(tmp_path / "scores" / "scores.csv")) == 3, error
    save(np.asarray(nibabel.load(path).dataobj), path, path.with_name(path.name.removesuffix(".gz")))
    refused(call, "test", *flags, truths, names=[masks, "two volumes for", path.name[:-7]], kept=tmp_path)
