"""Find the scans of each data set, and split them."""

import csv
import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.folders import FOLDERS, SUFFIXES, bare_case, case_of, list_slices, match, pair_by_stem
from data.io.volumes import is_volume

SEMI_SEG = {  # the folders of the public release
    "train": ("TrainingSet/LungInfection-Train/Doctor-label/Imgs", "TrainingSet/LungInfection-Train/Doctor-label/GT"),
    "unlabeled": ("TrainingSet/LungInfection-Train/Pseudo-label/Imgs", None),
    "test": ("TestingSet/LungInfection-Test/Imgs", "TestingSet/LungInfection-Test/GT"),
}


@dataclass(frozen=True)
class SourceScan:
    """A scan or slice and, if it is labeled, its mask; those of one ``patient`` stay on one side of a split."""

    name: str
    scan: Path
    mask: Path | None
    patient: str


@dataclass(frozen=True)
class Split:
    """How scans are split: by a file, or shares of them at random; the options of ``python -m data.prepare``."""

    test_fraction: float = 0.2
    unlabeled_fraction: float = 0.0
    seed: int = 0
    split: Path | None = None


def find_semi_seg(source: Path) -> dict[str, list[SourceScan]]:
    """The slices of the public release, by split."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the one that contains TrainingSet and TestingSet")
    found = {}
    for split, (images, masks) in SEMI_SEG.items():
        pairs: Sequence[tuple[Path, Path | None]]
        if masks and (source / masks).is_dir():
            pairs = pair_by_stem(source / images, source / masks)
        elif masks and split == "train":
            raise InputError(f"{source / masks}: no such folder; give the folder that contains TrainingSet")
        else:
            pairs = [(path, None) for path in list_slices(source / images)]
        found[split] = [SourceScan(image.stem, image, mask, image.stem) for image, mask in pairs]
    return found


def find_slices(images: str, masks: str | None) -> list[SourceScan]:
    """Slices by pattern. If they are in sub-folders, the sub-folder is the patient, and part of the slice's name."""
    keys, first = _by_place(images, "--images")
    mask_of: dict[Path, Path] = {}
    if masks:
        others, second = _by_place(masks, "--masks")
        mask_of = dict(match(keys, others, (first, second)))
    return [
        SourceScan(name := key.replace("/", "_"), path, mask_of.get(path), key.rpartition("/")[0] or name)
        for key, path in keys.items()
    ]


