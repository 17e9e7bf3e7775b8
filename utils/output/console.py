"""Print a summary of the slices at the start of a run, so that mistakes show early."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tqdm import tqdm

from data.datasets import LesionSlices, UnlabeledSlices
from data.errors import listed, printable
from data.io.reading import Reading
from data.preprocess.preprocessing import NEARLY_BLACK
from utils.output.folder import in_order_of_review

WINDOW = "window them first, or give 16-bit slices in Hounsfield units (docs/data.md)"


def report_pairs(name: str, slices: LesionSlices | None) -> None:
    """Print the number of pairs and the share of lesion, so that a wrong mask folder is noticed."""
    if slices is None:
        print(f"{name:<11} none, all slices are used for training: the last epoch becomes best.pth")
        return
    image_folder, mask_folder, *_ = (path.parent for path in slices.files[0])
    share = slices.lesion_share()
    print(f"{name:<11} {len(slices)} pairs from {image_folder} and {mask_folder}, {share:.2%} of the pixels are lesion")
    if share == 0:
        warn(f"no lesion pixels; is {mask_folder} the right folder?")
    elif share > 0.5:
        warn("more lesion than background; are the masks inverted?")
    _report_looks(slices)


def report_images(slices: UnlabeledSlices) -> None:
    """Print the number of slices, and warn if they are too dark for windowed CT."""
    print(f"{'slices':<11} {len(slices)} from {slices.files[0].parent}")
    _report_looks(slices)


def _report_looks(slices: LesionSlices | UnlabeledSlices) -> None:
    names = [(file if isinstance(file, Path) else file[0]).name for file in slices.files]
    if cropped := sum(placement.frame.box is not None for placement in slices.placements):
        print(f"{'':<11} {cropped} of them cropped to the lungs, as the training slices are")
    if turned := sum(placement.turns > 0 for placement in slices.placements):
        print(f"{'':<11} {turned} of them rotated to the orientation of the training set")
    report_reading(slices.reading)
    if black := [name for name, gray in zip(names, slices.mean_grays(), strict=True) if 255 * gray < NEARLY_BLACK]:
        warn(f"nearly black, unlike chest CT in a lung window: {listed(black)}; {WINDOW}")


def report_reading(reading: Reading) -> None:
    """Print that slices are read as Hounsfield units, if they are."""
    if (offset := reading.hu_offset) is not None:
        level, width = reading.window
        print(f"{'':<11} read as HU{f' + {offset:g}' if offset else ''}, in a window of width {width:g} at {level:g}")


def report_notes(rows: Sequence[dict]) -> None:
    """Print what may be wrong with slices, by the ``note`` of their rows: a line for each note."""
    names = defaultdict(list)
    for row in rows:
        if row["note"]:
            names[row["note"]].append(row["image"])
    for note, images in names.items():
        warn(f"{note}: {listed(images)}")


def report_shares(rows: Sequence[dict], *, of: str) -> None:
    """Warn if masks of a table can't be right: more lesion than background in most, or no lesion in any true one."""
    shares = [row[of] for row in rows if of in row]
    what = "true masks" if of.startswith("true") else "predictions"
    if shares and median(shares) > 0.5:
        warn(f"more lesion than background in most {what}; are they inverted?")
    elif shares and what == "true masks" and not any(shares):
        warn("no true mask has a lesion; is this the right folder?")


def report_review(rows: Sequence[dict]) -> None:
    """Print which masks to look at first, if there are many."""
    if len(rows) > 1:
        first = [f"{row['image']} ({row['reliability']:.2f})" for row in in_order_of_review(rows)]
        print(f"{'review':<11} first those with a note, then by reliability, lowest first: {printable(listed(first))}")


def warn(message: str) -> None:
    """Print a warning in line with the rest of a report."""
    tqdm.write(f"{'':<11} WARNING: {printable(message)}")
