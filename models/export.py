"""Export a network to ONNX, with its preprocessing beside it in a JSON file.

    python -m models.export --pretrained_model M.pth --out M.onnx

The graph maps slices to class probabilities; number, height and width are free. It has standard operators only, so
that ONNX Runtime, OpenVINO and TensorRT run it. examples/onnx_predict.py shows how to predict with both files.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data.errors import InputError, installed
from data.io.whole import whole, write_whole
from data.preprocess.grays import DARKEST_TISSUE, SOFT_TISSUE
from data.preprocess.preprocessing import Preprocessing
from utils.checkpoint import NAMES, fingerprint, load_model
from utils.cli.parser import Parser, run

PACKAGES = "onnx onnxscript onnxruntime"
OPSET = 18  # the first with Pad as it is used here; OpenVINO and TensorRT know it
SIZES = ((1, 192, 192), (2, 256, 224), (1, 77, 333))  # number, height, width of the slices to compare
MOST_DIFFERENCE = 1e-4  # of probabilities; more means that the export is wrong
ROUNDS = 7  # to time


@dataclass(frozen=True)
class Comparison:
    """An exported network against PyTorch: difference of the probabilities and milliseconds a slice."""

    size: tuple[int, int, int]
    difference: float
    torch_ms: float
    onnx_ms: float


class Probabilities(nn.Module):
    """A network with the softmax after it: slices ``(N, 1, H, W)`` to probabilities ``(N, C, H, W)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.temperature = model, float(getattr(model, "temperature", 1.0))

    def forward(self, slices: Tensor) -> Tensor:
        return (self.model(slices) / self.temperature).softmax(dim=1)


def main() -> None:
    parser = Parser(__doc__.splitlines()[0], prog="python -m models.export")
    names = ("--pretrained_model", "--model")
    parser.add_argument(*names, required=True, metavar="M.pth", help=f"checkpoint, or one of weights/: {NAMES}")
    parser.add_argument("--out", type=Path, required=True, metavar="M.onnx", help="file to write; M.json is beside it")
    args = parser.parse_args()
    if args.out.suffix != ".onnx":
        raise InputError(f"--out {args.out}: name a file that ends with .onnx")
    model, preprocessing = load_model(args.pretrained_model)
    stop_if_of_others(args.out)
    check_packages()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    told = describe(args.pretrained_model, preprocessing, classes=model(torch.zeros(1, 1, 16, 16)).shape[1])
    write_whole(args.out.with_suffix(".json"), json.dumps(told, indent=1) + "\n")
    export(model, args.out)
    print(f"{'written':<11} {args.out} and {args.out.with_suffix('.json').name}")
    compared = compare(model, args.out)
    print(f"{'slices':<15} {'largest difference':>18} {'PyTorch':>12} {'ONNX Runtime':>14}")
    for row in compared:
        shape = "x".join(map(str, row.size))
        print(f"{shape:<15} {row.difference:18.1e} {row.torch_ms:9.0f} ms {row.onnx_ms:11.0f} ms")
    if max(row.difference for row in compared) > MOST_DIFFERENCE:
        raise InputError(f"{args.out}: its probabilities differ from those of PyTorch; do not use it, report this")


def check_packages() -> None:
    """Raise InputError if a package that exports networks is missing."""
    for package in ("onnx", "onnxscript"):
        installed(package, PACKAGES)


def stop_if_of_others(path: Path) -> None:
    """Raise InputError if an export would replace files that no export has written."""
    beside = path.with_suffix(".json")
    try:
        ours = {"sha256", "preprocessing"} <= json.loads(beside.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError):
        ours = False
    if present := [file for file in (path, beside) if file.exists() and not ours]:
        raise InputError(f"{present[0]}: exists, and is not of an earlier export; remove it or name another --out")


def export(model: nn.Module, path: Path) -> None:
    """Write a network as an ONNX graph from ``slices (N, 1, H, W)`` in [0, 1] to ``probabilities (N, C, H, W)``.

    Raises InputError if the packages for it are missing.
    """
    check_packages()
    network = Probabilities(model.cpu()).eval().to(memory_format=torch.contiguous_format)
    path.parent.mkdir(parents=True, exist_ok=True)
    any_size = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 1, 64, 96),),
        input_names=["slices"],
        output_names=["probabilities"],
        dynamic_shapes={"slices": {0: any_size, 2: any_size, 3: any_size}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "the exporter returns a program with dynamo"
    with whole(path) as temporary:
        program.save(temporary)


def describe(checkpoint: str, preprocessing: Preprocessing, classes: int) -> dict:
    """What a program has to know beside the graph: classes, and the preprocessing of slices."""
    return {
        "checkpoint": Path(checkpoint).name,
        "sha256": fingerprint(checkpoint),
        "input": "slices, float32 (N, 1, image_size, image_size), gray levels / 255, in a lung window (-650, 1500 HU)",
        "output": "probabilities, float32 (N, classes, image_size, image_size)",
        "classes": ["background", "lesion"] if classes == 2 else ["background", *range(1, classes)],
        "preprocessing": {
            **preprocessing.to_dict(),
            "soft_tissue": SOFT_TISSUE,
            "darkest_tissue": DARKEST_TISSUE,
            "mirror_axis": preprocessing.mirror_axis,
        },
    }


def compare(model: nn.Module, path: Path, sizes: Sequence[tuple[int, int, int]] = SIZES) -> list[Comparison]:
    """Run both on the same random slices: the largest difference, and the median time a slice, in turn."""
    session = installed("onnxruntime", PACKAGES).InferenceSession(str(path), providers=["CPUExecutionProvider"])
    network = Probabilities(model).eval()
    rows = []
    for count, height, width in sizes:
        slices = torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(0))
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            start = time.perf_counter()
            with torch.inference_mode():
                ours = network(slices).numpy()
            middle = time.perf_counter()
            [theirs] = session.run(None, {"slices": slices.numpy()})
            times[0].append(middle - start)
            times[1].append(time.perf_counter() - middle)
        medians = [1000 * float(np.median(each)) / count for each in times]
        rows.append(Comparison((count, height, width), float(np.abs(ours - theirs).max()), *medians))
    return rows


if __name__ == "__main__":
    run(main)
