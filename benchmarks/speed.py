"""Time and memory of CARes-UNet against the published computation, side by side: ``python -m benchmarks.speed``.

Writes speed.json and speed.md, a table for benchmarks/RESULTS.md. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import Timing, Work, interleaved, peak_memory, ratio
from benchmarks.reference import DecodedAtEveryAccess, LoopRanger, PlainUNet, ReferenceUNet, UnfoldedCARAFE
from data.command_line import Parser, number, run
from data.files import pair_by_stem
from data.slices import LesionSlices
from data.transforms import augment
from models import build_model
from models.blocks import fold_batch_norm
from models.carafe import CARAFE
from models.reassembly import reassemble
from utils.checkpoint import save_checkpoint
from utils.losses import segmentation_loss
from utils.optimization import Training
from utils.options import add_device_options, complete
from utils.precision import autocast, choose_precision
from utils.ranger import Ranger
from utils.results import prepare_folder

ROOT = Path(__file__).parent.parent
TRAINING = {
    "epoch": 100,
    "optimizer_type": "ranger",
    "lr": 5e-3,
    "weight_decay": 0.0,
    "lr_schedule": "flat_cosine",
    "clip_grad": 1.0,
    "lesion_margin": 0.0,
    "dice_over": "batch",
    "ema_decay": 0.99,
    "accumulate": 1,
    "checkpoint_activations": False,
    "compile": False,
}
CARAFE_STAGES = (16, 8, 4, 2)  # input channels over the network's width, which is also how much smaller the map is
SLICES = 48  # as many as COVID-SemiSeg has for testing


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--base_channels", type=number(int, 1), default=64, help="width of the networks")
    parser.add_argument("--image_size", type=number(int, 32), default=256, help="side of the slices, a multiple of 16")
    parser.add_argument("--batchsize", type=number(int, 2), default=4, help="slices of a training step, an even number")
    parser.add_argument("--rounds", type=number(int, 1), default=5, help="times that each piece of work is timed")
    parser.add_argument("--save_folder", type=Path, default=Path("runs/speed"), help="for speed.json and speed.md")
    add_device_options(parser)
    parser.set_defaults(**TRAINING)
    args = complete(parser.parse_args(), parser)
    if args.image_size % 16 or args.batchsize % 2:
        parser.error("--image_size, --batchsize: give a multiple of 16, and an even number")
    prepare_folder(args.save_folder)
    print(f"machine     {describe_machine(args.device)}")

    report = Report(args)
    measure_carafe(report, args)
    measure_floor(report, args)
    measure_inference(report, args)
    measure_training(report, args)
    measure_optimizer(report, args)
    with tempfile.TemporaryDirectory() as folder:
        measure_on_slices(report, args, Path(folder))
    measure_context(report, args)
    report.write()


class Report:
    """The rows of the table, one a piece of work, printed as they come."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.rows = args, []

    def add(
        self, name: str, reference: Timing | None, ours: Timing, *, memory: tuple = (None, None), note: str = ""
    ) -> None:
        """memory: gigabytes of the reference and ours."""
        row = {"work": name, "ours_s": ours.median, "ours_spread_s": ours.spread, "note": note}
        if reference:
            row |= {"reference_s": reference.median, "reference_spread_s": reference.spread}
            row |= {"times_faster": ratio(reference, ours)}
        row |= {name: gb for name, gb in zip(("reference_gb", "ours_gb"), memory, strict=True) if gb is not None}
        self.rows.append(row)
        print(markdown_row(row), flush=True)

    def write(self) -> None:
        folder: Path = self.args.save_folder
        machine = describe_machine(self.args.device)
        settings = {name: getattr(self.args, name) for name in ("base_channels", "image_size", "batchsize", "rounds")}
        content = {"machine": machine, "torch": torch.__version__, **settings, "rows": self.rows}
        (folder / "speed.json").write_text(json.dumps(content, indent=2) + "\n")
        table = [HEAD, "|---" * HEAD.count(" | ") + "|---|", *map(markdown_row, self.rows)]
        (folder / "speed.md").write_text(f"{machine}, torch {torch.__version__}\n\n" + "\n".join(table) + "\n")
        print(f"table       {folder / 'speed.md'}")


HEAD = "| work | reference | ours | times faster (range) | memory, reference | ours | |"


