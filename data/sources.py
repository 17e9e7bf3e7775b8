"""Where scans are found in each data set, and how they are split."""

import argparse
import csv
import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.files import case_of
from data.slicing import FOLDERS
from data.volumes import is_volume


@dataclass(frozen=True)
class Case:
    """A scan and, if it is labeled, its mask; scans of one ``patient`` stay on one side of a split."""

    name: str
    scan: Path
    mask: Path | None
    patient: str


def find_covid_19_20(args: argparse.Namespace) -> list[Case]:
    scans = sorted(args.source.glob("**/volume-covid19-A-*_ct.nii.gz"))
    if not scans:
        raise InputError(f"{args.source}: no volume-covid19-A-*_ct.nii.gz in it; give the folder that holds them")
    masks = [path.with_name(path.name.replace("_ct.nii.gz", "_seg.nii.gz")) for path in scans]
    cases = []
    for path, mask in zip(scans, masks, strict=True):
        name = case_of(path).removesuffix("_ct")
        patient = name.split("_")[0]  # A-0047 and A-0047_1 are two scans of one patient
        cases.append(Case(name, path, mask if mask.exists() else None, patient))
    return cases


def find_uestc(args: argparse.Namespace) -> list[Case]:
    scans = sorted(path for path in args.source.glob("**/image/*") if is_volume(path))
    if not scans:
        raise InputError(f"{args.source}: no volume in a folder `image`; give the folder that holds image and label")
    cases = []
    for path in scans:
        mask = path.parent.parent / "label" / path.name
        name = "_".join((*path.parent.parent.relative_to(args.source).parts, case_of(path)))
        cases.append(Case(name, path, mask if mask.exists() else None, name))
    return cases


def find_volumes(args: argparse.Namespace) -> list[Case]:
    scans, masks = _glob(args.images, "--images"), _glob(args.masks, "--masks") if args.masks else []
    if masks and len(masks) != len(scans):
        raise InputError(f"--masks {args.masks}: {len(masks)} of them for {len(scans)} images; give one for each")
    cases = [Case(case_of(s), s, m, case_of(s)) for s, m in zip(scans, masks or [None] * len(scans), strict=True)]
    if doubled := [name for name, times in Counter(case.name for case in cases).items() if times > 1]:
        raise InputError(f"--images {args.images}: two scans named {', '.join(doubled)}; rename one of each")
    return cases


def _glob(pattern: str, flag: str) -> list[Path]:
    found = sorted(Path(path) for path in glob.glob(pattern, recursive=True))
    if not found:
        raise InputError(f"{flag} {pattern}: no such file; quote the pattern, and check the folder")
    return found


def split_cases(cases: Sequence[Case], args: argparse.Namespace) -> dict[str, str]:
    """The split of every case, by name: ``test``, ``train`` or ``unlabeled``, which a case without mask always is."""
    if args.split:
        return _read_split(args.split, cases)
    patients = list(dict.fromkeys(case.patient for case in cases if case.mask))
    order = [patients[i] for i in np.random.default_rng(args.seed).permutation(len(patients))]
    # A scan without mask is there to learn from: none of a test patient's may be.
    unmasked = {case.patient for case in cases if not case.mask}
    tests = [patient for patient in order if patient not in unmasked][: round(args.test_fraction * len(order))]
    rest = [patient for patient in order if patient not in tests]
    split_of = dict.fromkeys(tests, "test") | dict.fromkeys(rest[round(args.unlabeled_fraction * len(rest)) :], "train")
    return {case.name: split_of.get(case.patient, "unlabeled") if case.mask else "unlabeled" for case in cases}


def _read_split(path: Path, cases: Sequence[Case]) -> dict[str, str]:
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if not {"case", "split"} <= set(reader.fieldnames or ()):
                raise KeyError("case,split")
            splits = {row["case"]: row["split"] for row in reader}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"--split {path}: not a CSV file with columns case,split ({error!r})") from error
    if missing := [case.name for case in cases if case.name not in splits]:
        raise InputError(f"--split {path}: lacks {', '.join(missing)}; add them")
    if wrong := [f"{name} ({split})" for name, split in splits.items() if split not in FOLDERS]:
        raise InputError(f"--split {path}: not one of {', '.join(FOLDERS)}: {', '.join(wrong)}")
    if bare := [case.name for case in cases if not case.mask and splits[case.name] != "unlabeled"]:
        raise InputError(f"--split {path}: no mask for {', '.join(bare)}; make them unlabeled")
    return {case.name: splits[case.name] for case in cases}
