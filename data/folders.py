"""The folders of slices: listing, pairing, splitting."""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from data.errors import InputError

FOLDERS = {  # under --data_root: images, then masks
    "train": ("Train-Image", "Train-Mask"),
    "unlabeled": ("Unlabeled",),
    "test": ("Test-Image", "Test-Mask"),
}
PSEUDO_MASKS = "Pos-Mask"  # of the unlabeled slices, by fake_labels_generator.py
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SCAN_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd")

Pair = tuple[Path, Path]


def files_of(folder: Path) -> list[Path]:
    """What a folder contains, by name; none of a file. Hidden files, such as the ._x.png of macOS, are passed over."""
    return sorted(child for child in folder.iterdir() if not child.name.startswith(".")) if folder.is_dir() else []


def list_slices(folder: Path) -> list[Path]:
    """The image files of a folder in the natural order of their stems (2 before 10).

    Raises InputError if the folder is missing, has no image, or has two images with the same stem.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; create it or name another one")
    files = sorted((file for file in files_of(folder) if file.suffix.lower() in SUFFIXES), key=_natural_order)
    if not files:
        raise InputError(f"{folder}: no image in this folder; expected {' '.join(SUFFIXES)}")
    by_stem = defaultdict(list)
    for file in files:
        by_stem[file.stem].append(file.name)
    if doubled := [" and ".join(names) for names in by_stem.values() if len(names) > 1]:
        raise InputError(f"{folder}: two files with the same stem: {'; '.join(doubled)}; keep one of each")
    return files


def case_of(path: Path) -> str:
    """The name of a slice or a scan without its suffix (``.nii.gz`` is one suffix); of a folder, its name."""
    for suffix in (*SCAN_SUFFIXES, *SUFFIXES):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def bare_case(path: Path) -> str:
    """``case_of`` without ``_ct`` or ``_seg``, which distinguish a scan from its mask."""
    return case_of(path).removesuffix("_ct").removesuffix("_seg")


def pair_by_stem(first: Path, second: Path, kinds: tuple[str, str] = ("image", "mask")) -> list[Pair]:
    """The files of two folders, matched by name without suffix: image ``3.jpg`` and mask ``3.png``.

    Raises InputError, with every offender named, if a file has no partner; ``kinds`` says what to call it.
    """
    files, partners = list_slices(first), list_slices(second)
    problems = []
    for some, folder, others, other_folder, kind in (
        (files, first, partners, second, kinds[1]),
        (partners, second, files, first, kinds[0]),
    ):
        unmatched = _names_without(some, others)
        if len(unmatched) == len(some):
            raise InputError(
                f"no file of {folder}, such as {unmatched[0]}, has a partner in {other_folder}; "
                f"give {kinds[0]} and {kinds[1]} the same name"
            )
        if unmatched:
            problems.append(f"no {kind} in {other_folder} for {', '.join(unmatched)} of {folder}")
    if problems:
        raise InputError(f"{'; '.join(problems)}; add the missing files or remove their partners")
    by_stem = {partner.stem: partner for partner in partners}
    return [(file, by_stem[file.stem]) for file in files]


def split_pairs(
    pairs: Sequence[Pair], fraction: float, seed: int, cases: Sequence[str] | None = None
) -> tuple[list[Pair], list[Pair]]:
    """Split into training and validation pairs, both in their order; the same seed and stems give the same split.

    ``fraction`` of the cases, at least one unless it is 0, goes to validation. ``cases`` names the scan of each
    pair, whose slices stay together; by default, each pair is a case of its own.
    """
    cases = [str(index) for index in range(len(pairs))] if cases is None else cases
    names = list(dict.fromkeys(cases))
    count = max(1, round(fraction * len(names))) if fraction else 0
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {names[index] for index in order[:count]}
    training = [pair for pair, case in zip(pairs, cases, strict=True) if case not in chosen]
    return training, [pair for pair, case in zip(pairs, cases, strict=True) if case in chosen]


def cases_of(pairs: Sequence[Pair]) -> list[str]:
    """The scan of each image, from the manifest of data.prepare beside their folder; without one, the image itself."""
    folder = pairs[0][0].parent
    try:
        with (folder.parent / "manifest.csv").open(newline="") as file:
            case = {row["file"]: row["case"] for row in csv.DictReader(file)}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError):
        case = {}
    return [case.get(f"{folder.name}/{image.name}", image.stem) for image, _ in pairs]


def _names_without(files: Sequence[Path], partners: Sequence[Path]) -> list[str]:
    stems = {partner.stem for partner in partners}
    return [file.name for file in files if file.stem not in stems]


def _natural_order(path: Path) -> tuple[list, str]:
    # re.split leaves text at even and digits at odd places, so that like is compared with like; then 01 before 1.
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.stem)], path.stem
