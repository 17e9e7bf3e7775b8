"""Synthetic chest CT slices with COVID-19-like lesions and their masks.

    python -m data.phantom --out datasets/phantom

Every slice depends on the seed, its folder and its number only. Labeled slices come from a narrow range of
appearances, unlabeled and test slices from a wide one: that gap is what semi-supervised training can close.
"""

from itertools import chain
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.folders import FOLDERS
from data.phantom.slices import write
from utils.cli.parser import Parser, number, run


def main() -> None:
    parser = Parser(__doc__.splitlines()[0], prog="python -m data.phantom")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="data root to write")
    parser.add_argument("--labeled", type=number(int, 0), default=40, metavar="N", help="training slices")
    parser.add_argument("--unlabeled", type=number(int, 0), default=160, metavar="N", help="without masks")
    parser.add_argument("--unlabeled_truth", action="store_true", help="also save their masks, to score pseudo labels")
    parser.add_argument("--test", type=number(int, 0), default=20, metavar="N", help="test slices")
    parser.add_argument("--volumes", type=number(int, 0), metavar="N", help="scans as NIfTI and DICOM, no slices")
    parser.add_argument("--depth", type=number(int, 3), default=40, metavar="D", help="slices of such a scan")
    parser.add_argument("--size", type=number(int, 64), default=256, metavar="S", help="pixels a side")
    parser.add_argument("--seed", type=number(int, 0), default=0, metavar="K", help="same seed, same bytes")
    args = parser.parse_args()

    counts = {"train": args.labeled, "unlabeled": args.unlabeled, "test": args.test}
    names = FOLDERS | ({"unlabeled": ("Unlabeled", "Unlabeled-Mask")} if args.unlabeled_truth else {})
    folders = {split: [args.out / name for name in names[split]] for split in counts if counts[split]}
    for folder in chain(*folders.values()) if args.volumes is None else [args.out]:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: remove it or choose another --out")
    try:
        if args.volumes is not None:
            from data.phantom.volumes import write_volumes

            write_volumes(args.out, args.volumes, args.size, args.depth, args.seed)
            print(f"{args.volumes} scans of {args.depth} slices in {args.out}: COVID-19-20, UESTC, DICOM, DICOM-Mask")
            return
        shares = write(folders, counts, args.size, args.seed)
    except OSError as problem:
        raise InputError(f"cannot write the phantom: {problem}") from problem
    print(", ".join(f"{count} {split}" for split, count in counts.items()), f"slices in {args.out}")
    if len(shares):
        print(f"{np.mean(shares == 0):.0%} without lesion, mean lesion share {shares.mean():.1%} of the pixels")


if __name__ == "__main__":
    run(main)
