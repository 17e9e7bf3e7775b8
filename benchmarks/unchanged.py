"""Check that a change of the code changes no result: ``python -m benchmarks.unchanged COMMIT``.

Both versions run the scripts on the same phantom slices and scans, on a CPU with one thread, and must agree bit for
bit: weights after three epochs of both trainers by each recipe, runs resumed and networks loaded from files that the
other version wrote, pseudo masks, masks, probability maps and tables.
"""

import csv
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from data.errors import InputError
from utils.cli.parser import Parser, run
from utils.config import RECIPES

ROOT = Path(__file__).parent.parent
PLACES = ("inputs", "checkpoint")  # entries of a summary that are paths
TINY = ["--base_channels", 4, "--image_size", 48, "--val_fraction", 0.2, "--seed", 1]


def main() -> None:
    parser = Parser(__doc__, prog="python -m benchmarks.unchanged")
    parser.add_argument("commit", help="the version to compare with")
    parser.add_argument(
        "--keep", type=Path, help="folder to keep all results in, to look at differences; default: none"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.keep or Path(scratch) / "results").resolve()
        sys.exit(compare(args.commit, folder, Path(scratch) / "code"))


def compare(commit: str, folder: Path, before: Path) -> int:
    """Run both versions, print what differs, and return the exit code."""
    git("clone", "--quiet", ROOT, before)
    git("-C", before, "checkout", "--quiet", commit)
    draw(before, folder / "data")
    versions = {"before": before, "now": ROOT}
    for version, code in versions.items():
        calls = list(chain(folder / "data", folder / version, folder / "before"))
        for call in tqdm(calls, desc=version, disable=None):
            script(code, call)
    old, new = ({path.relative_to(folder / name) for path in results(folder / name)} for name in versions)
    differing = [f"{path}: only in one of both" for path in sorted(old ^ new)]
    for path in sorted(old & new):
        before_it, now = (content(folder / version / path) for version in versions)
        differing += [f"{path}: {where}" for where in differences(before_it, now)]
    print(*differing, f"{len(old)} files, {len(differing)} differences", sep="\n")
    return 1 if differing else 0


def draw(code: Path, data: Path) -> None:
    script(code, ["-m", "data.phantom", "--out", data, "--labeled", 12, "--unlabeled", 8, "--test", 6, "--size", 64])
    script(code, ["-m", "data.phantom", "--out", data / "scans", "--volumes", 2, "--depth", 6, "--size", 64])


def chain(data: Path, out: Path, before: Path) -> Iterator[list]:
    """The calls of one version. They write to ``out``; some read files of ``before``."""
    root = ["--data_root", data]
    scans = data / "scans" / "COVID-19-20"
    for recipe in RECIPES:
        supervised, semi, masks = (out / f"{recipe}_{kind}" for kind in ("supervised", "semi", "Pos-Mask"))
        flags = [*root, *TINY, "--recipe", recipe, "--epoch", 3]
        yield ["supervised_train.py", *flags, "--save_folder", supervised]
        yield ["fake_labels_generator.py", *root, "--model_path", supervised / "best.pth", "--Mask-dir", masks]
        start = [] if recipe == "paper" else ["--pretrained_model", supervised / "best.pth"]
        yield ["semi_supervised_train.py", *flags, *start, "--semi_msk_path", masks, "--save_folder", semi]
    for kind, name in (("supervised", "supervised_train.py"), ("semi", "semi_supervised_train.py")):
        last = before / f"default_{kind}" / "last.pth"
        yield [name, "--resume", last, "--epoch", 5, "--save_folder", out / f"resumed_{kind}"]
    best = ["--pretrained_model", before / "default_semi" / "best.pth"]
    options = ["--save_prob", "--device", "cpu", "--img_save_folder"]
    yield ["test.py", *root, *best, *options, out / "slices", "--table", "markdown"]
    yield ["test.py", *root, *best, "--no-tta", "--threshold", 0.3, *options, out / "thresholded"]
    yield ["test.py", *best, "--test_img_path", scans, *options, out / "scans"]
    yield ["test.py", *best, "--test_img_path", data / "scans" / "DICOM", *options, out / "dicom"]
    model = ["--model_path", before / "default_supervised" / "best.pth"]
    confident = ["--confidence", 0.6, "--Mask-dir", out / "confident"]
    yield ["fake_labels_generator.py", *root, *model, *confident]
    yield ["fake_labels_generator.py", *model, "--Image_dir", scans, "--Mask-dir", out / "scan_labels"]


def script(code: Path, call: list) -> None:
    """Run Python in a checkout. Raises InputError with its output if it fails."""
    words = [sys.executable, *map(str, call)]
    done = subprocess.run(
        words, cwd=code, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"{' '.join(words[1:])} in {code}: {(done.stdout + done.stderr).strip()}")


def git(*words: object) -> None:
    done = subprocess.run(["git", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {words[-1]}: {done.stderr.strip()}")


def results(folder: Path) -> Iterator[Path]:
    """The files that must agree; pictures and TensorBoard events depend on times and fonts."""
    for path in folder.rglob("*"):
        pictures = {"figures", "curves.png", "validation.png", "training.png", "labels_at_start.png", "labels.png"}
        if path.is_file() and not pictures & set(path.parts) and not path.name.startswith("events."):
            yield path


def content(path: Path) -> object:
    """The content of a file, without times and paths."""
    if path.suffix == ".pth":
        checkpoint = torch.load(path, weights_only=True)
        for record in ("options", "training"):  # what resuming needs; that it succeeds is compared
            checkpoint.get("run", {}).pop(record, None)
        return checkpoint
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [{**row, "seconds": None} for row in csv.DictReader(file)]
    if path.suffix == ".json":
        return {
            name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if name not in PLACES
        }
    if path.suffix == ".md":
        return re.sub(r"[-: ]*\|[-: ]*", "|", path.read_text(encoding="utf-8"))  # the cells, however wide
    return path.read_text(encoding="utf-8")


def differences(before: object, now: object, where: str = "") -> Iterator[str]:
    """The places at which two contents are not the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before.keys() | now.keys():
            yield from differences(before.get(name), now.get(name), f"{where}.{name}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{where}[{index}]")
    elif isinstance(before, torch.Tensor) and isinstance(now, torch.Tensor):
        if not torch.equal(before, now):
            yield where
    elif isinstance(before, np.ndarray) and isinstance(now, np.ndarray):
        if not np.array_equal(before, now):
            yield where
    elif before != now:
        yield where


if __name__ == "__main__":
    run(main)
