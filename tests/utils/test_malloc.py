"""Freed memory stays with the process while a network predicts."""

import ctypes
from pathlib import Path

import pytest
import torch

from utils import malloc

STATUS = Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.exists() or not hasattr(ctypes.CDLL(None), "mallopt"), reason="for glibc on Linux")
def test_freed_memory_is_kept():
    def resident_megabytes():
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmRSS")) / 1e3

    def left_by_a_large_tensor():
        before = resident_megabytes()
        torch.ones(50_000_000)
        return resident_megabytes() - before

    malloc.set_options(malloc.TRAINING)
    ctypes.CDLL(None).malloc_trim(0)
    assert left_by_a_large_tensor() < 20  # of 200: above 32 MiB
    malloc.set_options(malloc.PREDICTING)
    assert left_by_a_large_tensor() > 150
    ctypes.CDLL(None).malloc_trim(0)


def test_other_c_libraries_are_unchanged(monkeypatch):
    for fault in (AttributeError, OSError, TypeError):

        def absent(name, fault=fault):
            raise fault

        monkeypatch.setattr(ctypes, "CDLL", absent)
        malloc.set_options(malloc.PREDICTING)
