"""Where results go: folders that can be written, tables that grow by rows, and folders of masks."""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import InputError
from data.files import SUFFIXES


def prepare_folder(folder: Path) -> None:
    """Create a folder for results; InputError if it can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: can't write there ({error.strerror}); name another folder") from error


def holds_something(folder: Path) -> bool:
    """Whether a folder has files that results might replace or be mistaken for; what an aborted start left is none."""
    if not folder.is_dir():
        return False
    files = [f for f in folder.iterdir() if not f.name.startswith((".", "events.out.tfevents."))]
    return any(f.is_dir() or f.stat().st_size for f in files)


def append_row(path: Path, row: dict) -> None:
    """Add a row to a CSV file; the first one brings the header."""
    with path.open("a") as file:
        writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


class ResultFolder:
    """A folder of results: a table, masks as ``{stem}.png``, pictures, and ``summary.json``, which tells their origin.

    slices: the files that the results are about, all of one folder. A later run on the same slices replaces what an
    earlier one left; whatever else the folder holds is not touched: InputError.
    """

    SUBFOLDERS = ("prob", "compare", "overlay", "figures")

    def __init__(self, folder: Path, *, table: str, slices: Sequence[Path], made_by: dict) -> None:
        self.folder, self.table, self.rows = folder, folder / table, []
        self._origin = {"slices": _path_from(folder, slices[0].parent), **made_by}
        prepare_folder(folder)
        if holds_something(folder):
            self._stop_unless_from_the_same_slices()
            present = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
            masks = {f"{path.stem}.png" for path in slices}
            if others := [name for name in present if name not in masks]:
                raise InputError(
                    f"{folder}: holds {', '.join(others)}, but {slices[0].parent} no such slice; "
                    "remove it or name another folder"
                )
            print(f"{'results':<11} replacing those of an earlier run in {folder}")
            for name in present:  # lest an interrupted run leave a mixture of old and new
                (folder / name).unlink()
            for name in self.SUBFOLDERS:
                shutil.rmtree(folder / name, ignore_errors=True)
        self._write_summary({})
        self.table.write_text("")

    def add_row(self, row: dict) -> None:
        """Add a row to the table."""
        append_row(self.table, row)
        self.rows.append(row)

    def save_image(self, path: Path, pixels: np.ndarray, *, subfolder: str = "") -> None:
        """Save the mask or map, uint8 ``(H, W)``, of the slice ``path`` under its stem."""
        (self.folder / subfolder).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(self.folder / subfolder / f"{path.stem}.png")

    def finish(self, summary: dict) -> None:
        """Add what was found over all images to ``summary.json``."""
        self._write_summary(summary)

    def _write_summary(self, summary: dict) -> None:
        (self.folder / "summary.json").write_text(json.dumps(self._origin | summary, indent=2) + "\n")

    def _stop_unless_from_the_same_slices(self) -> None:
        try:
            origin = json.loads((self.folder / "summary.json").read_text())["slices"] if self.table.exists() else None
        except (OSError, ValueError, KeyError, TypeError):
            origin = None
        if origin is None:
            raise InputError(f"{self.folder}: holds files that this script did not write; name another folder")
        if origin != self._origin["slices"]:
            raise InputError(
                f"{self.folder}: holds results of the slices in {(self.folder / origin).resolve()}; name another folder"
            )


def _path_from(folder: Path, other: Path) -> str:
    """The way from a folder to another, which holds when both are moved together."""
    try:
        return os.path.relpath(other.resolve(), folder.resolve())
    except ValueError:  # on Windows, from one drive to another
        return str(other.resolve())
