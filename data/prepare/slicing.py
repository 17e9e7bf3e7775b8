"""Convert a scan to 8-bit slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import FileError, one_note
from data.folders import FOLDERS
from data.io.volumes import read_labels, read_scan
from data.io.whole import whole
from data.preprocess.lungs import box, find_body, find_lungs
from data.preprocess.window import Window

LEAST_LUNG_SHARE = 0.02  # of a slice, to be kept by --keep lung


@dataclass(frozen=True)
class Slicing:
    """How a scan becomes slices; see the options of ``python -m data.prepare``."""

    window: Window
    keep: str
    every: int
    crop: str
    size: int | None = None
    any_values: bool = False
    hu_offset: float | None = None
    series: int | None = None
    label: Sequence[int] = ()


def write_case(
    name: str, scan: Path, mask: Path | None, split: str, slicing: Slicing, out: Path
) -> tuple[list[dict], str]:
    """Save the slices of a scan and, unless its split is unlabeled, of its mask.

    Returns the rows of the manifest, and a note. Raises FileError if the scan or its mask can't be used, or a slice
    can't be saved; then it removes the others.
    """
    volume = read_scan(scan, any_values=slicing.any_values, hu_offset=slicing.hu_offset, series=slicing.series)
    lesions, note = read_labels(mask, volume, scan, labels=slicing.label) if mask else (None, "")
    note = one_note(volume.note, note)
    everywhere = np.ones(volume.slices.shape, bool)
    # Without a mask, --keep lesion keeps the same slices as --keep lung.
    by_lungs = slicing.keep == "lung" or (slicing.keep == "lesion" and lesions is None)
    body = find_body(volume.slices) if by_lungs or slicing.crop != "none" else everywhere
    lungs = find_lungs(volume.slices, body) if by_lungs or slicing.crop == "lungs" else everywhere

    if by_lungs:
        kept = np.flatnonzero(lungs.mean(axis=(1, 2)) >= LEAST_LUNG_SHARE)
        if len(kept) == 0:
            raise FileError(scan, "no lungs found in it", "check its gray levels, or use --keep all")
    else:
        wanted = everywhere if slicing.keep == "all" or lesions is None else lesions
        kept = np.flatnonzero(wanted.any(axis=(1, 2)))
    rows_kept, columns_kept = slice(None), slice(None)
    if slicing.crop != "none":
        rows_kept, columns_kept = box(body if slicing.crop == "body" else lungs)

    folders = [out / folder for folder in FOLDERS[split]]
    rows: list[dict] = []
    try:
        for index in map(int, kept[:: slicing.every]):
            gray = slicing.window.to_gray(volume.slices[index, rows_kept, columns_kept])
            pictures = [_resized(Image.fromarray(gray), slicing.size, Image.Resampling.LANCZOS)]
            pixels: int | str = ""
            if lesions is not None:
                label = Image.fromarray(lesions[index, rows_kept, columns_kept] * np.uint8(255))
                pictures.append(_resized(label, slicing.size, Image.Resampling.NEAREST))
                pixels = int(np.count_nonzero(np.asarray(pictures[1])))
            file = f"{name}_{index:04}.png"
            rows.append(
                {
                    "file": f"{folders[0].name}/{file}",
                    "source": str(scan),
                    "case": name,
                    "slice": index,
                    "split": split,
                    "lesion_pixels": pixels,
                }
            )
            for folder, picture in zip(folders, pictures, strict=False):  # an unlabeled scan has no folder for masks
                save(picture, folder / file)
    except OSError as error:
        for row in rows:
            for folder in folders:
                (folder / Path(row["file"]).name).unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise FileError(scan, f"its slices can't be saved in {out}", "free some space and run again", reason) from error
    return rows, f"{scan}: {note}" if note else ""


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as temporary:
        picture.save(temporary)


def _resized(picture: Image.Image, size: int | None, resample: Image.Resampling) -> Image.Image:
    return picture if size is None else picture.resize((size, size), resample)
