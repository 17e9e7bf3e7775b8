"""Masks and maps of whole scans that any program has saved, beside the true masks to score them by."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data.errors import FileError, one_note
from data.io.volumes import Volume, read_labels, read_saved, read_scan, read_volume
from data.scans import Scan, find_truths, saved_for
from utils.evaluation.cases import names_of
from utils.inference.scans import scans_at


class SavedScan(NamedTuple):
    """A scan, or its truth if there is no scan, with its true lesions, bool ``(S, H, W)``, the saved map of each model,
    uint8 ``(S, H, W)``, and notes on each."""

    scan: Scan
    volume: Volume
    truth: np.ndarray
    maps: dict[str, np.ndarray]
    notes: dict[str, str]

    @property
    def hu(self) -> np.ndarray | None:
        """The scan, if it is known; ``(S, H, W)``."""
        return None if self.scan.path == self.scan.truth else self.volume.slices


def find_saved_scans(scans: Path | None, truths: Path) -> list[Scan]:
    """The scans that ``truths`` has true masks of; none if it is a folder of slices. ``scans``: where they are."""
    found = find_truths(truths)
    return (scans_at(scans, truths) if scans and found else []) or found


def saved_files(scans: Sequence[Scan], folders: Sequence[Path]) -> dict[str, list[Path]]:
    """The saved volume of each scan, by model. Raises InputError that names every scan without one."""
    return {name: saved_for(scans, folder) for name, folder in zip(names_of(folders), folders, strict=True)}


def read_saved_scans(
    scans: Sequence[Scan],
    files: dict[str, list[Path]],
    left_out: list[FileError],
    *,
    labels: Sequence[int] = (),
    most: float | None = None,
    **options: Any,
) -> Iterator[SavedScan]:
    """Read the saved masks or maps of each scan (``saved_files``).

    labels: as in ``read_labels``. most: as in ``read_saved``. options: of ``read_scan``. Keeps one scan in memory. One
    that can't be read is skipped, and its error appended to ``left_out``.
    """
    for index, scan in enumerate(tqdm(scans, desc="scoring", unit="scan", disable=None)):
        assert scan.truth is not None, "saved scans have truths"
        try:
            volume = read_volume(scan.truth) if scan.path == scan.truth else read_scan(scan.path, **options)
            truth, note = read_labels(scan.truth, volume, scan.path, labels=labels)
            saved = {name: read_saved(paths[index], volume, scan.path, most=most) for name, paths in files.items()}
        except FileError as error:
            left_out.append(error)
            continue
        maps = {name: soft for name, (soft, _) in saved.items()}
        notes = {name: one_note(volume.note, note, own) for name, (_, own) in saved.items()}
        yield SavedScan(scan, volume, truth, maps, notes)
