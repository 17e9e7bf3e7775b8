"""Errors of the user: one line that names the file or flag, exit code 2, and nothing overwritten or lost."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, TINY, call_here, contents, refused, resave

from data.folders import list_slices
from models import build_model
from utils.output.folder import ResultFolder


@pytest.fixture
def data(phantom, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(phantom, folder)
    shutil.copytree(folder / "Train-Mask", folder / "Pos-Mask")
    for extra in ("phantom_0008.png", "phantom_0009.png"):
        (folder / "Pos-Mask" / extra).unlink()
    return folder


@pytest.fixture(scope="module")
def trained(phantom, tmp_path_factory):
    """The folder of a finished run of supervised_train.py."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = ["--data_root", phantom, *TINY, "--val_fraction", 0.2, "--save_folder", folder]
    code, _, error = call_here("supervised_train", *flags)
    assert code == 0, error
    return folder


def writing_to(out, script, trained):
    """The flags with which a script writes its results to ``out``."""
    return {
        "supervised_train": [*TINY, "--save_folder", out],
        "fake_labels_generator": ["--model_path", trained / "best.pth", "--Mask-dir", out],
        "test": ["--pretrained_model", trained / "best.pth", "--img_save_folder", out],
    }[script]


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


TRAINING_DATA_FAULTS = {
    "missing folder": (lambda d: shutil.rmtree(d / "Train-Image"), ["Train-Image: no such folder"]),
    "empty folder": (lambda d: empty(d / "Train-Mask"), ["Train-Mask: no image"]),
    "image without mask": (lambda d: (d / "Train-Mask/phantom_0003.png").unlink(), ["no mask", "phantom_0003.png"]),
    "mask without image": (lambda d: (d / "Train-Image/phantom_0003.png").unlink(), ["no image", "phantom_0003.png"]),
    "two masks of one stem": (
        lambda d: shutil.copy(d / "Train-Mask/phantom_0003.png", d / "Train-Mask/phantom_0003.bmp"),
        ["Train-Mask: two files with the same stem", "phantom_0003.bmp", "phantom_0003.png"],
    ),
    "truncated image": (lambda d: truncate(d / "Train-Image/phantom_0003.png"), ["Train-Image/phantom_0003.png"]),
    "truncated mask": (lambda d: truncate(d / "Train-Mask/phantom_0003.png"), ["Train-Mask/phantom_0003.png"]),
    "text file": (lambda d: (d / "Train-Image/phantom_0003.png").write_text("text"), ["Train-Image/phantom_0003.png"]),
    "mask of another size": (
        lambda d: resave(d / "Train-Mask/phantom_0003.png", lambda mask: mask[:-4]),
        ["Train-Mask/phantom_0003.png", "64x60", "64x64"],
    ),
    "mask of many values": (
        lambda d: resave(
            d / "Train-Mask/phantom_0003.png", lambda mask: np.arange(4096, dtype=np.uint8).reshape(64, 64)
        ),
        ["Train-Mask/phantom_0003.png", "256 values"],
    ),
}


@pytest.mark.parametrize("fault", TRAINING_DATA_FAULTS)
def test_faults_in_the_labeled_slices(call, data, tmp_path, fault):
    spoil, names = TRAINING_DATA_FAULTS[fault]
    spoil(data)
    flags = ["--data_root", data, *TINY, "--save_folder", tmp_path / "run"]
    refused(call, "supervised_train", *flags, names=names, kept=tmp_path)
    refused(call, "semi_supervised_train", *flags, names=names, kept=tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "folder"),
    [
        ("semi_supervised_train", "Pos-Mask"),
        ("semi_supervised_train", "Unlabeled"),
        ("fake_labels_generator", "Unlabeled"),
        ("test", "Test-Image"),
    ],
)
def test_missing_folders(call, data, trained, tmp_path, script, folder):
    shutil.rmtree(data / folder)
    flags = {
        "semi_supervised_train": [*TINY, "--save_folder", tmp_path / "run"],
        "fake_labels_generator": ["--model_path", trained / "best.pth"],
        "test": ["--pretrained_model", trained / "best.pth", "--img_save_folder", tmp_path / "run"],
    }[script]
    refused(call, script, "--data_root", data, *flags, names=[data / folder, "no such folder"], kept=tmp_path)


