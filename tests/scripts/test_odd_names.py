"""Names of files that a file system allows, through all scripts."""

import csv
import json
import os
from itertools import cycle

import pytest
from helpers import TINY

NAMES = (
    "a$b$.png", "two\nlines.png", "\x1b[31mred.png", "ünï ćódé.png", "图像.png", "-x.png", "a,b;'c\".png", "100%.png",
    "x" * 251 + ".png", os.fsdecode(b"\xff\xfe.png"), "{0}.png", "a.b.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def odd(phantom, tmp_path_factory):
    """The phantom's slices under odd names."""
    root = tmp_path_factory.mktemp("odd")
    for source, target in (("Train", "Train"), ("Train", "Test")):
        for kind in ("Image", "Mask"):
            (root / f"{target}-{kind}").mkdir()
            for file, name in zip(cycle(sorted((phantom / f"{source}-{kind}").iterdir())), NAMES, strict=False):
                (root / f"{target}-{kind}" / name).write_bytes(file.read_bytes())
    (root / "Unlabeled").symlink_to(root / "Test-Image")
    return root


def test_all_scripts(odd, call, tmp_path):
    count = len(list((odd / "Train-Image").iterdir()))
    assert count == len(NAMES)
    run, masks, out = tmp_path / "run", tmp_path / "masks", tmp_path / "out"
    flags = ["--data_root", odd]
    steps = (
        ("supervised_train", *flags, *TINY, "--val_fraction", 0.5, "--save_folder", run),
        ("fake_labels_generator", *flags, "--model_path", run / "best.pth", "--Mask-dir", masks),
        ("semi_supervised_train", *flags, *TINY, "--semi_msk_path", masks, "--save_folder", tmp_path / "semi"),
        ("supervised_train", "--resume", run / "last.pth", "--epoch", 2),
        ("test", *flags, "--pretrained_model", run / "best.pth", "--img_save_folder", out, "--save_type", "overlay"),
        ("test", *flags, "--predictions", masks, out, "--img_save_folder", tmp_path / "scores"),
    )
    for step in steps:
        code, printed, error = call(*step)
        assert code == 0, error
        assert "\x1b[31m" not in printed and "two\nlines" not in printed
    assert sum(path.suffix == ".png" for path in masks.iterdir()) == count
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert len(names) == count and set(NAMES[:6]) & set(names)
    json.loads((out / "summary.json").read_text(encoding="utf-8"))


def test_errors_are_one_line(odd, call, tmp_path):
    bad = odd / "Train-Image" / "two\nlines.png"
    content = bad.read_bytes()
    try:
        bad.write_bytes(b"no image")
        code, _, error = call("supervised_train", "--data_root", odd, *TINY, "--save_folder", tmp_path / "run")
    finally:
        bad.write_bytes(content)
    assert code == 2 and error.count("\n") == 1 and r"two\nlines.png" in error
