"""Checkpoints to pass on: small, and without the paths of a machine."""

from dataclasses import fields
from pathlib import Path

from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.config import TrainingConfig
from utils.fields import admits


def save_half(source: Path | str, target: Path | str) -> None:
    """Write a checkpoint to predict with, its weights in half precision: half of a ``best.pth``.

    Of the run, it keeps the settings except paths. Raises InputError as ``read_checkpoint`` does.
    """
    content = read_checkpoint(Path(source))
    paths = {option.name for option in fields(TrainingConfig) if admits(option, Path)}
    run = content.get("run", {})
    options = {name: value for name, value in run.get("options", {}).items() if name not in paths}
    half = {name: w.half() if w.is_floating_point() else w for name, w in content["weights"].items()}
    kept = {name: content[name] for name in ("model", "preprocessing", "epoch", "temperature") if name in content}
    about = {"best_score": content.get("best_score", -1.0), "run": {"script": run.get("script"), "options": options}}
    save_checkpoint(Path(target), {**kept, **about, "weights": half})