def test_faults_in_the_test_slices_stop_before_the_first_mask(call, data, trained, tmp_path):
    flags = ["--data_root", data, "--pretrained_model", trained / "best.pth", "--img_save_folder", tmp_path / "out"]
    truncate(data / "Test-Image/phantom_0003.png")
    refused(call, "test", *flags, names=["Test-Image/phantom_0003.png"], kept=tmp_path)
    (data / "Test-Mask/phantom_0003.png").unlink()
    refused(call, "test", *flags, names=["no mask", "phantom_0003.png"], kept=tmp_path)
    truncate(data / "Unlabeled/phantom_0005.png")
    flags = ["--data_root", data, "--model_path", trained / "best.pth"]
    refused(call, "fake_labels_generator", *flags, names=["Unlabeled/phantom_0005.png"], kept=tmp_path)


class Payload:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


def spoilt_checkpoint(kind, trained, folder):
    path = folder / f"{kind}.pth"
    if kind == "foreign":
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    elif kind == "truncated":
        shutil.copy(trained / "last.pth", path)
        truncate(path)
    elif kind == "page of the web":
        path.write_text("<!DOCTYPE html>")
    elif kind == "pickled code":
        torch.save({"weights": Payload(folder / "victim")}, path)
    return path


@pytest.mark.parametrize("kind", ["missing", "foreign", "truncated", "pickled code", "page of the web"])
@pytest.mark.parametrize(
    ("script", "flag"),
    [
        ("test", "--pretrained_model"),
        ("fake_labels_generator", "--model_path"),
        ("supervised_train", "--pretrained_model"),
        ("supervised_train", "--resume"),
    ],
)
def test_unusable_checkpoints(call, data, trained, tmp_path, script, flag, kind):
    path = spoilt_checkpoint(kind, trained, tmp_path)
    says = {"missing": "can't be opened", "truncated": "damaged", "pickled code": "never run", "foreign": "not a "}
    refused(
        call,
        script,
        "--data_root",
        data,
        flag,
        path,
        names=[f"{path}: ", says.get(kind, "is a web page")],
        kept=tmp_path,
    )
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(("flag", "file"), [("--pretrained_model", "best.pth"), ("--resume", "last.pth")])
def test_width_that_disagrees_with_the_checkpoint(call, data, trained, flag, file):
    arguments = ["--data_root", data, flag, trained / file, "--base_channels", 8, "--epoch", 2]
    refused(call, "supervised_train", *arguments, names=["--base_channels 8", trained / file, "2"], kept=trained)


def test_resume_keeps_to_its_run(call, data, trained, tmp_path):
    last = shutil.copytree(trained, tmp_path / "run") / "last.pth"
    flags = ["--resume", last, "--data_root", data, "--epoch", 2]
    faults = {
        "--pretrained_model": (trained / "best.pth", ["--resume and --pretrained_model"]),
        "--recipe": ("cpu", ["--recipe cpu"]),
        "--optimizer_type": ("adam", ["--optimizer_type adam", "ranger"]),
        "--save_folder": (trained, ["--save_folder", trained]),
        "--seed": (1, ["slices differ", "training: ", "validation: "]),
    }
    for flag, (value, names) in faults.items():
        refused(call, "supervised_train", *flags, flag, value, names=names, kept=trained)
    for name in ("log.csv", "curves.png"):
        (tmp_path / "run" / name).unlink()
    assert call("supervised_train", *flags)[0] == 0
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2


def test_a_finished_run_needs_more_epochs_to_continue(call, trained):
    refused(call, "supervised_train", "--resume", trained / "last.pth", names=["--epoch", "1 epochs"], kept=trained)


def test_resume_needs_the_last_checkpoint_of_the_same_script(call, data, trained):
    refused(call, "supervised_train", "--resume", trained / "best.pth", names=["best.pth", "last.pth"], kept=trained)
    refused(
        call,
        "semi_supervised_train",
        "--resume",
        trained / "last.pth",
        names=["semi_supervised_train.py"],
        kept=trained,
    )