def markdown_row(row: dict) -> str:
    def seconds(who: str) -> str:
        if f"{who}_s" not in row:
            return ""
        low, high = row[f"{who}_spread_s"]
        scale, unit = (1, "s") if row[f"{who}_s"] >= 1 else (1e3, "ms")
        return f"{row[f'{who}_s'] * scale:.3g} {unit} ({low * scale:.3g} to {high * scale:.3g})"

    faster = "**{:.2f}** ({:.2f} to {:.2f})".format(*row["times_faster"]) if "times_faster" in row else ""
    memory = [f"{row[f'{who}_gb']:.3g} GB" if f"{who}_gb" in row else "" for who in ("reference", "ours")]
    return " | ".join(["| " + row["work"], seconds("reference"), seconds("ours"), faster, *memory, row["note"] + " |"])


def describe_machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()}-core CPU ({platform.machine()}), {torch.get_num_threads()} threads"


def measure_carafe(report: Report, args: argparse.Namespace) -> None:
    """The four upsamplings of the network: each forward and backward, then all of them."""
    rounds, device = args.rounds, args.device
    for backward in (True, False):
        stages = [[share] for share in CARAFE_STAGES] if backward else []
        for shares in [*stages, CARAFE_STAGES]:
            builds = [(reference, shares, backward, args) for reference in (True, False)]
            memory = (
                tuple(peak_memory(build_carafe, *build, device=device) for build in builds)
                if backward
                else (None, None)
            )
            works = dict(zip(["reference", "ours"], (build_carafe(*build) for build in builds), strict=True))
            timings = interleaved(works, rounds=3 * rounds, device=device)
            channels = [share * args.base_channels for share in shares]
            which = f"{channels[0]} channels" if len(shares) == 1 else "all four stages"
            name = f"CARAFE, {which}, forward" + (" + backward" if backward else "")
            report.add(name, *timings.values(), memory=memory)


