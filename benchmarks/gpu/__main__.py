"""Test, train, measure and cross-validate on a CUDA GPU: ``python -m benchmarks.gpu --data_root DATA``.

DATA is COVID-SemiSeg as ``python -m data.prepare covid-semiseg`` leaves it, or any folder like it. The most valuable
steps come first; each writes its results as soon as it has them. One that fails or runs out of time is reported, and
the next one begins; the exit code is then 1. At most eight small files: report.md to read first, gpu.json, log.txt,
supervised.csv, semi_supervised.csv, masks.zip, speed.json, crossval.json.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.process import ROOT, OutOfTime, StepError, run_until
from benchmarks.gpu.report import Report, claim
from benchmarks.gpu.steps import FULL, STEPS, TOY, Job
from benchmarks.speed.machine import describe_machine
from data.errors import InputError
from data.folders import list_slices, pair_by_stem
from utils.cli.parser import Parser, number, run


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the step together with this command
    args = parse_options()
    head = describe(rehearse=args.rehearse)
    report = Report(args.save_folder, head)
    claim(
        args.scratch / "made_by.json",
        {**head, "data": "phantom" if args.rehearse else str(args.data_root)},
        "--scratch",
    )
    started = time.monotonic()
    end = started + 60 * args.minutes
    if args.rehearse:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # at toy sizes, two threads are slower
        args.data_root = args.scratch / "phantom"
        draw_phantom(args.data_root, args.save_folder / "log.txt", end)
    data, results, scratch = (path.resolve() for path in (args.data_root, args.save_folder, args.scratch))
    job = Job(data, results, scratch, TOY if args.rehearse else FULL)

    failed = []
    for name in (name for name in STEPS if name in args.steps):
        step = STEPS[name]
        print(f"\n== {name}: {step.run.__doc__}", flush=True)
        report.forget(name)
        if step.file:
            (job.results / step.file).unlink(missing_ok=True)
        began = time.monotonic()
        job.deadline = min(end, began + step.share * 60 * args.minutes)
        row: dict[str, Any] = {"command": f"python -m benchmarks.gpu {' '.join(sys.argv[1:])}"}
        try:
            row |= {"state": "done", "found": step.run(job)}
        except StepError as error:
            row |= {"state": "out of time" if isinstance(error, OutOfTime) else "failed", "error": str(error)}
            failed.append(name)
        row["seconds"] = round(time.monotonic() - began, 1)
        report.add(name, row)
        print(f"== {name}: {row['state']} after {row['seconds']:.0f} s; {row.get('error') or row['found']}", flush=True)

    print(f"\nfinished    in {time.monotonic() - started:.0f} s; read {args.save_folder / 'report.md'}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see {args.save_folder / 'log.txt'}")


def parse_options() -> argparse.Namespace:
    parser = Parser(__doc__, prog="python -m benchmarks.gpu")
    parser.add_argument("--data_root", type=Path, help="folder with Train-Image, Train-Mask, Unlabeled, Test-Image")
    parser.add_argument(
        "--save_folder", type=Path, help="folder for the results; default: runs/gpu, or runs/gpu_rehearsal"
    )
    parser.add_argument("--scratch", type=Path, help="folder for models and the rest; default: SAVE_FOLDER_scratch")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="steps to run, in their order")
    parser.add_argument("--minutes", type=number(float, 0, above=True), default=9.0, help="time limit")
    parser.add_argument(
        "--rehearse", action="store_true", help="run at toy sizes on phantom slices; also works on a CPU"
    )
    args = parser.parse_args()
    args.save_folder = args.save_folder or Path("runs/gpu_rehearsal" if args.rehearse else "runs/gpu")
    args.scratch = args.scratch or args.save_folder.with_name(f"{args.save_folder.name}_scratch")
    if not args.rehearse:
        if not torch.cuda.is_available():
            parser.error("no CUDA GPU found; --rehearse runs all steps at toy sizes on a CPU")
        if args.data_root is None:
            parser.error("--data_root is missing; give a folder made by python -m data.prepare covid-semiseg")
        pair_by_stem(args.data_root / "Train-Image", args.data_root / "Train-Mask")  # fails before any time is spent
        for folder in ("Unlabeled", "Test-Image"):
            list_slices(args.data_root / folder)
    elif args.data_root:
        parser.error("--data_root, --rehearse: a rehearsal draws its own slices; leave one of them out")
    if args.save_folder.resolve() == args.scratch.resolve():
        parser.error("--save_folder, --scratch: are the same folder; give two")
    return args


def draw_phantom(folder: Path, log: Path, end: float) -> None:
    """Draw the slices of a rehearsal."""
    shutil.rmtree(folder, ignore_errors=True)
    counts = ["--labeled", 6, "--unlabeled", 4, "--test", 2, "--size", 64]
    try:
        run_until(end, ["-m", "data.phantom", "--out", folder.resolve(), *counts], log)
    except StepError as error:
        raise InputError(f"{folder}: {error}") from error


def describe(*, rehearse: bool) -> dict[str, str]:
    """The machine, the versions, and whether this is a rehearsal."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    commit = ""
    if shutil.which("git"):
        git = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "machine": describe_machine(device),
        "torch": torch.__version__,
        "commit": commit or "unknown",
        "sizes": "toy, phantom slices" if rehearse else "full",
    }


if __name__ == "__main__":
    run(main)
