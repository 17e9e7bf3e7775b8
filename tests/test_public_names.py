"""``import cares_unet`` from another folder."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
from helpers import DEPTH, ROOT, SIZE

ARRAYS = """
import numpy as np
found = predictor.predict(np.load("slice.npy"))
print(found.mask.dtype, found.mask.shape, found.map.dtype, found.map.shape)
scan = cares_unet.Predictor("M.pth", "small", device="cpu").predict_scan(np.load("scan.npy"))
print(scan.dtype, scan.shape, lesions.shape)
"""


def python(folder, code):
    """Run Python in another folder, as after ``pip install -e .``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_what_the_python_of_the_docs_returns(phantom, scans, tmp_path):
    predict, train, _ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    train = train.replace("datasets/phantom", str(phantom)).replace(
        "base_channels=8, epoch=20", "base_channels=2, epoch=1"
    )
    np.save(tmp_path / "slice.npy", np.full((40, 51), 90, np.uint8))
    np.save(tmp_path / "scan.npy", np.full((3, 30, 20), -700.0))
    shutil.copy(phantom / "Test-Image" / "phantom_0000.png", tmp_path / "slice.png")
    shutil.copy(next((scans / "COVID-19-20").glob("*_ct.nii.gz")), tmp_path / "scan.nii.gz")
    rename = "import os\nos.rename('runs/notebook/best.pth', 'M.pth')\n"
    done = python(tmp_path, train + rename + predict + ARRAYS)
    assert done.returncode == 0, done.stderr
    assert (
        "bool (40, 51) uint8 (40, 51)" in done.stdout and f"uint8 (3, 30, 20) ({DEPTH}, {SIZE}, {SIZE})" in done.stdout
    )


def test_a_package_of_the_same_name_is_reported(tmp_path):
    (tmp_path / "data").mkdir()  # a folder of slices
    assert python(tmp_path, "import cares_unet").stderr == ""
    (tmp_path / "utils.py").write_text("")
    done = python(tmp_path, "import cares_unet; from cares_unet import *; print(Predictor.__name__)")
    assert done.stdout == "Predictor\n" and f"hides {tmp_path / 'utils.py'}" in done.stderr
    assert "another package utils is already imported" in python(tmp_path, "import utils, cares_unet").stderr


def test_an_installation_without_packages_is_reported(tmp_path):
    """As after ``pip install .``."""
    shutil.copy(ROOT / "cares_unet.py", tmp_path)
    code = "import sys; sys.path.remove(sys.path[1]); import cares_unet"
    assert "run pip install -e ." in python(tmp_path, code).stderr
