"""Folders for results: masks, tables and pictures, without overwriting files of others."""

import csv
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from data.errors import InputError, listed
from data.folders import case_of
from data.io.whole import write_whole

LOCK = ".lock"


def prepare_folder(folder: Path) -> None:
    """Create a folder for results. Raises InputError if it can't be written, or has links, which lead out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        links = [path for path in folder.iterdir() if path.is_symlink()]
    except OSError as error:
        raise InputError(f"{folder}: can't write there ({error.strerror}); name another folder") from error
    if links:
        raise InputError(f"{folder}: has links, such as {links[0].name}; remove them or name another folder")


def lock_folder(folder: Path) -> AcquireReturnProxy:
    """Keep other runs out of a folder until the end of a ``with`` block, or of the process.

    Raises InputError if another run writes there.
    """
    try:
        return FileLock(folder / LOCK, timeout=0).acquire()
    except Timeout as error:
        raise InputError(f"{folder}: another run writes there; wait for its end or name another folder") from error


def prepare_subfolder(folder: Path) -> None:
    """Create a folder within one of results. Raises InputError if it is a link, which leads out of it."""
    if folder.is_symlink():
        raise InputError(f"{folder}: is a link; remove it or name another folder")
    folder.mkdir(exist_ok=True)


def holds_something(folder: Path) -> bool:
    """Whether a folder has files that results might overwrite or be confused with, except those of a failed start."""
    if not folder.is_dir():
        return False
    files = [f for f in folder.iterdir() if not f.name.startswith((".", "events.out.tfevents."))]
    return any(f.is_dir() or f.stat().st_size for f in files)


def in_order_of_review(rows: Sequence[dict]) -> list[dict]:
    """Rows of a table, those first whose masks are most likely wrong: with a note, then by ``reliability``."""

    def order(row: dict) -> tuple[bool, float]:
        return not row.get("note"), -1.0 if math.isnan(row["reliability"]) else row["reliability"]

    return sorted(rows, key=order)


def append_row(path: Path, row: dict) -> None:
    """Append a row to a CSV file; the first one adds the header."""
    with path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


class ResultFolder:
    """A folder of results: a table, masks, pictures, and ``summary.json``, which records their origin.

    inputs: the slices or scans, all from one folder; the mask of each has its name with ``suffix``. A later run on the
    same inputs replaces the results of an earlier one, except those in ``kept`` (``rows_to_keep``). Raises InputError
    if the folder contains other files, or files that the run ``reads``.
    """

    SUBFOLDERS = ("prob", "uncertainty", "seg", "compare", "overlay", "figures")
    TABLES = ("summary.json", "table.md", "table.tex")
    PICTURES = re.compile(r"page_\d+\.png|dice\.png|worst_and_best\.png")

    def __init__(
        self,
        folder: Path,
        *,
        table: str,
        inputs: Sequence[Path],
        made_by: dict,
        reads: Sequence[Path] = (),
        suffix: str = ".png",
        kept: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.folder, self.table, self.suffix = folder, folder / table, suffix
        self.rows = list(kept)
        self._replaced: list[Path] = []  # files of an earlier run
        self._begun = False
        self._lock: AcquireReturnProxy | None = None
        for read in (*reads, inputs[0].parent):
            if folder.resolve() in (read.resolve(), *read.resolve().parents):
                raise InputError(f"{folder}: contains {read}, which is read; name another folder")
        self._origin = {"inputs": _path_from(folder, inputs[0].parent), **made_by}
        prepare_folder(folder)
        if holds_something(folder):
            self._stop_unless_from_the_same_inputs()
            ours = {table, *self.TABLES, *self.SUBFOLDERS}
            present = sorted(f.name for f in folder.iterdir() if f.name not in ours and not f.name.startswith("."))
            masks = {self._name_of(path) for path in inputs}
            if others := [name for name in present if name not in masks]:
                raise InputError(
                    f"{folder}: contains {listed(others)}, which are no results of this input; remove them or name "
                    "another folder"
                )
            self._lock = lock_folder(folder)
            done = {self._name_of(Path(row["image"])) for row in kept}
            self._replaced = [folder / name for name in {*present, *self.TABLES[1:]} - done]
            names = masks | {f"{case_of(path)}{suffix}" for path in inputs for suffix in (".png", ".dcm")}
            for file in [file for name in self.SUBFOLDERS for file in (folder / name).glob("*")]:
                if file.name in names or self.PICTURES.fullmatch(file.name):
                    self._replaced.append(file)
        self._lock = self._lock or lock_folder(folder)

    def _begin(self) -> None:
        """Before the first result, remove those of an earlier run: an interrupted run must not leave old beside new
        ones, nor one that fails before its first result leave none."""
        if self._begun:
            return
        self._begun = True
        if self._replaced:
            what = f"goes on after an earlier run in {self.folder}: {len(self.rows)} are done"
            what = what if self.rows else f"replacing those of an earlier run in {self.folder}"
            tqdm.write(f"{'results':<11} {what}")
        for file in self._replaced:
            file.unlink(missing_ok=True)
        self.write_summary({})
        text = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        write_whole(self.table, text.getvalue())

    def _name_of(self, path: Path) -> str:
        return f"{case_of(path)}{self.suffix}"

    def add_row(self, row: dict) -> None:
        """Add a row to the table."""
        self._begin()
        append_row(self.table, row)
        self.rows.append(row)

    def path_of(self, path: Path, subfolder: str = "", suffix: str | None = None) -> Path:
        """The path for the mask of an input, or for its map or picture in a subfolder, which is created."""
        self._begin()
        prepare_subfolder(self.folder / subfolder)
        return self.folder / subfolder / f"{case_of(path)}{suffix or self.suffix}"

    def save_image(self, path: Path, pixels: np.ndarray, *, subfolder: str = "") -> None:
        """Save the mask or map, uint8 ``(H, W)``, of the slice ``path``."""
        Image.fromarray(pixels).save(self.path_of(path, subfolder))

    def write_summary(self, summary: dict) -> None:
        """Write ``summary.json``: the origin, the summary of all images, and the notes on some, by name."""
        self._begin()
        if notes := {row["image"]: row["note"] for row in self.rows if row.get("note")}:
            summary = summary | {"notes": notes}
        if self.rows and "reliability" in self.rows[0]:
            summary = summary | {"review": [row["image"] for row in in_order_of_review(self.rows)]}
        write_whole(self.folder / "summary.json", json.dumps(self._origin | summary, indent=2) + "\n")

    def _stop_unless_from_the_same_inputs(self) -> None:
        try:
            origin = (
                json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))["inputs"]
                if self.table.exists()
                else None
            )
        except (OSError, ValueError, KeyError, TypeError):
            origin = None
        if origin is None:
            raise InputError(f"{self.folder}: contains files that this script did not write; name another folder")
        if origin != self._origin["inputs"]:
            raise InputError(
                f"{self.folder}: contains results for {(self.folder / origin).resolve()}; name another folder"
            )


def rows_to_keep(folder: Path, table: str, *, inputs: Sequence[Path], made_by: dict) -> list[dict[str, Any]]:
    """The rows that an interrupted run on the same inputs, with the same settings, has written, if there was one.

    An image without its mask counts as not done, and so does the last one, which may be torn.
    """
    try:
        origin = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        for told in ("notes", "review"):
            origin.pop(told, None)
        if origin != json.loads(json.dumps({"inputs": _path_from(folder, inputs[0].parent), **made_by})):
            return []
        with (folder / table).open(encoding="utf-8", newline="") as file:
            rows = [{name: _number(name, text) for name, text in row.items()} for row in csv.DictReader(file)][:-1]
    except (OSError, ValueError, TypeError, AttributeError, csv.Error):
        return []
    names = {path.name for path in inputs}
    return [row for row in rows if row["image"] in names and (folder / f"{case_of(Path(row['image']))}.png").exists()]


def _number(name: str, text: str) -> str | float:
    return text if name in ("image", "note") else float(text)


def _path_from(folder: Path, other: Path) -> str:
    """The relative path from a folder to another, which stays valid if both are moved together."""
    return os.path.relpath(other.resolve(), folder.resolve())
