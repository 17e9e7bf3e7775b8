"""Find the scans of each data set, and split them."""

import csv
import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.folders import FOLDERS, bare_case, case_of
from data.io.volumes import is_volume


@dataclass(frozen=True)
class SourceScan:
    """A scan and, if it is labeled, its mask; scans of one ``patient`` stay on one side of a split."""

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


def stop_at_doubled_names(cases: Sequence[SourceScan]) -> None:
    """Raise InputError if two scans would write files of the same names."""
    if doubled := [name for name, times in Counter(case.name for case in cases).items() if times > 1]:
        where = ", ".join(str(case.scan) for case in cases if case.name in doubled)
        raise InputError(f"scans with the same name: {where}; rename one of each, or prepare them separately")


def split_cases(cases: Sequence[SourceScan], how: Split) -> dict[str, str]:
    """The split of every case, by name: ``test``, ``train`` or ``unlabeled``; a case without mask is ``unlabeled``."""
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


def _read_split(path: Path, cases: Sequence[SourceScan]) -> dict[str, str]:
    try:
        with path.open(newline="") as file:
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
