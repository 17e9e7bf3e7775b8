"""About how long a measurement takes, from the time of one forward pass on this machine."""

import argparse

from benchmarks.measure import interleaved
from benchmarks.speed.network import build_inference, inference_batch
from benchmarks.speed.slices import SLICES

START = 3.5  # seconds until a new process has imported torch
DRAWING = 45  # seconds for the phantom slices


def time_forward(args: argparse.Namespace) -> float:
    """Seconds of the reference's forward pass on one slice."""
    work = build_inference("reference", args)
    return interleaved({"forward": work}, rounds=1, device=args.device)["forward"].median / inference_batch(args)


def estimate_minutes(args: argparse.Namespace, forward: float) -> float:
    """Of all ``--parts``, where a forward pass takes so many seconds; on a GPU, with its other balance, a rough one."""
    slice_steps = args.batchsize * (args.rounds + 5)  # with those that warm up and those that tell the memory
    # Forward passes of the reference, and seconds of anything else.
    costs = {
        "carafe": (8 * args.rounds + 11, 10 * START),
        "inference": (4 * args.rounds + 8, 2 * START),
        "training": (9 * slice_steps, 4 * START),
        "optimizer": (2 * args.rounds + 3, 0),
        "loading": (0, DRAWING + args.rounds),
        "test": ((args.rounds + 1) // 2 * 2 * SLICES, DRAWING + (args.rounds + 1) * START),
        "context": (2 * slice_steps, 2 * START),
    }
    seconds = sum(costs[part][0] * forward + costs[part][1] for part in args.parts)
    drawn_once = DRAWING * ({"loading", "test"} <= set(args.parts))
    return (seconds - drawn_once) / 60
