"""Fixtures that several tests need: the reference answers, phantom data, and calls of the scripts."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # its kernels then run on the CPU

from helpers import DEPTH, SEED, SIZE, call_here

from data.phantom.volumes import ORIENTATIONS, write_volumes


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference answers of the published code."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """A phantom data set that no test may change: 10 labeled, 8 unlabeled and 4 test slices of 64 pixels."""
    folder = tmp_path_factory.mktemp("phantom") / "data"
    counts = ["--labeled", 10, "--unlabeled", 8, "--test", 4]
    code, _, error = call_here("data.phantom.__main__", "--out", folder, *counts, "--size", 64)
    assert code == 0, error
    return folder


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """Phantom scans that no test may change, one in each of ORIENTATIONS."""
    out = tmp_path_factory.mktemp("scans")
    write_volumes(out, len(ORIENTATIONS), SIZE, DEPTH, SEED)
    return out


@pytest.fixture
def call() -> Callable[..., tuple[int, str, str]]:
    """Run a script in this process: ``call("test", "--flag", value)`` -> (exit code, stdout, stderr)."""
    return call_here
