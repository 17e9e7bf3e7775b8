"""``benchmarks.reliability``: ranks slices, and compares temperatures, of the networks of a setting."""

import numpy as np
from helpers import ROOT, call_here

from benchmarks import reliability


def test_it_ranks_and_calibrates_the_slices_held_out(phantom, monkeypatch, tmp_path):
    files = sorted(path.name for path in (phantom / "Train-Image").iterdir())
    small = ROOT / "weights" / "small.pth"
    monkeypatch.setattr(
        "benchmarks.crossval.setting.trained_folds", lambda model: [(small, files[:2]), (small, files[2:4])]
    )
    flags = [tmp_path, "--data_root", phantom, "--device", "cpu", "--image_size", 48, "--calibrate"]
    code, printed, error = call_here("benchmarks.reliability", *flags)
    assert code == 0, error
    assert "4, Dice" in printed and printed.count("(its own") == 2


def test_the_least_reliable_are_flagged(capsys):
    dice = np.linspace(0.1, 1, 20)
    reliability.report(dice, dice**2)
    printed = capsys.readouterr().out
    reliability.report(np.array([0.5, 0.7]), np.ones(2))
    assert "none (all are alike)" in (alike := capsys.readouterr().out) and "nan" not in alike
    assert "1.00 of reliability" in printed and f"2 slices: Dice {dice[:2].mean():.3f}" in printed
