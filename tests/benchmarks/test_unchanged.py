"""The comparison of two versions: it finds every kind of difference, and none between equal ones."""

import numpy as np
import pytest
import torch
from helpers import call_as_process
from PIL import Image

from benchmarks.unchanged import content, differences


@pytest.mark.parametrize(
    ("before", "now", "where"),
    [
        ({"a": torch.zeros(2), "b": [1, 2]}, {"a": torch.zeros(2), "b": [1, 2]}, []),
        ({"a": torch.zeros(2)}, {"a": torch.tensor([0, 1e-45])}, [".a"]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [".a[1].b"]),
        ({"a": 1}, {"a": 1, "b": 2}, [".b"]),
        ([1, 2], [1], [""]),
        (np.zeros(3, np.uint8), np.array([0, 0, 1], np.uint8), [""]),
    ],
)
def test_differences_are_located(before, now, where):
    assert list(differences(before, now)) == where


def test_times_and_places_do_not_count(tmp_path):
    for name, seconds, place in (("a", "0.5", "/here"), ("b", "0.7", "/there")):
        (tmp_path / f"{name}.csv").write_text(f"epoch,train_loss,seconds\n1,0.25,{seconds}\n")
        (tmp_path / f"{name}.json").write_text(f'{{"inputs": "{place}", "dice": 0.5}}')
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / f"{name}.png", compress_level=len(seconds))
    (tmp_path / "a.md").write_text("| model | Dice |\n| --- | --- |\n| x | 0.5 |")
    (tmp_path / "b.md").write_text("| model | Dice |\n|-------|------|\n| x     | 0.5  |")
    for suffix in ("csv", "json", "png", "md"):
        both = [content(tmp_path / f"{name}.{suffix}") for name in "ab"]
        assert list(differences(*both)) == []
    (tmp_path / "b.csv").write_text("epoch,train_loss,seconds\n1,0.26,0.7\n")
    assert list(differences(content(tmp_path / "a.csv"), content(tmp_path / "b.csv"))) == ["[0].train_loss"]


@pytest.mark.long
def test_this_version_gives_the_results_of_the_last_commit():
    assert "0 differences" in call_as_process("-m", "benchmarks.unchanged", "HEAD").stdout