def build_carafe(reference: bool, shares: list[int], backward: bool, args: argparse.Namespace) -> Work:
    """One slice through the upsamplings whose input has ``shares`` times the network's width."""
    carafe = UnfoldedCARAFE if reference else CARAFE
    modules, inputs, grads = [], [], []
    for share in shares:
        channels, side = share * args.base_channels, args.image_size // share
        module = carafe(channels, channels // 2).to(args.device)
        x = torch.randn(1, channels, side, side, device=args.device)
        grad = torch.randn(1, channels // 2, 2 * side, 2 * side, device=args.device)
        if not reference:
            module, x, grad = (part.to(memory_format=torch.channels_last) for part in (module, x, grad))
        modules.append(module)
        inputs.append(x.requires_grad_(backward))
        grads.append(grad)
    precision = "off" if reference else choose_precision(args)

    def work() -> None:
        with torch.set_grad_enabled(backward):
            for module, x, grad in zip(modules, inputs, grads, strict=True):
                with autocast(args.device, precision):
                    out = module(x)
                if backward:
                    out.backward(grad.to(out.dtype))
                    x.grad = None

    return work


def measure_floor(report: Report, args: argparse.Namespace) -> None:
    """The reassembly alone against the time that memory needs to read its inputs and write its results once."""
    kind = element_type(args)
    many = torch.zeros(2**28 if args.device.type == "cuda" else 2**24, device=args.device)
    copied = torch.empty_like(many)
    for share in CARAFE_STAGES:
        channels, side = share // 2 * args.base_channels, args.image_size // share
        shapes = {"x": (channels, side), "logits": (100, side), "grad": (channels, 2 * side)}
        x, logits, grad = (
            torch.randn(args.batchsize, c, s, s, device=args.device, dtype=kind).to(memory_format=torch.channels_last)
            for c, s in shapes.values()
        )
        x.requires_grad_()
        logits.requires_grad_()
        works = {
            "forward": torch.no_grad()(lambda x=x, logits=logits: reassemble(x, logits, scale=2)),
            "both": lambda x=x, logits=logits, grad=grad: torch.autograd.grad(
                reassemble(x, logits, scale=2), (x, logits), grad
            ),
            "copy": lambda: copied.copy_(many),
        }
        timings = interleaved(works, rounds=4 * args.rounds, device=args.device, warm_up=3)
        bandwidth = 2 * many.nbytes / timings["copy"].median
        moved = x.nbytes + logits.nbytes + grad.nbytes  # the result is of the gradient's size
        for name, number_of_bytes in (("forward", moved), ("both", moved + moved + x.nbytes + logits.nbytes)):
            times = timings[name].median / (number_of_bytes / bandwidth)
            note = f"{number_of_bytes / 1e6:.3g} MB: {times:.1f} times a copy's time at {bandwidth / 1e9:,.0f} GB/s"
            title = f"reassembly of {channels} channels, {args.batchsize} slices, forward"
            report.add(title + (" + backward" if name == "both" else ""), None, timings[name], note=note)


def measure_inference(report: Report, args: argparse.Namespace) -> None:
    works = {
        "reference": build_inference("reference", args),
        "ours": build_inference("ours", args),
        "ceiling": build_ceiling(args),
    }
    timings = interleaved(works, rounds=2 * args.rounds, device=args.device)
    memory = tuple(peak_memory(build_inference, who, args, device=args.device) for who in ("reference", "ours"))
    batch = inference_batch(args)
    flop = batch * convolution_flop(build_model("cares_unet", base_channels=args.base_channels), args)
    note = share_of_ceiling(flop, timings["ours"], timings["ceiling"], args)
    name = "inference, one slice" if batch == 1 else f"inference, {batch} slices"
    report.add(name, timings["reference"], timings["ours"], memory=memory, note=note)


def inference_batch(args: argparse.Namespace) -> int:
    return 8 if args.device.type == "cuda" else 1  # a CPU gains nothing from larger ones


def build_inference(who: str, args: argparse.Namespace) -> Work:
    """A forward pass in eval mode by one of ``NETWORKS``: ours as test.py does it, the others in float32."""
    model = build_network(who, args).eval()
    model = fold_batch_norm(model) if who == "ours" else model
    precision = choose_precision(args) if who == "ours" else "off"
    x = torch.rand(inference_batch(args), 1, args.image_size, args.image_size, device=args.device)

    @torch.inference_mode()
    def work() -> None:
        with autocast(args.device, precision):
            model(x)

    return work


def build_network(who: str, args: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[who](args.base_channels).to(args.device)


def unet_resnet34(base_channels: int) -> nn.Module:
    """UNet-resnet34 of segmentation_models_pytorch, at its own width; ModuleNotFoundError without that library."""
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=2)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "reference": ReferenceUNet,
    "ours": lambda width: build_model("cares_unet", base_channels=width),
    "plain UNet": PlainUNet,
    "UNet-resnet34": unet_resnet34,
}


def measure_training(report: Report, args: argparse.Namespace) -> None:
    """A step on a batch: forward, loss, backward, optimizer and, in ours, averaged weights."""
    variants = {"ours": {}, "checkpointed": {"checkpoint_activations": True}, "in two parts": {"accumulate": 2}}
    if args.device.type == "cuda":
        variants["compiled"] = {"compile": True}
    works = {"reference": build_reference_step("reference", args)}
    works |= {name: build_step(args, options) for name, options in variants.items()}
    works["ceiling"] = build_ceiling(args)
    timings = interleaved(works, rounds=args.rounds, device=args.device, warm_up=2)
    del works
    theirs = peak_memory(build_reference_step, "reference", args, device=args.device)
    # The backward pass takes twice the forward pass's work: gradients of inputs and of weights.
    flop = 3 * args.batchsize * convolution_flop(build_model("cares_unet", base_channels=args.base_channels), args)
    for name, options in variants.items():
        memory = (theirs, peak_memory(build_step, args, options, device=args.device))
        flags = "".join(
            f", --{option}" + (f" {value}" if value is not True else "") for option, value in options.items()
        )
        note = share_of_ceiling(flop, timings[name], timings["ceiling"], args)
        title = f"training step, {args.batchsize} slices{flags}"
        report.add(title, timings["reference"], timings[name], memory=memory, note=note)


def build_step(args: argparse.Namespace, options: dict) -> Work:
    model = build_network("ours", args).train()
    training = Training(model, argparse.Namespace(**vars(args) | options), steps_per_epoch=10)
    batch = random_batch(args)
    return lambda: training.step(*batch)


def build_reference_step(who: str, args: argparse.Namespace) -> Work:
    model = build_network(who, args).train()
    optimizer = LoopRanger(model.parameters(), lr=args.lr)
    images, masks = random_batch(args)

    def work() -> None:
        optimizer.zero_grad()
        segmentation_loss(model(images), masks).backward()
        optimizer.step()

    return work


def random_batch(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    images = torch.rand(args.batchsize, 1, args.image_size, args.image_size, device=args.device)
    return images, (images[:, 0] > 0.9).long()


def measure_optimizer(report: Report, args: argparse.Namespace) -> None:
    def build(optimizer: Callable) -> Work:
        model = build_network("ours", args)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        return optimizer(model.parameters(), lr=1e-3).step

    works = {
        "reference": build(LoopRanger),
        "ours": build(Ranger),
        "adamw": build(lambda *given, **options: torch.optim.AdamW(*given, **options, foreach=True)),
    }
    timings = interleaved(works, rounds=6 * args.rounds, device=args.device, warm_up=8)
    over_adamw, low, high = ratio(timings["ours"], timings["adamw"])
    note = f"{over_adamw:.2f} times AdamW(foreach=True) ({low:.2f} to {high:.2f})"
    report.add("optimizer step, Ranger", timings["reference"], timings["ours"], note=note)


def measure_on_slices(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Loading slices from files, and test.py from the command line to the last mask, on phantom slices."""
    counts = ["--labeled", SLICES, "--unlabeled", 0, "--test", SLICES, "--size", 400]
    call("-m", "data.phantom", "--out", folder, *counts)
    pairs = pair_by_stem(folder / "Train-Image", folder / "Train-Mask")

    def one_pass(slices: Dataset) -> None:
        for _ in DataLoader(slices, batch_size=args.batchsize):
            pass

    reference = DecodedAtEveryAccess(pairs, args.image_size)
    decoded = LesionSlices(pairs, image_size=args.image_size)
    works = {
        "reference": lambda: one_pass(reference),
        "first": lambda: one_pass(LesionSlices(pairs, image_size=args.image_size)),
        "after": lambda: one_pass(decoded),
    }
    timings = interleaved(works, rounds=2 * args.rounds, device=args.device)
    report.add(f"loading {SLICES} slices, first epoch", timings["reference"], timings["first"])
    report.add(f"loading {SLICES} slices, every later epoch", timings["reference"], timings["after"])
    batch = random_batch(args)
    timings = interleaved({"ours": lambda: augment(*batch)}, rounds=2 * args.rounds, device=args.device)
    report.add(f"augmenting {args.batchsize} slices", None, timings["ours"])

    model = build_network("ours", args)
    preprocessing = {"image_size": args.image_size}
    rest = {"epoch": 0, "best_score": -1.0, "run": {}}
    content = {"model": model.config, "preprocessing": preprocessing, "weights": model.state_dict(), **rest}
    save_checkpoint(folder / "model.pth", content)
    del model, content
    images, published, ours = (folder / name for name in ("Test-Image", "published", "ours"))
    published.mkdir()
    options = ["--test_img_path", images, "--img_save_folder", ours, "--device", args.device, "--amp", args.amp]
    works = {
        "reference": lambda: call("-m", "benchmarks.reference", folder / "model.pth", images, published, args.device),
        "ours": lambda: call("test.py", "--pretrained_model", folder / "model.pth", *options),
    }
    timings = interleaved(works, rounds=(args.rounds + 1) // 2, device=args.device, warm_up=0)
    report.add(f"test.py on {SLICES} slices, start to end", *timings.values())


def call(*arguments) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True)


def measure_context(report: Report, args: argparse.Namespace) -> None:
    """Other networks in float32 with the plain optimizer, for scale."""
    for who in ("plain UNet", "UNet-resnet34"):
        if who == "UNet-resnet34" and not find_spec("segmentation_models_pytorch"):
            print(f"{who}: left out; pip install segmentation-models-pytorch")
            continue
        model = build_network(who, args)
        millions, flop = sum(p.numel() for p in model.parameters()) / 1e6, convolution_flop(model, args)
        note = f"{millions:.1f} M parameters, {flop / 1e9:.0f} GFLOP a slice"
        works = {"inference": build_inference(who, args), "training": build_reference_step(who, args)}
        timings = interleaved(works, rounds=args.rounds, device=args.device)
        memory = peak_memory(build_reference_step, who, args, device=args.device)
        report.add(f"{who}: inference", None, timings["inference"], note=note)
        report.add(f"{who}: training step", None, timings["training"], memory=(None, memory))


def build_ceiling(args: argparse.Namespace) -> Work:
    """A product of square matrices in the precision of our network, ``2 * ceiling_side**3`` operations."""
    side = ceiling_side(args)
    a, b = (torch.randn(side, side, device=args.device, dtype=element_type(args)) for _ in range(2))
    return lambda: a @ b


def element_type(args: argparse.Namespace) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(choose_precision(args), torch.float32)


def ceiling_side(args: argparse.Namespace) -> int:
    return 8192 if args.device.type == "cuda" else 4096


def share_of_ceiling(flop: float, work: Timing, ceiling: Timing, args: argparse.Namespace) -> str:
    achieved, most = flop / work.median / 1e9, 2 * ceiling_side(args) ** 3 / ceiling.median / 1e9
    return f"{achieved:,.0f} GFLOP/s, {achieved / most:.0%} of a matrix product's {most:,.0f}"


def convolution_flop(model: nn.Module, args: argparse.Namespace) -> int:
    """Floating-point operations of a slice's forward pass; in ours, convolutions are 99.7 % of them."""
    from torch.utils.flop_counter import FlopCounterMode  # here, as it imports Triton

    image = torch.rand(1, 1, args.image_size, args.image_size, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    return counter.get_total_flops()


if __name__ == "__main__":
    run(main)
