"""Convert public data sets, or your own scans, to the folders that the training scripts read.

    python -m data.prepare covid-19-20 --source DIR --out datasets/covid-19-20

Writes Train-Image, Train-Mask, Test-Image, Test-Mask and Unlabeled under --out, and manifest.csv, a slice a row.
All slices of a scan go to one split. An interrupted run resumes; the same seed gives the same files.
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.io.reading import Reading
from data.prepare.convert import write_scans, write_slices
from data.prepare.slicing import Slicing
from data.prepare.sources import (
    Split,
    by_split,
    find_covid_19_20,
    find_semi_seg,
    find_slices,
    find_uestc,
    find_volumes,
)
from utils.cli.parser import Parser, exit_if_left_out, number, run, settings, window
from utils.output.console import report_reading


def main() -> None:
    args = parse()
    args.prepare(args)


def prepare_semi_seg(args: argparse.Namespace) -> None:
    write_slices(find_semi_seg(args.source), args.out, {"release": os.path.abspath(args.source)})


def prepare_slices(args: argparse.Namespace) -> None:
    cases = find_slices(args.images, args.masks)
    reading = settings(args, Reading).for_slices([case.scan for case in cases])
    options = {"images": os.path.abspath(args.images), "masks": args.masks and os.path.abspath(args.masks)}
    options |= {name: str(value) for how in (settings(args, Split), reading) for name, value in asdict(how).items()}
    report_reading(reading)
    write_slices(by_split(cases, settings(args, Split)), args.out, options, reading)


def prepare_scans(args: argparse.Namespace) -> None:
    cases = args.find(args)
    errors = write_scans(cases, settings(args, Slicing), settings(args, Split), args.out, workers=args.workers)
    exit_if_left_out(errors, len(cases))


def parse() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0], prog="python -m data.prepare")
    sources = parser.add_subparsers(title="sources", required=True, parser_class=_subparser)  # type: ignore[call-overload]

    sub = sources.add_parser("covid-semiseg", help="the public release of Inf-Net, slices")
    sub.add_argument("--source", type=Path, required=True, help="folder that contains TrainingSet and TestingSet")
    _add_out(sub)
    sub.set_defaults(prepare=prepare_semi_seg)

    for name, find, text in (
        ("covid-19-20", find_covid_19_20, "folder that contains volume-covid19-A-XXXX_ct.nii.gz and ..._seg.nii.gz"),
        ("uestc", find_uestc, "folder with image and label, volumes windowed to [0, 1], in itself or one level below"),
    ):
        sub = sources.add_parser(name, help=f"scans: {text}")
        sub.add_argument("--source", type=Path, required=True, help=text)
        sub.set_defaults(prepare=prepare_scans, find=lambda args, find=find: find(args.source))
        _add_out(sub)
        _add_scan_options(sub)
        if name == "uestc":
            sub.set_defaults(keep="all")  # its scans are cropped to the lungs, so no body can be found

    sub = sources.add_parser("volumes", help="your own scans: NIfTI, NRRD, MetaImage files or DICOM folders")
    sub.add_argument("--images", required=True, metavar="GLOB", help="such as 'scans/*.nii.gz' or 'dicom/*'")
    sub.add_argument(
        "--masks", metavar="GLOB", help="their masks, of the same names except for _ct and _seg; default: none"
    )
    sub.set_defaults(prepare=prepare_scans, find=lambda args: find_volumes(args.images, args.masks))
    _add_out(sub)
    _add_scan_options(sub)

    sub = sources.add_parser("slices", help="your own slices, in one folder or in sub-folders, one a patient")
    sub.add_argument("--images", required=True, metavar="GLOB", help="such as 'slices/*/*.png' or 'slices/*/images/*'")
    sub.add_argument(
        "--masks", metavar="GLOB", help="their masks; sub-folders and names may differ in what all share; default: none"
    )
    sub.add_argument(
        "--mask_threshold", type=number(float, 0, 1), help="share of gray levels above which pixels of masks are lesion"
    )
    sub.set_defaults(prepare=prepare_slices)
    _add_out(sub)
    _add_reading_options(sub)
    _add_split_options(sub)
    return parser.parse_args()


def _subparser(**kwargs: Any) -> Parser:
    return Parser(kwargs.pop("description", None) or "", **kwargs)


def _add_out(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="data root to write")


def _add_reading_options(parser: Parser) -> None:
    parser.add_argument("--window", type=window, default="lung", help="lung, which is -650,1500, or LEVEL,WIDTH in HU")
    parser.add_argument(
        "--hu_offset", type=number(float, -(2**16), 2**16), help="what was added to Hounsfield units, such as 1024"
    )


def _add_split_options(parser: Parser) -> None:
    parser.add_argument("--test_fraction", type=number(float, 0, 1), default=0.2, help="share of scans for testing")
    parser.add_argument(
        "--unlabeled_fraction", type=number(float, 0, 1), default=0.0, help="share of the training scans"
    )
    parser.add_argument("--split", type=Path, metavar="FILE", help="CSV with columns case,split instead of fractions")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of the split")


def _add_scan_options(parser: Parser) -> None:
    _add_reading_options(parser)
    _add_split_options(parser)
    parser.add_argument("--keep", choices=["all", "lung", "lesion"], default="lung", help="slices to keep")
    parser.add_argument("--every", type=number(int, 1), default=1, metavar="N", help="keep one slice in N")
    parser.add_argument(
        "--crop", choices=["none", "body", "lungs"], default="none", help="crop a scan to its body, or to its lungs"
    )
    parser.add_argument(
        "--any_values", action="store_true", help="convert volumes whose values can't be those of a chest CT, too"
    )
    parser.add_argument("--series", type=number(int, 1), help="which series of DICOM folders with several")
    parser.add_argument("--label", type=number(int, 0), nargs="+", help="values of lesions in masks with several")
    parser.add_argument("--size", type=number(int, 16), help="side of the square to resize to; default: as scanned")
    parser.add_argument("--workers", type=number(int, 1), default=os.cpu_count(), help="scans at a time")


if __name__ == "__main__":
    run(main)