@pytest.mark.parametrize(
    ("script", "flags", "names"),
    [
        ("supervised_train", ["--batchsize", 0], ["--batchsize", "at least 1"]),
        ("supervised_train", ["--batchsize", "four"], ["--batchsize", "'four'"]),
        ("supervised_train", ["--batchsize", 11], ["--batchsize 11", "fewer"]),
        ("semi_supervised_train", ["--batchsize", 3], ["--batchsize 3", "even"]),
        (
            "semi_supervised_train",
            ["--method", "teacher", "--no-data_augmentation"],
            ["--method teacher", "--no-data_augmentation"],
        ),
        ("semi_supervised_train", ["--confidence", 1.5], ["--confidence", "at most 1"]),
        ("semi_supervised_train", ["--confidence", 0.9], ["--confidence 0.9", "fake_labels_generator.py"]),
        ("supervised_train", ["--accumulate", 3], ["--accumulate 3", "does not divide"]),
        (
            "supervised_train",
            ["--batchsize", 2, "--accumulate", 2, "--image_size", 16],
            ["--accumulate 2", "one value"],
        ),
        ("supervised_train", ["--loss", "ce", "--dice_over", "batch"], ["--dice_over batch", "--loss ce"]),
        ("supervised_train", ["--amp", "fp16", "--device", "cpu"], ["--amp fp16", "needs a CUDA GPU"]),
        ("semi_supervised_train", ["--batchsize", 22], ["--batchsize 22", "fewer"]),
        ("supervised_train", ["--lr", 0], ["--lr", "above 0"]),
        ("supervised_train", ["--val_fraction", 1], ["--val_fraction", "at most 0.9"]),
        ("supervised_train", ["--val_img_path", "x"], ["--val_img_path", "--val_msk_path"]),
        ("supervised_train", ["--device", "cuda:77"], ["--device cuda:77"]),
        ("supervised_train", ["--loss", "ce", "--dice_over", "batch"], ["--dice_over batch", "--loss ce"]),
        ("supervised_train", ["--amp", "fp16", "--device", "cpu"], ["--amp fp16"]),
        ("supervised_train", ["--epochs", 3], ["--epochs"]),
        ("supervised_train", ["--seed", 2**64], ["--seed", "at most"]),
        ("supervised_train", ["--device", "meta"], ["--device meta"]),
        pytest.param(
            *("supervised_train", ["--device", "mps"], ["--device mps: PyTorch finds no Apple GPU"]),
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has one"),
        ),
        ("supervised_train", ["--batchsize", 1, "--image_size", 16], ["--batchsize 1", "--image_size"]),
    ],
)
def test_wrong_flags(call, data, tmp_path, script, flags, names):
    arguments = ["--data_root", data, *TINY, "--save_folder", tmp_path / "run", *flags]
    refused(call, script, *arguments, names=names, kept=tmp_path)


@pytest.mark.parametrize("script", ["supervised_train", "fake_labels_generator", "test"])
def test_unwritable_output_folder(call, data, trained, tmp_path, script):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    flags = writing_to(out, script, trained)
    refused(call, script, "--data_root", data, *flags, names=[out, "can't write"], kept=tmp_path)


def test_a_finished_run_is_not_overwritten(call, data, trained):
    (data / "Train-Image/phantom_0003.png").write_text("not an image")  # found later, after minutes of reading
    arguments = ["--data_root", data, *TINY, "--save_folder", trained]
    refused(call, "supervised_train", *arguments, names=["--resume", trained / "last.pth"], kept=trained)


def test_a_split_that_leaves_nothing_to_train_on(call, data, tmp_path):
    for folder in ("Train-Image", "Train-Mask"):
        for file in list_slices(data / folder)[1:]:
            file.unlink()
    flags = ["--data_root", data, *TINY, "--batchsize", 1, "--val_fraction", 0.2, "--save_folder", tmp_path / "run"]
    refused(call, "supervised_train", *flags, names=["--val_fraction 0.2", "none of the 1 slices"], kept=tmp_path)


@pytest.mark.parametrize("present", ["notes.txt", "best.pth", "figures/plot.png"])
@pytest.mark.parametrize("script", ["supervised_train", "fake_labels_generator", "test"])
def test_files_of_the_user_are_not_touched(call, data, trained, tmp_path, script, present):
    out = tmp_path / "out"
    (out / present).parent.mkdir(parents=True)
    (out / present).write_text("mine")
    flags = writing_to(out, script, trained)
    refused(call, script, "--data_root", data, *flags, names=[out, "name another folder"], kept=tmp_path)


