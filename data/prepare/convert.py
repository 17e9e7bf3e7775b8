"""Convert public data sets and scans to the folders of slices that the training scripts read."""

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.errors import FileError, InputError
from data.folders import FOLDERS
from data.io.images import read_all, read_pair
from data.io.reading import AS_STORED, Reading
from data.prepare.manifest import begin_or_resume, read_manifest, report, write_manifest
from data.prepare.slicing import Slicing, save, write_case
from data.prepare.sources import SourceScan, Split, split_cases


def write_slices(splits: dict[str, list[SourceScan]], out: Path, options: dict, reading: Reading = AS_STORED) -> None:
    """Copy slices as PNG of 8 bits, under their names. ``options``: a run with others needs another folder."""
    # An interrupted run starts over: it takes seconds, and writes the same files.
    begin_or_resume(out, {"options": options, "scans": {}})
    rows = []
    for split, cases in splits.items():
        targets = [out / name for name in FOLDERS[split]]

        def convert(case: SourceScan, split: str = split, targets: list[Path] = targets) -> dict:
            image, *masks = read_pair([path for path in (case.scan, case.mask) if path], reading)
            pictures = [image, *(mask.point(lambda value: 255 * value) for mask in masks)]
            for folder, picture in zip(targets, pictures, strict=False):
                save(picture, folder / f"{case.name}.png")
            return {
                "file": f"{targets[0].name}/{case.name}.png",
                "source": str(case.scan),
                "case": case.patient,
                "split": split,
                "lesion_pixels": int(np.count_nonzero(np.asarray(masks[0]))) if masks else "",
            }

        some = read_all(convert, cases)
        count: Counter[str] = Counter()
        for row in some:
            row["slice"] = count[row["case"]]
            count[row["case"]] += 1
        rows += some
    write_manifest(out, rows)
    report(out, rows)


def _end_with(parent: int) -> None:
    """End this worker soon after its parent, even if that is killed: nothing may write what no record names."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_scans(
    cases: Sequence[SourceScan], slicing: Slicing, split: Split, out: Path, *, workers: int
) -> list[FileError]:
    """Window, crop and save the slices of every scan, ``workers`` scans at a time.

    Returns the errors of the scans that could not be used; the others are done.
    """
    settings = {
        "options": asdict(slicing) | {name: str(value) for name, value in asdict(split).items()},
        "splits": split_cases(cases, split),
        "scans": {case.name: os.path.abspath(case.scan) for case in cases},
    }
    splits = begin_or_resume(out, settings)["splits"]
    rows = read_manifest(out)
    done = {row["case"] for row in rows}
    todo = [case for case in cases if case.name not in done]
    if done:
        print(f"{'resume':<11} {len(cases) - len(todo)} of {len(cases)} scans are complete")

    errors = []
    with (
        ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),)) as pool,
        tqdm(total=len(todo), desc="preparing", unit="scan", disable=None) as bar,
    ):
        jobs = [
            pool.submit(write_case, case.name, case.scan, case.mask, splits[case.name], slicing, out) for case in todo
        ]
        for job in as_completed(jobs):
            try:
                found, note = job.result()
            except FileError as error:
                errors.append(error)
            except BrokenProcessPool as error:
                raise InputError(
                    "a worker was killed, most likely for lack of memory; run again with fewer --workers"
                ) from error
            else:
                rows += found
                write_manifest(out, rows)
                if note:
                    tqdm.write(f"{'note':<11} {note}")
            bar.update()
    report(out, rows)
    return errors
