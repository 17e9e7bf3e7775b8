"""Command-line options that all scripts share: the machine's, and the default folders."""

import argparse

from data.command_line import Parser, number
from utils.config import FOLDERS
from utils.device import choose_device
from utils.precision import choose_precision


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


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what was left out: folders from --data_root, and the device."""
    complete_folders(args)
    args.device = choose_device(args.device)
    choose_precision(args.amp, args.device)  # refuses what the device can't do, before any slice is read
    return args


def complete_folders(args: argparse.Namespace) -> None:
    """Fill in the folders that were left out, from --data_root."""
    for name, folder in {
        **FOLDERS,
        "image_dir": FOLDERS["semi_img_path"],
        "mask_dir": FOLDERS["semi_msk_path"],
    }.items():
        if name in args and getattr(args, name) is None:
            setattr(args, name, args.data_root / folder)
