"""The whole network: predicting, training steps, the optimizer's step, and other networks for scale."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.measure import Work, interleaved, peak_memory, ratio
from benchmarks.reference import LoopRanger, ReferenceUNet
from benchmarks.speed.ceiling import build_ceiling, convolution_flop, share_of_ceiling
from benchmarks.speed.report import Report
from benchmarks.speed.setting import Setting
from models import build_model
from utils import malloc
from utils.config import TrainingConfig
from utils.device import autocast, choose_precision
from utils.training.losses import ce_dice
from utils.training.ranger import Ranger
from utils.training.state import Training

TRAINING = TrainingConfig(epoch=100, lr=5e-3, lesion_margin=0.0, dice_over="batch")

# The state of malloc in a program that sets no options and frees blocks of more than 32 MiB.
AS_IT_COMES = {**malloc.TRAINING, malloc.M_TRIM_THRESHOLD: 64 << 20}


def measure_inference(report: Report, setting: Setting) -> None:
    works = {
        "reference": build_inference("reference", setting),
        "ours": build_inference("ours", setting),
        "ceiling": build_ceiling(setting),
    }
    timings = interleaved(works, rounds=2 * setting.rounds, device=setting.device)
    memory = tuple(peak_memory(build_inference, who, setting, device=setting.device) for who in ("reference", "ours"))
    batch = inference_batch(setting)
    flop = batch * convolution_flop(build_model("cares_unet", base_channels=setting.base_channels), setting)
    note = share_of_ceiling(flop, timings["ours"], timings["ceiling"], setting)
    name = "inference, one slice" if batch == 1 else f"inference, {batch} slices"
    report.add(name, timings["reference"], timings["ours"], memory=memory, note=note)


def inference_batch(setting: Setting) -> int:
    return 8 if setting.device.type == "cuda" else 1  # a CPU is no faster with larger ones


def build_inference(who: str, setting: Setting) -> Work:
    """A forward pass in eval mode by one of ``NETWORKS``: ours as in test.py, the others in float32."""
    model = build_network(who, setting).eval()
    precision = choose_precision(setting.amp, setting.device) if who == "ours" else "off"
    options = malloc.PREDICTING if who == "ours" else AS_IT_COMES
    x = torch.rand(inference_batch(setting), 1, setting.image_size, setting.image_size, device=setting.device)

    @torch.inference_mode()
    def work() -> None:
        malloc.set_options(options)
        with autocast(setting.device, precision):
            model(x)

    return work


def build_network(who: str, setting: Setting) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[who](setting.base_channels).to(setting.device)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "reference": ReferenceUNet,
    "ours": lambda width: build_model("cares_unet", base_channels=width),
    "plain UNet": lambda width: build_model("unet", base_channels=width),
    "UNet-resnet34": lambda width: build_model("unet_resnet34"),
}


def measure_training(report: Report, setting: Setting) -> None:
    """A step on a batch: forward, loss, backward, optimizer and, in ours, averaged weights."""
    theirs = peak_memory(build_reference_step, "reference", setting, device=setting.device)
    # The backward pass costs two forward passes: gradients of inputs and of weights.
    flop = (
        3
        * setting.batchsize
        * convolution_flop(build_model("cares_unet", base_channels=setting.base_channels), setting)
    )
    variants: list[dict] = [{}, {"accumulate": 2}]
    # --compile comes last: it takes a minute or more, in which the measurement may be stopped.
    for part in [variants, *([[{"compile": True}]] if setting.device.type == "cuda" else [])]:
        works = {"reference": build_reference_step("reference", setting), "ceiling": build_ceiling(setting)}
        works |= {name_flags(options): build_step(setting, options) for options in part}
        timings = interleaved(works, rounds=setting.rounds, device=setting.device, warm_up=2)
        del works
        for options in part:
            memory = (theirs, peak_memory(build_step, setting, options, device=setting.device))
            ours = timings[name_flags(options)]
            note = share_of_ceiling(flop, ours, timings["ceiling"], setting)
            title = f"training step, {setting.batchsize} slices{name_flags(options)}"
            report.add(title, timings["reference"], ours, memory=memory, note=note)


def name_flags(options: dict) -> str:
    """For example ", --accumulate 2"; empty without options."""
    return "".join(f", --{name}" + (f" {value}" if value is not True else "") for name, value in options.items())


def build_step(setting: Setting, options: dict) -> Work:
    model = build_network("ours", setting).train()
    training = Training(model, replace(TRAINING, amp=setting.amp, **options), steps_per_epoch=10)
    batch = random_batch(setting)

    def work() -> None:
        malloc.set_options(malloc.TRAINING)
        training.step(*batch)

    return work


def build_reference_step(who: str, setting: Setting) -> Work:
    model = build_network(who, setting).train()
    optimizer = LoopRanger(model.parameters(), lr=TRAINING.learning_rate)
    images, masks = random_batch(setting)

    def work() -> None:
        malloc.set_options(AS_IT_COMES)
        optimizer.zero_grad()
        ce_dice(model(images), masks).backward()
        optimizer.step()

    return work


def random_batch(setting: Setting) -> tuple[Tensor, Tensor]:
    images = torch.rand(setting.batchsize, 1, setting.image_size, setting.image_size, device=setting.device)
    return images, (images[:, 0] > 0.9).long()


def measure_optimizer(report: Report, setting: Setting) -> None:
    def build(optimizer: Callable) -> Work:
        model = build_network("ours", setting)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        return optimizer(model.parameters(), lr=1e-3).step

    works = {
        "reference": build(LoopRanger),
        "ours": build(Ranger),
        "adamw": build(lambda *given, **options: torch.optim.AdamW(*given, **options, foreach=True)),
    }
    timings = interleaved(works, rounds=6 * setting.rounds, device=setting.device, warm_up=8)
    over_adamw, low, high = ratio(timings["ours"], timings["adamw"])
    note = f"{over_adamw:.2f} times AdamW(foreach=True) ({low:.2f} to {high:.2f})"
    report.add("optimizer step, Ranger", timings["reference"], timings["ours"], note=note)


def measure_context(report: Report, setting: Setting) -> None:
    """Other networks in float32 with the plain optimizer, for scale."""
    for who in ("plain UNet", "UNet-resnet34"):
        if who == "UNet-resnet34" and not find_spec("segmentation_models_pytorch"):
            print(f"{who}: left out; pip install segmentation-models-pytorch")
            continue
        model = build_network(who, setting)
        millions, flop = sum(p.numel() for p in model.parameters()) / 1e6, convolution_flop(model, setting)
        note = f"{millions:.1f} M parameters, {flop / 1e9:.0f} GFLOP a slice"
        works = {"inference": build_inference(who, setting), "training": build_reference_step(who, setting)}
        timings = interleaved(works, rounds=setting.rounds, device=setting.device)
        memory = peak_memory(build_reference_step, who, setting, device=setting.device)
        report.add(f"{who}: inference", None, timings["inference"], note=note)
        report.add(f"{who}: training step", None, timings["training"], memory=(None, memory))
