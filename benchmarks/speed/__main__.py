"""Time and memory of CARes-UNet against the published computation, side by side: ``python -m benchmarks.speed``.

Writes speed.json and speed.md, a table for docs/experiments.md. Run nothing else on the machine while it measures.
"""

from pathlib import Path

from benchmarks.speed.carafe import measure_carafe
from benchmarks.speed.estimate import estimate_minutes, time_forward
from benchmarks.speed.machine import describe_machine
from benchmarks.speed.methods import measure_methods
from benchmarks.speed.network import (
    measure_context,
    measure_inference,
    measure_optimizer,
    measure_training,
)
from benchmarks.speed.report import Report
from benchmarks.speed.setting import Setting
from benchmarks.speed.slices import measure_loading, measure_test
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, number, run, settings
from utils.device import choose_device, choose_precision
from utils.output.folder import prepare_folder

PARTS = {
    "carafe": measure_carafe,
    "inference": measure_inference,
    "optimizer": measure_optimizer,
    "training": measure_training,
    "methods": measure_methods,
    "loading": measure_loading,
    "test": measure_test,
    "context": measure_context,
}


def main() -> None:
    parser = Parser(__doc__, prog="python -m benchmarks.speed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--base_channels", type=number(int, 1), default=64, help="width of the networks")
    parser.add_argument("--image_size", type=number(int, 32), default=256, help="side of the slices, a multiple of 16")
    parser.add_argument("--batchsize", type=number(int, 2), default=4, help="slices of a training step, an even number")
    parser.add_argument("--rounds", type=number(int, 1), default=5, help="number of timings of each piece of work")
    parser.add_argument(
        "--save_folder", type=Path, default=Path("runs/speed"), help="folder for speed.json and speed.md"
    )
    add_device_options(parser)
    args = parser.parse_args()
    args.device = choose_device(args.device)
    choose_precision(args.amp, args.device)  # fails before anything is measured
    setting = settings(args, Setting)
    if setting.image_size % 16 or setting.batchsize % 2:
        parser.error("--image_size, --batchsize: give a multiple of 16, and an even number")
    prepare_folder(setting.save_folder)
    print(f"machine     {describe_machine(setting.device)}", flush=True)

    print(f"time        about {max(1, round(estimate_minutes(setting, time_forward(setting))))} min", flush=True)

    report = Report(setting)
    for name, measure in PARTS.items():
        if name in setting.parts:
            measure(report, setting)


if __name__ == "__main__":
    run(main)
