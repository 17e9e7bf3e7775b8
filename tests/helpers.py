"""Helpers of several tests: calls of the scripts, and checks of refusals."""

import importlib
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.phantom.volumes import draw_volume
from utils.cli.parser import run
from utils.config import TrainingConfig

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
TINY = ("--base_channels", 2, "--image_size", 32, "--epoch", 1)
SIZE, DEPTH, SEED = 48, 6, 1  # of the phantom scans: pixels a side, slices, seed
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG = TrainingConfig(epoch=10, lr=0.01, lesion_margin=0.0, dice_over="batch", ema_decay=0.9, amp="off")


@cache
def drawn(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units, float32 as ``read_scan`` gives them, and lesions of one of ``scans``, as they were drawn."""
    hu, lesions = draw_volume(np.random.default_rng([SEED, 3, index]), SIZE, DEPTH)
    hu = hu.astype(np.float32)
    for array in (hu, lesions):
        array.flags.writeable = False  # other tests get the same ones
    return hu, lesions


def call_as_process(*arguments) -> subprocess.CompletedProcess:
    """Run Python from the repository's root, as a user does; the test fails if it exits with an error."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def call_here(name: str, *arguments) -> tuple[int, str, str]:
    """Run a script in this process, which spares the seconds of its imports: (exit code, stdout, stderr)."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
            patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
            run(importlib.import_module(name).main)
    except SystemExit as stop:
        code = stop.code
    finally:
        print(out.getvalue(), error.getvalue(), sep="")  # shown if the test fails
    return code, out.getvalue(), error.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by path."""
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def refused(call: Callable, script: str, *arguments: object, names: Sequence[object], kept: Path) -> None:
    """Check that the script stops with one line that has all ``names`` and leaves the folder ``kept`` unchanged."""
    before = contents(kept)
    code, _, error = call(script, *arguments)
    assert code == 2
    assert error.startswith("error: ") and error.count("\n") == 1, error
    for name in names:
        assert str(name) in error, error
    assert contents(kept) == before


def resave(file, change):
    Image.fromarray(change(np.array(Image.open(file)))).save(file)