def _by_place(pattern: str, flag: str) -> tuple[dict[str, Path], Path]:
    """Image files by the sub-folders in which they differ and their stem, as ``patient/3``; and the folder of all."""
    found = [path for path in _glob(pattern, flag) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise InputError(f"{flag} {pattern}: no image among these files; expected {' '.join(SUFFIXES)}")
    base = Path(os.path.commonpath([path.parent for path in found]))
    places = [path.parent.relative_to(base).parts for path in found]
    if len({len(place) for place in places}) == 1:  # drop images/ of patient/images/3.png
        columns = [column for column in zip(*places, strict=True) if len(set(column)) > 1]
        places = [tuple(column[index] for column in columns) for index in range(len(found))]
    keys = {"/".join((*place, path.stem)): path for place, path in zip(places, found, strict=True)}
    if len(keys) < len(found):
        doubled = ", ".join(str(path) for path in found if path not in keys.values())
        raise InputError(f"{flag} {pattern}: two files of the same stem in one folder: {doubled}; keep one of each")
    return keys, base


def find_covid_19_20(source: Path) -> list[SourceScan]:
    scans = sorted(source.glob("**/volume-covid19-A-*_ct.nii.gz"))
    if not scans:
        raise InputError(f"{source}: no volume-covid19-A-*_ct.nii.gz in it; give the folder that contains them")
    masks = [path.with_name(path.name.replace("_ct.nii.gz", "_seg.nii.gz")) for path in scans]
    cases = []
    for path, mask in zip(scans, masks, strict=True):
        name = case_of(path).removesuffix("_ct")
        patient = name.split("_")[0]  # A-0047 and A-0047_1 are two scans of one patient
        cases.append(SourceScan(name, path, mask if mask.exists() else None, patient))
    return cases


def find_uestc(source: Path) -> list[SourceScan]:
    scans = sorted(path for path in source.glob("**/image/*") if is_volume(path))
    if not scans:
        raise InputError(f"{source}: no volume in a folder `image`; give the folder that contains image and label")
    cases = []
    for path in scans:
        mask = path.parent.parent / "label" / path.name
        name = "_".join((*path.parent.parent.relative_to(source).parts, case_of(path)))
        cases.append(SourceScan(name, path, mask if mask.exists() else None, name))
    return cases


def find_volumes(images: str, masks: str | None) -> list[SourceScan]:
    scans = _glob(images, "--images")
    if not masks:
        return [SourceScan(case_of(scan), scan, None, case_of(scan)) for scan in scans]
    found = _glob(masks, "--masks")
    mask_of = {bare_case(mask): mask for mask in found}
    unmatched = [scan.name for scan in scans if bare_case(scan) not in mask_of]
    unmatched += [mask.name for mask in found if bare_case(mask) not in {bare_case(scan) for scan in scans}]
    if unmatched or len(found) != len(mask_of):
        raise InputError(
            f"--masks {masks}: not one for each of --images {images} "
            f"({', '.join(unmatched) or 'two of the same name'}); name both alike, except for _ct and _seg"
        )
    return [SourceScan(case_of(scan), scan, mask_of[bare_case(scan)], case_of(scan)) for scan in scans]


def _glob(pattern: str, flag: str) -> list[Path]:
    found = sorted(Path(path) for path in glob.glob(pattern, recursive=True))
    if not found:
        raise InputError(f"{flag} {pattern}: no such file; quote the pattern, and check the folder")
    return found


def split_cases(cases: Sequence[SourceScan], how: Split) -> dict[str, str]:
    """The split of every case, by name: ``test``, ``train`` or ``unlabeled``; a case without mask is ``unlabeled``.

    Raises InputError if two cases would write files of the same names.
    """
    if doubled := [name for name, times in Counter(case.name for case in cases).items() if times > 1]:
        where = ", ".join(str(case.scan) for case in cases if case.name in doubled)
        raise InputError(f"scans with the same name: {where}; rename one of each, or prepare them separately")
    if how.split:
        return _read_split(how.split, cases)
    patients = list(dict.fromkeys(case.patient for case in cases if case.mask))
    order = [patients[i] for i in np.random.default_rng(how.seed).permutation(len(patients))]
    # A scan without mask is trained on, so it must not be of a test patient.
    unmasked = {case.patient for case in cases if not case.mask}
    tests = [patient for patient in order if patient not in unmasked][: round(how.test_fraction * len(order))]
    rest = [patient for patient in order if patient not in tests]
    split_of = dict.fromkeys(tests, "test") | dict.fromkeys(rest[round(how.unlabeled_fraction * len(rest)) :], "train")
    return {case.name: split_of.get(case.patient, "unlabeled") if case.mask else "unlabeled" for case in cases}


def by_split(cases: Sequence[SourceScan], how: Split) -> dict[str, list[SourceScan]]:
    """``split_cases``, as the cases of each split."""
    split_of = split_cases(cases, how)
    return {split: [case for case in cases if split_of[case.name] == split] for split in FOLDERS}


def _read_split(path: Path, cases: Sequence[SourceScan]) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not {"case", "split"} <= set(reader.fieldnames or ()):
                raise KeyError("case,split")
            splits = {row["case"]: row["split"] for row in reader}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"--split {path}: not a CSV file with columns case,split ({error!r})") from error
    if missing := [case.name for case in cases if case.name not in splits]:
        raise InputError(f"--split {path}: has no row for {', '.join(missing)}; add them")
    if wrong := [f"{name} ({split})" for name, split in splits.items() if split not in FOLDERS]:
        raise InputError(f"--split {path}: not one of {', '.join(FOLDERS)}: {', '.join(wrong)}")
    if bare := [case.name for case in cases if not case.mask and splits[case.name] != "unlabeled"]:
        raise InputError(f"--split {path}: no mask for {', '.join(bare)}; make them unlabeled")
    return {case.name: splits[case.name] for case in cases}
