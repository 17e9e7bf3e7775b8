"""Freed memory stays with the process while a network predicts."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from utils import malloc

STATUS = Path("/proc/self/status")


# A process of its own: what other tests have left in the heap would be used again.
CODE = """
import ctypes
from pathlib import Path
import torch
from utils import malloc

def resident_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1e3

for options in (malloc.TRAINING, malloc.PREDICTING):
    malloc.set_options(options)
    before = resident_megabytes()
    torch.ones(50_000_000)
    print(resident_megabytes() - before)
"""


@pytest.mark.skipif(not STATUS.exists() or not hasattr(ctypes.CDLL(None), "mallopt"), reason="for glibc on Linux")
def test_freed_memory_is_kept():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    training, predicting = map(float, done.stdout.split())
    assert training < 20 and predicting > 150  # of 200 MB, above 32 MiB


def test_other_c_libraries_are_unchanged(monkeypatch):
    for fault in (AttributeError, OSError, TypeError):

        def absent(name, fault=fault):
            raise fault

        monkeypatch.setattr(ctypes, "CDLL", absent)
        malloc.set_options(malloc.PREDICTING)
