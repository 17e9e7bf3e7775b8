"""The folders of slices: listing, pairing, splitting."""

import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile
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

PACKED = (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar")
MASK_AFFIXES = ("_mask", "_seg", "_label", "_gt", "_lesion", "_infection", "-mask", "-seg", "_masks", "_segmentation")

Pair = tuple[Path, Path]


def files_of(folder: Path) -> list[Path]:
    """What a folder contains, by name; none of a file. Hidden files, such as the ._x.png of macOS, are passed over."""
    return sorted(child for child in folder.iterdir() if not child.name.startswith(".")) if folder.is_dir() else []


def list_slices(folder: Path) -> list[Path]:
    """The image files of a folder in the natural order of their stems (2 before 10).

    Raises InputError if the folder is missing, has no image, or has two images with the same stem.
    """
    if folder.is_file() and folder.suffix.lower() in SUFFIXES:
        return [folder]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; create it or name another one")
    files = sorted((file for file in files_of(folder) if file.suffix.lower() in SUFFIXES), key=_natural_order)
    if not files:
        raise InputError(f"{folder}: no image in this folder; {_where_instead(folder)}")
    by_stem = defaultdict(list)
    for file in files:
        by_stem[_stem(file)].append(file.name)
    if doubled := [" and ".join(names) for names in by_stem.values() if len(names) > 1]:
        raise InputError(f"{folder}: two files with the same stem: {'; '.join(doubled)}; keep one of each")
    return files


def _where_instead(folder: Path) -> str:
    """What to do about a folder without images."""
    if packed := [file.name for file in files_of(folder) if file.suffix.lower() in PACKED]:
        return f"unpack {packed[0]} and give the folder that comes out"
    child = next((c for c in files_of(folder) if any(file.suffix.lower() in SUFFIXES for file in files_of(c))), None)
    if child is None:
        return f"expected {' '.join(SUFFIXES)}, a scan or DICOM files"
    return (
        f"its sub-folders have some, such as {child.name}: name one of these, or bring all slices to the folders for "
        f"training by `python -m data.prepare slices --images '{folder}/*/*'` with --masks and --out"
    )


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

    If no name has its like, names may differ by one prefix or suffix of all, as ``img_3`` and ``mask_3`` do; a line is
    printed that says so. Two files, or a folder that is given twice and has both, are matched as well.
    Raises InputError, with every offender named, if a file has no partner; ``kinds`` says what to call it.
    """
    if first.is_file() and second.is_file():
        return [(list_slices(first)[0], list_slices(second)[0])]
    if first.resolve() == second.resolve():
        return _pairs_in(first, kinds)
    files, partners = list_slices(first), list_slices(second)
    keys, others = ({_stem(file): file for file in some} for some in (files, partners))
    return match(keys, others, (first, second), kinds)


def match(
    keys: dict[str, Path],
    others: dict[str, Path],
    folders: tuple[Path, Path],
    kinds: tuple[str, str] = ("image", "mask"),
) -> list[Pair]:
    """``pair_by_stem`` for files by key, which is a stem, below sub-folders if there are some: ``patient/3``."""
    first, second = folders
    if not keys.keys() & others.keys():
        one, other = (next(iter(some.values())) for some in (keys, others))
        keys, others = _by_core(keys), _by_core(others)
        if not keys.keys() & others.keys():
            raise InputError(
                f"no file of {first}, such as {one.name}, has a partner in {second}, such as {other.name}; "
                f"give {kinds[0]} and {kinds[1]} the same name"
            )
        if keys.keys() == others.keys():
            key = next(iter(keys))
            example = f"{keys[key].name} with {others[key].name}"
            print(f"{'pairs':<11} {len(keys)} by what their names differ in, such as {example}")
    problems = []
    for some, folder, counterparts, other_folder, kind in (
        (keys, first, others, second, kinds[1]),
        (others, second, keys, first, kinds[0]),
    ):
        if unmatched := [str(file.relative_to(folder)) for key, file in some.items() if key not in counterparts]:
            problems.append(f"no {kind} in {other_folder} for {', '.join(unmatched)} of {folder}")
    if problems:
        raise InputError(f"{'; '.join(problems)}; add the missing files or remove their partners")
    return [(file, others[key]) for key, file in keys.items()]


def _pairs_in(folder: Path, kinds: tuple[str, str]) -> list[Pair]:
    """The pairs of a folder that has images and masks, which have one more part in their names, as ``3_mask`` has."""
    files = {_stem(file): file for file in list_slices(folder)}
    for affix in MASK_AFFIXES:
        for name in (lambda stem, affix=affix: stem + affix, lambda stem, affix=affix: affix.strip("_-") + "_" + stem):
            pairs = [(file, files[name(stem)]) for stem, file in files.items() if name(stem) in files]
            if 2 * len(pairs) == len(files):
                print(f"{'pairs':<11} {len(pairs)} in {folder}, such as {pairs[0][0].name} with {pairs[0][1].name}")
                return pairs
    raise InputError(
        f"{folder}: is given for {kinds[0]}s and {kinds[1]}s, but does not have a pair such as 3.png and 3_mask.png of "
        "each; move them to two folders, and give both the same names"
    )


def _by_core(files: dict[str, Path]) -> dict[str, Path]:
    """Files by what differs in their stems: without the prefix and the suffix that all share, up to a digit."""
    if len(files) < 2:
        return files
    split = {key: key.rpartition("/") for key in files}
    stems = [stem for _, _, stem in split.values()]
    first, last = (len(_common_start(some)) for some in (stems, [stem[::-1] for stem in stems]))
    return {place + slash + stem[first : len(stem) - last]: files[key] for key, (place, slash, stem) in split.items()}


def _common_start(texts: Sequence[str]) -> str:
    """What all texts begin with, up to the number in which they differ."""
    same = takewhile(lambda characters: len({*characters}) == 1, zip(*texts, strict=False))
    return "".join(characters[0] for characters in same).rstrip("0123456789")


def _stem(path: Path) -> str:
    """The stem in the form in which names compare: an accent may be a character of its own."""
    return unicodedata.normalize("NFC", path.stem)


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
        with (folder.parent / "manifest.csv").open(encoding="utf-8", newline="") as file:
            case = {row["file"]: row["case"] for row in csv.DictReader(file)}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError):
        case = {}
    return [case.get(f"{folder.name}/{image.name}", image.stem) for image, _ in pairs]


def _natural_order(path: Path) -> tuple[list, str]:
    # re.split leaves text at even and digits at odd places, so that like is compared with like; then 01 before 1.
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.stem)], path.stem
