"""Convert public data sets and scans to the folders of slices that the training scripts read."""

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.errors import FileError, InputError
from data.folders import FOLDERS, list_slices, pair_by_stem
from data.io.images import read_all, read_image, read_pair
from data.prepare.manifest import begin_or_resume, read_manifest, report, write_manifest
from data.prepare.slicing import Slicing, save, write_case
from data.prepare.sources import SourceScan, Split, split_cases, stop_at_doubled_names

SEMI_SEG = {  # the folders of the public release
    "train": ("TrainingSet/LungInfection-Train/Doctor-label/Imgs", "TrainingSet/LungInfection-Train/Doctor-label/GT"),
    "unlabeled": ("TrainingSet/LungInfection-Train/Pseudo-label/Imgs", None),
    "test": ("TestingSet/LungInfection-Test/Imgs", "TestingSet/LungInfection-Test/GT"),
}


def write_semi_seg(source: Path, out: Path) -> None:
    """Copy the slices of the release, as PNG, under their own names."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the one that contains TrainingSet and TestingSet")
    # An interrupted run starts over: it takes seconds, and writes the same files.
    begin_or_resume(out, {"options": {"release": os.path.abspath(source)}, "scans": {}})
    rows = []
    for split, (images, masks) in SEMI_SEG.items():
        folder = source / images
        pairs: Sequence[tuple[Path, Path | None]]
        if masks and (source / masks).is_dir():
            pairs = pair_by_stem(folder, source / masks)
        elif masks and split == "train":
            raise InputError(f"{source / masks}: no such folder; give the folder that contains TrainingSet")
        else:
            pairs = [(path, None) for path in list_slices(folder)]
        targets = [out / name for name in FOLDERS[split]]

        def convert(pair: tuple[Path, Path | None], split: str = split, targets: list[Path] = targets) -> dict:
            path, mask_path = pair
            image, mask = read_pair((path, mask_path)) if mask_path else (read_image(path), None)
            name = f"{path.stem}.png"
            save(image, targets[0] / name)
            if mask:
                save(mask.point(lambda value: 255 * value), targets[1] / name)
            return {
                "file": f"{targets[0].name}/{name}",
                "source": str(path.relative_to(source)),
                "case": path.stem,
                "slice": 0,
                "split": split,
                "lesion_pixels": int(np.count_nonzero(np.asarray(mask))) if mask else "",
            }

        rows += read_all(convert, pairs)
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
    stop_at_doubled_names(cases)
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
