"""CARAFE against its definition, and its reassembly against the time of the memory traffic."""

import torch
from torch import nn

from benchmarks.measure import Work, interleaved, peak_memory
from benchmarks.reference import UnfoldedCARAFE
from benchmarks.speed.ceiling import element_type
from benchmarks.speed.report import Report
from benchmarks.speed.setting import Setting
from models.carafe import reassemble
from models.upsampling import CARAFE
from utils.device import autocast, choose_precision

CARAFE_STAGES = (16, 8, 4, 2)  # input channels over the network's width, and image side over the map's


def measure_carafe(report: Report, setting: Setting) -> None:
    _measure_against_definition(report, setting)
    _measure_against_memory(report, setting)


def _measure_against_definition(report: Report, setting: Setting) -> None:
    """The four upsamplings of the network: each forward and backward, then all of them."""
    rounds, device = setting.rounds, setting.device
    for backward in (True, False):
        stages = [[share] for share in CARAFE_STAGES] if backward else []
        for shares in [*stages, CARAFE_STAGES]:
            builds = [(reference, list(shares), backward, setting) for reference in (True, False)]
            memory = (
                tuple(peak_memory(build_carafe, *build, device=device) for build in builds)
                if backward
                else (None, None)
            )
            works = dict(zip(["reference", "ours"], (build_carafe(*build) for build in builds), strict=True))
            timings = interleaved(works, rounds=3 * rounds, device=device)
            channels = [share * setting.base_channels for share in shares]
            which = f"{channels[0]} channels" if len(shares) == 1 else "all four stages"
            name = f"CARAFE, {which}, forward" + (" + backward" if backward else "")
            report.add(name, *timings.values(), memory=memory)


def build_carafe(reference: bool, shares: list[int], backward: bool, setting: Setting) -> Work:
    """Slices through the upsamplings whose input has ``shares`` times the network's width; a GPU needs many of them."""
    slices = many_on_a_gpu(1, setting)
    carafe = UnfoldedCARAFE if reference else CARAFE
    modules: list[nn.Module] = []
    inputs, grads = [], []
    for share in shares:
        channels, side = share * setting.base_channels, setting.image_size // share
        module: nn.Module = carafe(channels, channels // 2).to(setting.device)
        x = torch.randn(slices, channels, side, side, device=setting.device)
        grad = torch.randn(slices, channels // 2, 2 * side, 2 * side, device=setting.device)
        if not reference:
            module = module.to(memory_format=torch.channels_last)
            x, grad = (part.to(memory_format=torch.channels_last) for part in (x, grad))
        modules.append(module)
        inputs.append(x.requires_grad_(backward))
        grads.append(grad)
    precision = "off" if reference else choose_precision(setting.amp, setting.device)

    def work() -> None:
        with torch.set_grad_enabled(backward):
            for module, x, grad in zip(modules, inputs, grads, strict=True):
                with autocast(setting.device, precision):
                    out = module(x)
                if backward:
                    out.backward(grad.to(out.dtype))
                    x.grad = None

    return work


def many_on_a_gpu(slices: int, setting: Setting) -> int:
    """Enough slices that a GPU takes much longer than a launch, and its cache holds few of them."""
    return 16 * slices if setting.device.type == "cuda" else slices


def _measure_against_memory(report: Report, setting: Setting) -> None:
    """Only the reassembly, against the time to read its inputs and write its results once."""
    kind, slices = element_type(setting), many_on_a_gpu(setting.batchsize, setting)
    many = torch.zeros(2**28 if setting.device.type == "cuda" else 2**24, device=setting.device)
    copied = torch.empty_like(many)
    for share in CARAFE_STAGES:
        channels, side = share // 2 * setting.base_channels, setting.image_size // share
        shapes = {"x": (channels, side), "logits": (100, side), "grad": (channels, 2 * side)}
        x, logits, grad = (
            torch.randn(slices, c, s, s, device=setting.device, dtype=kind).to(memory_format=torch.channels_last)
            for c, s in shapes.values()
        )
        x.requires_grad_()
        logits.requires_grad_()
        works: dict[str, Work] = {
            "forward": torch.no_grad()(lambda x=x, logits=logits: reassemble(x, logits, scale=2)),
            "both": lambda x=x, logits=logits, grad=grad: torch.autograd.grad(  # type: ignore[misc]
                reassemble(x, logits, scale=2), (x, logits), grad
            ),
            "copy": lambda: copied.copy_(many),
        }
        timings = interleaved(works, rounds=4 * setting.rounds, device=setting.device, warm_up=3)
        bandwidth = 2 * many.nbytes / timings["copy"].median
        moved = x.nbytes + logits.nbytes + grad.nbytes  # the result has the size of the gradient
        for name, number_of_bytes in (("forward", moved), ("both", moved + moved + x.nbytes + logits.nbytes)):
            times = timings[name].median / (number_of_bytes / bandwidth)
            note = f"{number_of_bytes / 1e6:.3g} MB: {times:.1f} times a copy's time at {bandwidth / 1e9:,.0f} GB/s"
            title = f"reassembly of {channels} channels, {slices} slices, forward"
            report.add(title + (" + backward" if name == "both" else ""), None, timings[name], note=note)
