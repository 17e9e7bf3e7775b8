"""What a network costs: parameters, operations, time and memory of a prediction, time of its training."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.measure import interleaved, peak_memory
from models.size import size_of
from utils.checkpoint import load_model, read_checkpoint
from utils.training.log import read_log


class Cost(NamedTuple):
    """Of one network; operations, time and memory (GB, None where it can't be measured) of a slice of ``size``."""

    rate: float
    size: int
    parameters: int
    gflop: float
    training_minutes: float
    milliseconds: float
    memory: float | None


def costs(runs: Mapping[str, Sequence[Path]], *, rounds: int = 7) -> dict[str, Cost]:
    """The cost of each network by its training runs; predictions are timed in turn, one slice at a time, on the CPU."""
    firsts = {name: some[0] / "best.pth" for name, some in runs.items()}
    works = {name: forward(path) for name, path in firsts.items()}
    timings = interleaved(works, rounds=rounds, device=torch.device("cpu"), warm_up=2)
    found = {}
    for name, path in firsts.items():
        content = read_checkpoint(path)
        size = content["preprocessing"]["image_size"]
        network: dict[str, Any] = dict(content["model"])
        parameters, flop = size_of(network.pop("name"), size=size, **network)
        minutes = [sum(row["seconds"] for row in read_log(run / "log.csv")) / 60 for run in runs[name]]
        memory = peak_memory(forward, path, device=torch.device("cpu"))
        seconds = timings[name].median
        rate = content["run"]["options"]["lr"]
        found[name] = Cost(rate, size, parameters, flop / 1e9, sum(minutes) / len(minutes), 1000 * seconds, memory)
    return found


def forward(checkpoint: Path) -> Callable[[], object]:
    """A forward pass of a network on one slice of its size."""
    model, preprocessing = load_model(checkpoint)
    slices = torch.rand(1, 1, preprocessing.image_size, preprocessing.image_size)
    return partial(_run, model, slices)


@torch.inference_mode()
def _run(model: torch.nn.Module, slices: torch.Tensor) -> torch.Tensor:
    return model(slices)
