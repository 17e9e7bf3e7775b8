"""The record of a data set: the settings by which its preparation resumes, and manifest.csv."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

from data.errors import InputError
from data.folders import FOLDERS

COLUMNS = ("file", "source", "case", "slice", "split", "lesion_pixels")


def begin_or_resume(out: Path, settings: dict) -> dict:
    """The settings of an interrupted run in ``out``; if there was none, record and return these.

    Raises InputError unless that run had the same options and all of these scans.
    """
    settings = json.loads(json.dumps(settings))  # as they are read back: lists, not tuples
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
            f"{record}: damaged ({error}); remove it and the files beside it, or name another --out"
        ) from error
    if earlier["options"] != settings["options"]:
        raise InputError(f"{out}: contains slices made with other options; name another --out")
    # A bad scan may have been removed since; a new one would have changed the split.
    if new := [name for name, path in settings["scans"].items() if earlier["scans"].get(name) != path]:
        raise InputError(
            f"{out}: was made without {', '.join(new)} or with another scan of that name; name another --out"
        )
    return earlier


def _stop_at_files(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: is not empty; remove it or name another --out")


def read_manifest(out: Path) -> list[dict]:
    manifest = out / "manifest.csv"
    if not manifest.exists():
        return []
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def write_manifest(out: Path, rows: list[dict]) -> None:
    """Write all rows, in order, under a temporary name, then rename: if killed, it leaves a whole file."""
    rows.sort(key=lambda row: (row["split"], row["case"], int(row["slice"])))
    temporary = out / "manifest.csv.tmp"
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, out / "manifest.csv")


def report(out: Path, rows: list[dict]) -> None:
    for split, folders in FOLDERS.items():
        some = [row for row in rows if row["split"] == split]
        cases = len({row["case"] for row in some})
        known = [int(row["lesion_pixels"]) for row in some if row["lesion_pixels"] != ""]
        lesions = f", {sum(pixels > 0 for pixels in known)} with a lesion" if known else ""
        print(f"{split:<11} {len(some)} slices of {cases} cases in {' and '.join(folders)}{lesions}")
    print(f"{'manifest':<11} {out / 'manifest.csv'}")
