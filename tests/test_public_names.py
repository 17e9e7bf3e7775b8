"""``import cares_unet`` from another folder."""

import os
import subprocess
import sys

import numpy as np
from helpers import ROOT, TINY, call_here

USE = """
import numpy as np
import cares_unet
found = cares_unet.Predictor("best.pth", device="cpu").predict(np.load("slice.npy"))
print(found.mask.dtype, found.mask.shape, found.map.dtype, found.map.shape)
scan = cares_unet.Predictor("best.pth", "best.pth", device="cpu").predict_scan(np.load("scan.npy"))
print(scan.dtype, scan.shape)
"""


def python(folder, code):
    """Run Python in another folder, as after ``pip install -e .``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_arrays_in_any_folder(phantom, tmp_path):
    assert call_here("supervised_train", "--data_root", phantom, *TINY, "--save_folder", tmp_path / "run")[0] == 0
    (tmp_path / "run" / "best.pth").rename(tmp_path / "best.pth")
    np.save(tmp_path / "slice.npy", np.full((40, 51), 90, np.uint8))
    np.save(tmp_path / "scan.npy", np.full((3, 30, 20), -700.0))
    done = python(tmp_path, USE)
    assert done.returncode == 0, done.stderr
    assert "bool (40, 51) uint8 (40, 51)" in done.stdout and "uint8 (3, 30, 20)" in done.stdout


def test_a_package_of_the_same_name_is_reported(tmp_path):
    (tmp_path / "utils.py").write_text("")
    assert python(tmp_path, "import cares_unet").returncode == 0
    assert "another package utils is already imported" in python(tmp_path, "import utils, cares_unet").stderr
