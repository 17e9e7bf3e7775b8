"""What ``run`` makes of an error: one line on standard error, and an exit code."""

import errno
import re
import signal
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data.errors import FileError, InputError, Stopped
from utils.cli.parser import NO_MEMORY, run


class Broken(Dataset):
    """A data set whose files went bad while a worker reads them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        raise FileError(Path("slices/3.png"), "not a readable image", "export or copy it again", "cut")


class Killed(Broken):
    def __getitem__(self, index: int) -> torch.Tensor:
        signal.raise_signal(signal.SIGKILL)
        return torch.zeros(1)


class TooLittleSharedMemory(Broken):
    def __getitem__(self, index: int) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def fail(error):
    def main():
        raise error

    return main


CASES = [
    (fail(InputError("--lr 0: must be above 0")), 2, "error: --lr 0: must be above 0"),
    (
        lambda: list(DataLoader(Broken(), num_workers=1)),
        2,
        r"error: slices/3\.png: not a readable image \(cut\); ",
    ),
    (lambda: list(DataLoader(Killed(), num_workers=1)), 2, "error: a worker was killed, .* use --num_workers 0"),
    (lambda: list(DataLoader(TooLittleSharedMemory(), num_workers=1)), 2, "error: /dev/shm is full; use --num_work"),
    (fail(RuntimeError("unable to allocate shared memory(shm) for file </torch_1>")), 2, "error: /dev/shm is full"),
    (fail(MemoryError()), 2, f"error: {NO_MEMORY}"),
    (lambda: torch.empty(2**60), 2, f"error: {NO_MEMORY}"),
    (
        fail(OSError(errno.ENOSPC, "No space left on device", "runs/log.csv")),
        2,
        "error: runs/log.csv: No space left on",
    ),
    (fail(OSError(errno.EACCES, "Permission denied", "a.png")), 2, "error: a.png: Permission denied; change its perm"),
    (fail(OSError(errno.EMFILE, "Too many open files")), 2, r"error: Too many open files; .*ulimit -n"),
    (fail(ModuleNotFoundError("x", name="nibabel")), 2, "error: the package nibabel is missing; pip install"),
    (fail(Stopped("after epoch 3", signal.SIGTERM)), 143, "stopped: after epoch 3"),
    (fail(KeyboardInterrupt()), 130, "stopped"),
    (fail(InputError("two\nlines\x1b[31m.png: no")), 2, r"error: two\\nlines\\x1b\[31m\.png: no"),
]


@pytest.mark.parametrize(("main", "code", "says"), CASES)
def test_faults_are_told_in_one_line(capfd, main, code, says):
    with pytest.raises(SystemExit) as stop:
        run(main)
    error = capfd.readouterr().err.splitlines()[-1]
    assert stop.value.code == code and re.match(says, error), error


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shapes"):
        run(fail(RuntimeError("shapes differ")))


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("supervised_train", {"--images": "train_img_path", "--masks": "train_msk_path", "--out": "save_folder"}),
        ("test", {"--images": "test_img_path", "--masks": "test_msk_path", "--out": "img_save_folder"}),
        ("fake_labels_generator", {"--images": "image_dir", "--masks": "truth_path", "--out": "mask_dir"}),
    ],
)
def test_flags_have_one_name_in_all_scripts(script, flags, call):
    needed = {"test": ["--model", "small"], "fake_labels_generator": ["--model", "small"]}.get(script, [])
    module = import_module(script)
    words = [word for flag in flags for word in (flag, flag[2:])]
    parsed = module.parse([*needed, *words])
    config = parsed[0]
    assert {name: str(getattr(config, name)) for name in flags.values()} == {flags[flag]: flag[2:] for flag in flags}


def test_unknown_flags_suggest_known_ones(call):
    code, _, error = call("supervised_train", "--epochs", 3)
    assert code == 2 and "unrecognized arguments: --epochs 3; did you mean --epoch? (see" in error
    assert "did you mean" not in call("supervised_train", "--xyzzy", 3)[2]
