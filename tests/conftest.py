"""What several tests need: the reference answers, a tiny phantom data set, and calls of the scripts."""

import importlib
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # its kernels then run on the CPU

from data.phantom_volumes import ORIENTATIONS, draw_volume, write_volumes
from utils.cli.parser import run

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference answers of the published code."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the reference answers in ../shared/golden are not part of the repository")
    return SHARED / "golden"


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """A phantom data set that no test may change: 10 labeled, 8 unlabeled and 4 test slices of 64 pixels."""
    folder = tmp_path_factory.mktemp("phantom") / "data"
    counts = ["--labeled", 10, "--unlabeled", 8, "--test", 4]
    code, _, error = call_here("data.phantom", "--out", folder, *counts, "--size", 64)
    assert code == 0, error
    return folder


SIZE, DEPTH, SEED = 48, 6, 1  # of the phantom scans: pixels a side, slices, seed


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """Phantom scans that no test may change, one in each of ORIENTATIONS."""
    out = tmp_path_factory.mktemp("scans")
    write_volumes(out, len(ORIENTATIONS), SIZE, DEPTH, SEED)
    return out


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


@pytest.fixture
def call():
    """Run a script in this process: ``call("test", "--flag", value)`` -> (exit code, stdout, stderr)."""
    return call_here
