"""Command-line options that all scripts share: the machine's, and the default folders."""

import argparse

import torch

from data.command_line import Parser, number
from utils.precision import choose_precision

FOLDERS = {
    "train_img_path": "Train-Image",
    "train_msk_path": "Train-Mask",
    "semi_img_path": "Unlabeled",
    "semi_msk_path": "Pos-Mask",
    "image_dir": "Unlabeled",
    "mask_dir": "Pos-Mask",
}


def add_device_options(parser: Parser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto (a CUDA GPU or else the CPU), cpu, cuda, cuda:N or mps")
    group.add_argument(
        "--num_workers",
        type=number(int, 0),
        help="loader processes; default: 0, or up to 4 if the slices do not fit in --cache_gb",
    )
    group.add_argument(
        "--amp",
        choices=["auto", "off", "bf16", "fp16"],
        default="auto",
        help="mixed precision; auto: bf16 or fp16 on a GPU, off on a CPU",
    )
    group.add_argument(
        "--cache_gb", type=number(float, 0), default=4.0, help="GB in which each set of decoded slices is kept, or not"
    )


def complete(args: argparse.Namespace, parser: Parser) -> argparse.Namespace:
    """Fill in what was left out: folders from --data_root, and the device."""
    complete_folders(args)
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(args.device)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("neither cpu, cuda nor mps")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise RuntimeError("no Apple GPU that PyTorch can use is there")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {args.device}: {str(error).splitlines()[0][:200]}; use --device auto")
    args.device = device
    choose_precision(args)  # refuses what the device can't do, before any slice is read
    return args


def complete_folders(args: argparse.Namespace) -> None:
    """Fill in the folders that were left out, from --data_root."""
    for name, folder in FOLDERS.items():
        if name in args and getattr(args, name) is None:
            setattr(args, name, args.data_root / folder)
