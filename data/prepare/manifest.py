"""The record of a data set: the settings by which its preparation resumes, and manifest.csv."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from data.errors import InputError, reason_of
from data.folders import FOLDERS
from data.io.whole import write_whole

COLUMNS = ("file", "source", "case", "slice", "split", "lesion_pixels")


def begin_or_resume(out: Path, settings: dict) -> dict:
    """The settings of an interrupted run in ``out``; if there was none, record and return these.

    Raises InputError unless that run had the same options and all of these scans.
    """
    settings = json.loads(json.dumps(settings))  # as they are read back: lists, not tuples
    record = out / "prepare.json"
    if links := [out / name for names in FOLDERS.values() for name in names if (out / name).is_symlink()]:
        raise InputError(f"{links[0]}: is a link, which leads out of {out}; remove it or name another --out")
    try:
        if not record.exists():
            _stop_at_files([out / name for names in FOLDERS.values() for name in names])
            out.mkdir(parents=True, exist_ok=True)
            write_whole(record, json.dumps(settings, indent=2) + "\n")
            return settings
        earlier = json.loads(record.read_text(encoding="utf-8"))
        if not all(isinstance(earlier[name], dict) for name in settings):
            raise ValueError("its entries are no settings")
    except (ValueError, KeyError, TypeError) as error:
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
    advice = f"remove {manifest.name}, prepare.json and the folders beside them, or name another --out"
    try:
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if any(row.keys() != set(COLUMNS) or None in row.values() or not row["slice"].isdecimal() for row in rows):
            raise ValueError("columns or numbers are missing")
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{manifest}: damaged ({reason_of(error)}); {advice}") from error


def write_manifest(out: Path, rows: list[dict]) -> None:
    """Write all rows, in order."""
    rows.sort(key=lambda row: (row["split"], row["case"], int(row["slice"])))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / "manifest.csv", text.getvalue())


def report(out: Path, rows: list[dict]) -> None:
    for split, folders in FOLDERS.items():
        some = [row for row in rows if row["split"] == split]
        cases = len({row["case"] for row in some})
        known = [int(row["lesion_pixels"]) for row in some if row["lesion_pixels"] != ""]
        lesions = f", {sum(pixels > 0 for pixels in known)} with a lesion" if known else ""
        written = [folder for folder in folders if some and (out / folder).is_dir()]
        place = f" in {' and '.join(written)}" if written else ""
        print(f"{split:<11} {len(some)} slices of {cases} cases{place}{lesions}")
    print(f"{'manifest':<11} {out / 'manifest.csv'}")
