"""Estimate how long a measurement takes, from one forward pass on this machine."""

from benchmarks.measure import interleaved
from benchmarks.speed.network import build_inference, inference_batch
from benchmarks.speed.setting import Setting
from benchmarks.speed.slices import SLICES
from utils.training.methods import SEMI_SUPERVISED

START = 3.5  # seconds for a new process to import torch
DRAWING = 45  # seconds for the phantom slices


def time_forward(setting: Setting) -> float:
    """Seconds of the reference's forward pass on one slice."""
    work = build_inference("reference", setting)
    return interleaved({"forward": work}, rounds=1, device=setting.device)["forward"].median / inference_batch(setting)


def estimate_minutes(setting: Setting, forward: float) -> float:
    """Minutes for all ``--parts``, given the seconds of a forward pass; a rough estimate on a GPU."""
    slice_steps = setting.batchsize * (setting.rounds + 5)  # including those for warm-up and for memory
    # Forward passes of the reference, and seconds for the rest.
    costs = {
        "carafe": (8 * setting.rounds + 11, 10 * START),
        "inference": (4 * setting.rounds + 8, 2 * START),
        "training": (9 * slice_steps, 4 * START),
        "methods": (4 * len(SEMI_SUPERVISED) * slice_steps, DRAWING + len(SEMI_SUPERVISED) * START),
        "optimizer": (2 * setting.rounds + 3, 0),
        "loading": (0, DRAWING + setting.rounds),
        "test": ((setting.rounds + 1) // 2 * 2 * SLICES, DRAWING + (setting.rounds + 1) * START),
        "context": (2 * slice_steps, 2 * START),
    }
    seconds = sum(costs[part][0] * forward + costs[part][1] for part in setting.parts)
    drawn = DRAWING * max(0, len({"methods", "loading", "test"} & set(setting.parts)) - 1)  # too often: they share them
    return (seconds - drawn) / 60
