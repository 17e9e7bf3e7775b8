"""Slices from files: loading them, and test.py from the command line to the last mask."""

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import interleaved
from benchmarks.reference import DecodedAtEveryAccess
from benchmarks.speed.network import build_network, random_batch
from benchmarks.speed.report import Report
from benchmarks.speed.setting import Setting
from data.augmentation import Augmentation
from data.datasets import LesionSlices
from data.folders import pair_by_stem
from data.preprocess.preprocessing import Preprocessing
from models import config_of
from utils.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent.parent
SLICES = 48  # the number of test slices of COVID-SemiSeg


@cache
def phantom_slices() -> tempfile.TemporaryDirectory:
    """A folder of labeled and test slices, drawn once, removed at the end."""
    folder = tempfile.TemporaryDirectory()
    counts = ["--labeled", SLICES, "--unlabeled", 0, "--test", SLICES, "--size", 400]
    call("-m", "data.phantom", "--out", folder.name, *counts)
    return folder


def measure_loading(report: Report, setting: Setting) -> None:
    folder = Path(phantom_slices().name)
    pairs = pair_by_stem(folder / "Train-Image", folder / "Train-Mask")

    def one_pass(slices: Dataset) -> None:
        for _ in DataLoader(slices, batch_size=setting.batchsize):
            pass

    reference = DecodedAtEveryAccess(pairs, setting.image_size)
    decoded = LesionSlices(pairs, Preprocessing(image_size=setting.image_size))
    works = {
        "reference": lambda: one_pass(reference),
        "first": lambda: one_pass(LesionSlices(pairs, Preprocessing(image_size=setting.image_size))),
        "after": lambda: one_pass(decoded),
    }
    timings = interleaved(works, rounds=2 * setting.rounds, device=setting.device)
    report.add(f"loading {SLICES} slices, first epoch", timings["reference"], timings["first"])
    report.add(f"loading {SLICES} slices, every later epoch", timings["reference"], timings["after"])
    batch = random_batch(setting)
    timings = interleaved({"ours": lambda: Augmentation()(*batch)}, rounds=2 * setting.rounds, device=setting.device)
    report.add(f"augmenting {setting.batchsize} slices", None, timings["ours"])


def measure_test(report: Report, setting: Setting) -> None:
    """test.py from the command line to the last mask."""
    folder = Path(phantom_slices().name)
    network = build_network("ours", setting)
    preprocessing = {"image_size": setting.image_size}
    rest = {"epoch": 0, "best_score": -1.0, "run": {}}
    content = {"model": config_of(network), "preprocessing": preprocessing, "weights": network.state_dict(), **rest}
    save_checkpoint(folder / "model.pth", content)
    del network, content
    model, images, published, ours = (folder / name for name in ("model.pth", "Test-Image", "published", "ours"))
    published.mkdir()
    options = ["--test_img_path", images, "--img_save_folder", ours, "--device", setting.device, "--amp", setting.amp]
    works = {
        "reference": lambda: call("-m", "benchmarks.reference", model, images, published, setting.device),
        "ours": lambda: call("test.py", "--pretrained_model", model, *options),
    }
    timings = interleaved(works, rounds=(setting.rounds + 1) // 2, device=setting.device, warm_up=0)
    report.add(f"test.py on {SLICES} slices, start to end", *timings.values())


def call(*arguments: object) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True)
