"""Turn public data sets, or your own scans, into the folders that the training scripts read.

    python -m data.prepare covid-19-20 --source DIR --out datasets/covid-19-20

Writes Train-Image, Train-Mask, Test-Image, Test-Mask and Unlabeled under --out, and manifest.csv, a slice a row.
A scan is split off as a whole. An interrupted run goes on where it stopped; the same seed gives the same files.
"""

import argparse
import csv
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.errors import FileError, InputError
from data.files import list_slices, pair_by_stem, read_all, read_image, read_pair
from data.slicing import FOLDERS, Recipe, save, write_case
from data.sources import find_covid_19_20, find_uestc, find_volumes, split_cases, stop_at_doubled_names
from utils.cli.parser import Parser, exit_if_left_out, number, run, window

COLUMNS = ("file", "source", "case", "slice", "split", "lesion_pixels")
SEMI_SEG = {  # the folders of the public release
    "train": ("TrainingSet/LungInfection-Train/Doctor-label/Imgs", "TrainingSet/LungInfection-Train/Doctor-label/GT"),
    "unlabeled": ("TrainingSet/LungInfection-Train/Pseudo-label/Imgs", None),
    "test": ("TestingSet/LungInfection-Test/Imgs", "TestingSet/LungInfection-Test/GT"),
}


def main() -> None:
    args = parse()
    args.write(args)


def parse() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0], prog="python -m data.prepare")
    sources = parser.add_subparsers(title="sources", required=True, parser_class=_subparser)

    sub = sources.add_parser("covid-semiseg", help="the public release of Inf-Net, slices")
    sub.add_argument("--source", type=Path, required=True, help="holds TrainingSet and TestingSet")
    _add_out(sub)
    sub.set_defaults(write=write_semi_seg)

    for name, find, text in (
        ("covid-19-20", find_covid_19_20, "holds volume-covid19-A-XXXX_ct.nii.gz and ..._seg.nii.gz"),
        ("uestc", find_uestc, "holds image and label, volumes windowed to [0, 1], in itself or one level below"),
    ):
        sub = sources.add_parser(name, help=f"scans: {text}")
        sub.add_argument("--source", type=Path, required=True, help=text)
        sub.set_defaults(write=write_scans, find=find)
        _add_out(sub)
        _add_scan_options(sub)
        if name == "uestc":
            sub.set_defaults(keep="all")  # its scans are cropped to the lungs, which leaves no body to find them in

    sub = sources.add_parser("volumes", help="your own scans: NIfTI, NRRD, MetaImage files or DICOM folders")
    sub.add_argument("--images", required=True, metavar="GLOB", help="such as 'scans/*.nii.gz' or 'dicom/*'")
    sub.add_argument("--masks", metavar="GLOB", help="their masks, named alike but for _ct and _seg; default: none")
    sub.set_defaults(write=write_scans, find=find_volumes)
    _add_out(sub)
    _add_scan_options(sub)
    return parser.parse_args()


def _subparser(**kwargs) -> Parser:
    return Parser(kwargs.pop("description", None) or "", **kwargs)


def _add_out(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="data root to write")


def _add_scan_options(parser: Parser) -> None:
    parser.add_argument("--window", type=window, default="lung", help="lung, which is -650,1500, or LEVEL,WIDTH in HU")
    parser.add_argument("--test_fraction", type=number(float, 0, 1), default=0.2, help="share of scans for testing")
    parser.add_argument("--unlabeled_fraction", type=number(float, 0, 1), default=0.0, help="of the training scans")
    parser.add_argument("--split", type=Path, metavar="FILE", help="CSV with columns case,split in place of fractions")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of the split")
    parser.add_argument("--keep", choices=["all", "lung", "lesion"], default="lung", help="which slices")
    parser.add_argument("--every", type=number(int, 1), default=1, metavar="N", help="keep one slice in N")
    parser.add_argument(
        "--crop", choices=["none", "body", "lungs"], default="none", help="to the part that any slice shows"
    )
    parser.add_argument("--size", type=number(int, 16), help="side of the square to resize to; default: as scanned")
    parser.add_argument("--workers", type=number(int, 1), default=os.cpu_count(), help="scans at a time")


