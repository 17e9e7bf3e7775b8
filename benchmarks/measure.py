"""Measure alternatives side by side: times interleaved in one process, peak memory in separate processes."""

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

Work = Callable[[], object]


@dataclass
class Timing:
    """Seconds of every round. ``spread`` is the range of the middle half."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]


def interleaved(works: Mapping[str, Work], *, rounds: int, device: torch.device, warm_up: int = 1) -> dict[str, Timing]:
    """Time every piece of work once per round, in turn, so that a slow machine slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    bar = tqdm(total=(rounds + warm_up) * len(works), leave=False, disable=None)
    for number in range(-warm_up, rounds):
        for name, work in works.items():
            bar.set_description_str(name, refresh=False)
            _wait(device)
            started = time.perf_counter()
            work()
            _wait(device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
            bar.update()
    bar.close()
    return {name: Timing(values) for name, values in seconds.items()}


def ratio(reference: Timing, ours: Timing) -> tuple[float, float, float]:
    """How many times faster ours is: median over the rounds, and the lowest and highest."""
    ratios = [theirs / own for theirs, own in zip(reference.seconds, ours.seconds, strict=True)]
    return median(ratios), min(ratios), max(ratios)


def peak_memory(build: Callable[..., Work], *arguments: object, device: torch.device) -> float | None:
    """Gigabytes that ``build(*arguments)`` and two runs of the work that it returns take at most.

    On a GPU, what torch allocates; on a CPU, the growth of a new process, measured on Linux only (elsewhere None).
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _run_twice(build, arguments)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e9
    if not Path("/proc/self/clear_refs").exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (build, arguments, torch.get_num_threads()))


def _growth(build: Callable[..., Work], arguments: tuple, threads: int) -> float:
    torch.set_num_threads(threads)
    build(*arguments)()  # memory that the libraries keep is not counted
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the high-water mark
    before = _resident("VmRSS")
    _run_twice(build, arguments)
    return (_resident("VmHWM") - before) / 1e6


def _run_twice(build: Callable[..., Work], arguments: tuple) -> None:
    work = build(*arguments)
    for _ in range(2):  # optimizer states come with the first step
        work()


def _resident(name: str) -> int:
    """Kilobytes of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