def test_an_aborted_start_can_be_repeated(call, data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").touch()
    (tmp_path / "run" / "events.out.tfevents.1").write_bytes(b"events")
    assert call("supervised_train", "--data_root", data, *TINY, "--save_folder", tmp_path / "run")[0] == 0


@pytest.mark.parametrize("folder", ["Test-Image", "Test-Mask", "Train-Mask"])
def test_masks_are_not_written_over_the_inputs(call, data, trained, tmp_path, folder):
    flags = ["--data_root", data, "--pretrained_model", trained / "best.pth", "--img_save_folder", data / folder]
    refused(call, "test", *flags, names=[data / folder, "name another folder"], kept=tmp_path)
    flags = ["--data_root", data, "--model_path", trained / "best.pth", "--Mask-dir", data / folder]
    refused(call, "fake_labels_generator", *flags, names=[data / folder, "name another folder"], kept=tmp_path)


@pytest.fixture(params=["test", "fake_labels_generator"])
def label(request, call, trained, tmp_path):
    """``label(images)`` -> (arguments of ``call``, the folder of masks), for both scripts that write masks."""
    model, images, out = {
        "test": ("--pretrained_model", "--test_img_path", "--img_save_folder"),
        "fake_labels_generator": ("--model_path", "--Image_dir", "--Mask-dir"),
    }[request.param]
    folder = tmp_path / "out"

    def arguments(slices):
        return [request.param, model, trained / "best.pth", images, slices, out, folder]

    return arguments, folder


def test_masks_of_an_earlier_run_on_the_same_slices_are_replaced(call, data, label):
    arguments, folder = label
    assert call(*arguments(data / "Test-Image"))[0] == 0
    made = contents(folder)
    (folder / "phantom_0002.png").write_bytes(b"spoilt")
    code, out, _ = call(*arguments(data / "Test-Image"))
    assert code == 0 and "replacing" in out
    assert contents(folder) == made


def test_results_know_their_slices_after_a_move(call, data, label, tmp_path):
    arguments, folder = label
    assert call(*arguments(data / "Test-Image"))[0] == 0
    moved = tmp_path / "moved"
    moved.mkdir()
    data.rename(moved / "data")
    folder.rename(moved / "out")
    assert call(*arguments(moved / "data" / "Test-Image")[:-1], moved / "out")[0] == 0


def test_a_summary_that_is_none_of_ours(call, data, label):
    arguments, folder = label
    assert call(*arguments(data / "Test-Image"))[0] == 0
    (folder / "summary.json").write_text("[]")
    refused(call, *arguments(data / "Test-Image"), names=[folder, "did not write"], kept=folder)


def test_masks_of_other_slices_are_not_replaced(call, data, label):
    arguments, folder = label
    assert call(*arguments(data / "Test-Image"))[0] == 0
    refused(call, *arguments(data / "Unlabeled"), names=[folder, data / "Test-Image"], kept=folder)
    (data / "Test-Image/phantom_0003.png").unlink()
    refused(call, *arguments(data / "Test-Image"), names=["phantom_0003.png", "no results of this input"], kept=folder)


def test_an_interrupted_run_leaves_no_mixture(call, data, label, monkeypatch):
    arguments, folder = label
    assert call(*arguments(data / "Test-Image"))[0] == 0
    save_image = ResultFolder.save_image

    def stop_at_the_third(results, *arguments):
        if len(results.rows) == 2:
            raise KeyboardInterrupt
        save_image(results, *arguments)

    monkeypatch.setattr(ResultFolder, "save_image", stop_at_the_third)
    assert call(*arguments(data / "Test-Image"))[0] == 130
    assert [f.name for f in list_slices(folder)] == ["phantom_0000.png", "phantom_0001.png"]
    monkeypatch.undo()
    assert call(*arguments(data / "Test-Image"))[0] == 0
    assert len(list_slices(folder)) == 4


def test_a_blind_model_is_reported(call, data, tmp_path):
    model = build_model("cares_unet", base_channels=2)
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([9.0, -9.0])
    torch.save(model.state_dict(), tmp_path / "blind.pth")
    _, out, _ = call(
        "fake_labels_generator",
        *("--model_path", tmp_path / "blind.pth", "--image_size", 32),
        *("--Image_dir", data / "Unlabeled", "--Mask-dir", tmp_path / "masks"),
    )
    assert "WARNING: no mask has a lesion" in out
    validation = ["--val_img_path", data / "Test-Image", "--val_msk_path", data / "Test-Mask"]
    for mask in (data / "Test-Mask").iterdir():  # so that no slice scores 1 for being left clean
        resave(mask, lambda truth: np.maximum(truth, 255 * np.eye(64, dtype=np.uint8)))
    flags = ["--data_root", data, *TINY, "--lr", 1e-12, "--pretrained_model", tmp_path / "blind.pth"]
    _, out, _ = call("supervised_train", *flags, *validation, "--save_folder", tmp_path / "run")
    assert "WARNING: no lesion was found" in out


def test_a_longer_resumed_run_reports_its_schedule(call, data, tmp_path):
    flags = ["--data_root", data, *TINY, "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *flags)[0] == 0
    _, out, _ = call("supervised_train", "--resume", tmp_path / "run/last.pth", "--epoch", 2)
    assert "2 epochs instead of 1" in out


def test_a_closed_output_pipe(data, tmp_path):
    reader, output = os.pipe()
    os.close(reader)
    command = ("supervised_train.py", "--data_root", data, *TINY, "--save_folder", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True
    )
    os.close(output)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "stopped: the output pipe was closed, as by | head"
