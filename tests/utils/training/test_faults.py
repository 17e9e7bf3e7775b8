"""Runs that are stopped, killed, started twice, or meet a full disk: nothing is lost, and a line says what to do."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT, refused

from data.errors import InputError
from utils import checkpoint
from utils.training.log import read_log

TINY = ("--base_channels", 2, "--image_size", 32, "--batchsize", 2)


def start(phantom, folder, epochs=200, *flags):
    command = [sys.executable, "supervised_train.py", "--data_root", phantom, *TINY, "--epoch", epochs, *flags]
    command += ["--save_folder", folder]
    process = subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = folder / "log.csv"
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def epochs(folder):
    return [int(float(row["epoch"])) for row in csv.DictReader((folder / "log.csv").open())]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_has_saved_its_last_epoch(phantom, tmp_path, call, number):
    process = start(phantom, tmp_path / "run", 200, "--num_workers", 1)
    process.send_signal(number)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    done = epochs(tmp_path / "run")[-1]
    last = tmp_path / "run" / "last.pth"
    assert f"{signal.Signals(number).name:<11} stopping after this epoch" in printed
    assert error.splitlines()[-1] == f"stopped: after epoch {done}, go on with --resume {last}"
    assert torch.load(last, weights_only=True)["epoch"] == done < 200
    assert call("supervised_train", "--resume", last, "--epoch", done + 1)[0] == 0
    assert epochs(tmp_path / "run") == list(range(1, done + 2))


def test_two_runs_do_not_share_a_folder(phantom, tmp_path, call):
    process = start(phantom, tmp_path / "run")
    try:
        code, _, error = call("supervised_train", "--resume", tmp_path / "run" / "last.pth", "--epoch", 300)
    finally:
        process.kill()
        process.communicate()
    assert code == 2 and "another run writes there" in error
    assert call("supervised_train", "--resume", tmp_path / "run" / "last.pth", "--epoch", 1)[0] == 2  # is beyond that
    done = torch.load(tmp_path / "run" / "last.pth", weights_only=True)["epoch"]
    assert call("supervised_train", "--resume", tmp_path / "run" / "last.pth", "--epoch", done + 1)[0] == 0


def test_a_start_that_was_aborted_is_started_again(phantom, tmp_path, call):
    folder = tmp_path / "run"
    flags = ["--data_root", phantom, *TINY, "--epoch", 1, "--save_folder", folder]
    assert call("supervised_train", *flags)[0] == 0
    refused(call, "supervised_train", *flags, names=["is not empty", "--resume"], kept=folder)
    (folder / "last.pth").rename(folder / ".unfinished_last.pth")
    assert call("supervised_train", *flags)[0] == 0 and epochs(folder) == [1]
    (folder / "last.pth").unlink()
    (folder / "notes.txt").write_text("of the user")
    refused(call, "supervised_train", *flags, names=["is not empty"], kept=folder)


def test_a_full_disk_keeps_the_last_checkpoint(phantom, tmp_path, call, monkeypatch):
    folder = tmp_path / "run"
    flags = ["--data_root", phantom, *TINY, "--save_folder", folder]
    assert call("supervised_train", *flags, "--epoch", 1)[0] == 0
    before = (folder / "last.pth").read_bytes()

    def full(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    code, _, error = call("supervised_train", "--resume", folder / "last.pth", "--epoch", 2)
    assert code == 2 and error.splitlines()[-1].startswith(f"error: {folder / 'best.pth'}: can't be written")
    assert (folder / "last.pth").read_bytes() == before and not list(folder.glob(".unfinished_*"))
    monkeypatch.undo()
    assert call("supervised_train", "--resume", folder / "last.pth", "--epoch", 2)[0] == 0
    assert epochs(folder) == [1, 2]


def test_the_log_of_another_folder_is_not_doubled(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY]
    assert call("supervised_train", *flags, "--epoch", 2, "--save_folder", tmp_path / "a")[0] == 0
    other = ["--resume", tmp_path / "a" / "last.pth", "--save_folder", tmp_path / "b"]
    assert call("supervised_train", *other, "--epoch", 4)[0] == 0 and epochs(tmp_path / "b") == [3, 4]
    with (tmp_path / "b" / "log.csv").open("a") as file:
        file.write("5,0.005,0.5,1.0\n6,0.005,0.")  # of a run that was killed before it saved them
    assert call("supervised_train", "--resume", tmp_path / "b" / "last.pth", "--epoch", 5)[0] == 0
    assert epochs(tmp_path / "b") == [3, 4, 5]


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b"epoch,lr\n1,x\n", b"a,b\n1,2\n", b"epoch,lr\n1\n"])
def test_a_damaged_log_is_named(tmp_path, damage):
    (tmp_path / "log.csv").write_bytes(damage + b"\n")
    with pytest.raises(InputError, match=r"log\.csv: damaged \(.*\); move it away"):
        read_log(tmp_path / "log.csv")


@pytest.mark.parametrize("batchsize", [4, 1])
def test_the_schedule_keeps_its_share_of_the_run(phantom, tmp_path, call, batchsize):
    flags = ["--data_root", phantom, *TINY[:-2], "--image_size", 32, "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *flags, "--batchsize", 2, "--epoch", 4)[0] == 0
    resumed = ["--resume", tmp_path / "run" / "last.pth", "--epoch", 16, "--batchsize", batchsize]
    assert call("supervised_train", *resumed)[0] == 0
    rates = [row["lr"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert rates[4:11] == [0.005] * 7 and 0 < rates[-1] < 0.0005


def test_machine_options_are_not_taken_from_a_file(phantom, tmp_path, call):
    flags = ["--data_root", phantom, *TINY, "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *flags, "--epoch", 1, "--num_workers", 1)[0] == 0
    last = tmp_path / "run" / "last.pth"
    content = torch.load(last, weights_only=True)
    assert not {"num_workers", "cache_gb", "device"} & content["run"]["options"].keys()
    content["run"]["options"] |= {"num_workers": 1000000, "cache_gb": 1e9}
    torch.save(content, last)
    assert call("supervised_train", "--resume", last, "--epoch", 2)[0] == 0


@pytest.mark.parametrize("part", ["optimizer", "schedule", "network", "random", "trained"])
def test_a_damaged_state_is_told(phantom, tmp_path, call, part):
    flags = ["--data_root", phantom, *TINY, "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *flags, "--epoch", 1)[0] == 0
    last = tmp_path / "run" / "last.pth"
    content = torch.load(last, weights_only=True)
    for value in ("text", None):
        if value is None:
            del content["training"][part]
        else:
            content["training"][part] = value
        torch.save(content, last)
        if part == "trained" and value:
            continue
        code, _, error = call("supervised_train", "--resume", last, "--epoch", 2)
        assert code == 2 and error.count("\n") == 1 and "does not fit the run" in error


def test_links_do_not_lead_out_of_a_folder_of_results(phantom, tmp_path, call):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "phantom_0000.png").write_text("of the user")
    flags = ["--data_root", phantom, *TINY, "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *flags, "--epoch", 1)[0] == 0
    predict = ["--data_root", phantom, "--pretrained_model", tmp_path / "run" / "best.pth", "--save_prob"]
    assert call("test", *predict, "--img_save_folder", tmp_path / "out")[0] == 0
    for file in (tmp_path / "out" / "prob").iterdir():
        file.unlink()
    (tmp_path / "out" / "prob").rmdir()
    (tmp_path / "out" / "prob").symlink_to(elsewhere)
    refused(call, "test", *predict, "--img_save_folder", tmp_path / "out", names=["has links"], kept=elsewhere)
    (tmp_path / "run" / "curves.png").unlink()
    (tmp_path / "run" / "curves.png").symlink_to(elsewhere / "phantom_0000.png")
    resume = ["--resume", tmp_path / "run" / "last.pth", "--epoch", 2]
    refused(call, "supervised_train", *resume, names=["has links, such as curves.png"], kept=elsewhere)


def test_a_file_of_the_user_is_no_probe(phantom, tmp_path, call):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".writable").write_text("of the user")
    assert (
        call("supervised_train", "--data_root", phantom, *TINY, "--epoch", 1, "--save_folder", tmp_path / "run")[0] == 0
    )
    assert (tmp_path / "run" / ".writable").read_text() == "of the user"


def test_named_pipes_do_not_hang(phantom, tmp_path, call):
    os.mkfifo(tmp_path / "pipe.pth")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    code, _, error = call("test", "--data_root", phantom, "--pretrained_model", tmp_path / "pipe.pth")
    assert code == 2 and "can't be opened" in error
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "other.pth")
    flags = ["--data_root", phantom, *TINY, "--epoch", 1, "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *flags)[0] == 0
    for name, says in (("pipe.png", "pipe.png"), ("pipe.nii.gz", "not a readable volume")):
        predict = ["--pretrained_model", tmp_path / "run" / "best.pth", "--test_img_path", tmp_path / name]
        code, _, error = call("test", *predict, "--img_save_folder", tmp_path / name[-3:])
        assert code in (1, 2) and says in error