def write_semi_seg(args: argparse.Namespace) -> None:
    """Copy the slices of the release, as PNG, under their own names."""
    if not args.source.is_dir():
        raise InputError(f"{args.source}: no such folder; give the one that holds TrainingSet and TestingSet")
    # An interrupted run is simply done again: it takes seconds, and writes the same files.
    _resume(args.out, {"options": {"release": os.path.abspath(args.source)}, "scans": {}})
    rows = []
    for split, (images, masks) in SEMI_SEG.items():
        folder = args.source / images
        if masks and (args.source / masks).is_dir():
            pairs = pair_by_stem(folder, args.source / masks)
        elif split == "train":
            raise InputError(f"{args.source / masks}: no such folder; give the folder that holds TrainingSet")
        else:
            pairs = [(path, None) for path in list_slices(folder)]
        targets = [args.out / name for name in FOLDERS[split]]

        def convert(pair, split=split, targets=targets) -> dict:
            image, mask = read_pair(pair) if pair[1] else (read_image(pair[0]), None)
            name = f"{pair[0].stem}.png"
            save(image, targets[0] / name)
            if mask:
                save(mask.point(lambda value: 255 * value), targets[1] / name)
            return {
                "file": f"{targets[0].name}/{name}",
                "source": str(pair[0].relative_to(args.source)),
                "case": pair[0].stem,
                "slice": 0,
                "split": split,
                "lesion_pixels": int(np.count_nonzero(mask)) if mask else "",
            }

        rows += read_all(convert, pairs)
    _write_manifest(args.out, rows)
    _report(args.out, rows)


def write_scans(args: argparse.Namespace) -> None:
    """Window, crop and save the slices of every scan, several scans at a time."""
    cases = args.find(args)
    stop_at_doubled_names(cases)
    recipe = Recipe(args.window, args.keep, args.every, args.crop, args.size)
    of_the_split = {name: str(getattr(args, name)) for name in ("test_fraction", "unlabeled_fraction", "seed", "split")}
    settings = {
        "options": asdict(recipe) | of_the_split,
        "splits": split_cases(cases, args),
        "scans": {case.name: os.path.abspath(case.scan) for case in cases},
    }
    splits = _resume(args.out, settings)["splits"]
    rows = _read_manifest(args.out)
    done = {row["case"] for row in rows}
    todo = [case for case in cases if case.name not in done]
    if done:
        print(f"{'resume':<11} {len(cases) - len(todo)} of {len(cases)} scans are done")

    errors = []
    with (
        ProcessPoolExecutor(args.workers) as pool,
        tqdm(total=len(todo), desc="preparing", unit="scan", disable=None) as bar,
    ):
        jobs = [
            pool.submit(write_case, case.name, case.scan, case.mask, splits[case.name], recipe, args.out)
            for case in todo
        ]
        for job in as_completed(jobs):
            try:
                found, note = job.result()
            except FileError as error:
                errors.append(error)
            except BrokenProcessPool as error:
                raise InputError(
                    "a worker was ended from outside, most likely for want of memory; run again with fewer --workers"
                ) from error
            else:
                rows += found
                _write_manifest(args.out, rows)
                if note:
                    tqdm.write(f"{'note':<11} {note}")
            bar.update()
    _report(args.out, rows)
    exit_if_left_out(errors, len(cases))


def _stop_at_files(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: is not empty; remove it or name another --out")


def _resume(out: Path, settings: dict) -> dict:
    """The settings of an interrupted run in ``out``, or these, now on record, if there was none.

    Raises InputError unless that run had the same options, and all of these scans.
    """
    settings = json.loads(json.dumps(settings))  # as they are read back: tuples are lists
    record = out / "prepare.json"
    try:
        if not record.exists():
            _stop_at_files([out / name for names in FOLDERS.values() for name in names])
            out.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(settings, indent=2) + "\n")
            return settings
        earlier = json.loads(record.read_text())
    except ValueError as error:
        raise InputError(
            f"{record}: damaged ({error}); remove it and what is beside it, or name another --out"
        ) from error
    if earlier["options"] != settings["options"]:
        raise InputError(f"{out}: holds slices made with other options; name another --out")
    # A scan may have gone since, if it was bad; one that came would have changed the split.
    if new := [name for name, path in settings["scans"].items() if earlier["scans"].get(name) != path]:
        raise InputError(
            f"{out}: was made without {', '.join(new)} or with another scan of that name; name another --out"
        )
    return earlier


def _read_manifest(out: Path) -> list[dict]:
    manifest = out / "manifest.csv"
    if not manifest.exists():
        return []
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_manifest(out: Path, rows: list[dict]) -> None:
    """Write all rows, in order, under a temporary name, then rename: a kill leaves a whole file."""
    rows.sort(key=lambda row: (row["split"], row["case"], int(row["slice"])))
    temporary = out / "manifest.csv.tmp"
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, out / "manifest.csv")


def _report(out: Path, rows: list[dict]) -> None:
    for split, folders in FOLDERS.items():
        some = [row for row in rows if row["split"] == split]
        cases = len({row["case"] for row in some})
        known = [int(row["lesion_pixels"]) for row in some if row["lesion_pixels"] != ""]
        lesions = f", {sum(pixels > 0 for pixels in known)} with a lesion" if known else ""
        print(f"{split:<11} {len(some)} slices of {cases} cases in {' and '.join(folders)}{lesions}")
    print(f"{'manifest':<11} {out / 'manifest.csv'}")


if __name__ == "__main__":
    run(main)
