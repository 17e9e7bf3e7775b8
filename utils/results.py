"""Where results go: folders that can be written, tables that grow by rows, and folders of masks."""

import csv
import json
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


def append_row(path: Path, row: dict) -> None:
    """Add a row to a CSV file; the first one brings the header."""
    with path.open("a") as file:
        writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


class MaskFolder:
    """A folder of masks, ``{stem}.png``, with a table, a row an image, and ``summary.json``, which tells their origin.

    slices: the images that get masks, all of one folder. A later run of the same script on the same folder of
    slices replaces what an earlier one left; whatever else the folder holds is not touched: InputError.
    """

    def __init__(self, folder: Path, *, table: str, slices: Sequence[Path], made_by: dict) -> None:
        self.folder, self.table, self.rows = folder, folder / table, []
        self._origin = {"slices": str(slices[0].parent.resolve()), **made_by}
        masks = {f"{path.stem}.png" for path in slices}
        prepare_folder(folder)
        if present := sorted(f.name for f in folder.iterdir() if f.suffix.lower() in SUFFIXES):
            self._stop_unless_from_the_same_slices()
            if others := [name for name in present if name not in masks]:
                raise InputError(
                    f"{folder}: holds {', '.join(others)}, but {slices[0].parent} no such slice; "
                    "remove it or name another folder"
                )
            print(f"{'masks':<11} replacing those of an earlier run in {folder}")
            for name in present:  # lest an interrupted run leave a mixture of old and new
                (folder / name).unlink()
        self._write_summary({})
        self.table.write_text("")

    def add(self, mask: np.ndarray, row: dict) -> None:
        """Save the mask, uint8 ``(H, W)``, of the image ``row["image"]``, and its row of the table."""
        Image.fromarray(mask).save(self.folder / f"{Path(row['image']).stem}.png")
        append_row(self.table, row)
        self.rows.append(row)

    def finish(self, summary: dict) -> None:
        """Add what was found over all images to ``summary.json``."""
        self._write_summary({"images": len(self.rows), **summary})

    def _write_summary(self, summary: dict) -> None:
        (self.folder / "summary.json").write_text(json.dumps(self._origin | summary, indent=2) + "\n")

    def _stop_unless_from_the_same_slices(self) -> None:
        found = self.folder / "summary.json"
        try:
            origin = json.loads(found.read_text()).get("slices") if self.table.exists() else None
        except (OSError, ValueError):
            origin = None
        if origin is None:
            raise InputError(f"{self.folder}: holds images that this script did not write; name another folder")
        if origin != self._origin["slices"]:
            raise InputError(f"{self.folder}: holds masks of the slices in {origin}; name another folder")
