"""Find scans: volumes, DICOM folders at any depth, and the masks that belong to them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from data.errors import InputError, listed, one_note
from data.folders import PACKED, SUFFIXES, bare_case, case_of, files_of
from data.io.volumes import is_volume


@dataclass(frozen=True)
class Scan:
    """A scan and, if there is one, the volume with its true lesions.

    label: a path by whose name results are named, directly in the folder that was given.
    """

    path: Path
    label: Path
    truth: Path | None = None


class Found(NamedTuple):
    """Scans, and a note on what beside them is left out."""

    scans: list[Scan]
    note: str = ""


def find_scans(path: Path, truths: Path | None = None) -> Found:
    """The scans at ``path``: a volume, a folder with a DICOM series, or a folder of either, except ``a_seg.nii.gz``.

    If it has neither volumes nor slices itself: the scans below it, labeled by the folders on the way, as in
    PATIENT_STUDY_SERIES. A folder of slices has none.
    truths: a volume or a folder of volumes; ``a_ct.nii.gz`` matches ``a.nii.gz`` or ``a_seg.nii.gz``.
    Raises InputError that names every scan without truth.
    """
    path = path.resolve() if path.name in ("", "..") else path
    path = path.parent if path.name.upper() == "DICOMDIR" and path.is_file() else path
    slices = [child for child in files_of(path) if child.suffix.lower() in SUFFIXES]
    if is_volume(path):
        found = [path]
    else:
        found = _volumes_in(path)
        if not slices and not any(child.is_file() for child in found):
            found = sorted(_below(path))
    scans = [Scan(scan, path if scan == path else path / "_".join(scan.relative_to(path).parts)) for scan in found]
    if doubled := [name for name, times in Counter(case_of(scan.label) for scan in scans).items() if times > 1]:
        raise InputError(
            f"{path}: two scans named {', '.join(doubled)}; their masks would be one file, rename one of each"
        )
    if not scans:
        return Found([])
    notes = [f"{len(slices)} slices beside the scans, such as {slices[0].name}, are left out"] if slices else []
    if unused := _unused(path, found):
        notes.append(f"no scan that can be read in {listed(unused)}; unpack what is packed")
    return Found(_with_truths(scans, truths) if truths else scans, one_note(*notes))


def find_truths(path: Path) -> list[Scan]:
    """The true masks at ``path``, a volume or a folder of volumes: each as a scan of which nothing else is known."""
    found = [path] if path.is_file() and is_volume(path) else volumes_of(path)
    truths = [file for file in found if file.is_file() and not case_of(file).endswith("_ct")]
    return [Scan(file, path / file.name if path.is_dir() else file, truth=file) for file in truths]


def saved_for(scans: Sequence[Scan], folder: Path) -> list[Path]:
    """The volume of each scan in a folder of saved masks or maps, by name; or that one volume, of one scan.

    Raises InputError that names every scan without a volume.
    """
    if len(scans) == 1 and folder.is_file():
        return [folder]
    volumes = [file for file in volumes_of(folder) if file.is_file()]
    saved = {bare_case(file): file for file in volumes}
    if doubled := [name for name, times in Counter(map(bare_case, volumes)).items() if times > 1]:
        raise InputError(f"{folder}: two volumes for {listed(doubled)}; keep one of each")
    if missing := [scan.label.name for scan in scans if bare_case(scan.label) not in saved]:
        raise InputError(f"{folder}: no volume with the lesions of {listed(missing)}; add it under the scan's name")
    return [saved[bare_case(scan.label)] for scan in scans]


def _unused(folder: Path, scans: Sequence[Path]) -> list[str]:
    """The names of what a folder has beside scans, slices and notes: packed files, and folders without a scan."""
    used = {part for scan in scans for part in (scan, *scan.parents)}
    return [
        child.name
        for child in files_of(folder)
        if child not in used
        and (any(files_of(child)) if child.is_dir() else child.suffix.lower() in PACKED and not is_volume(child))
        and not _volumes_in(child)
    ]


def _with_truths(scans: Sequence[Scan], truths: Path) -> list[Scan]:
    if len(scans) == 1 and is_volume(truths):
        return [replace(scans[0], truth=truths)]
    volumes = [child for child in files_of(truths) if is_volume(child)]
    by_case = {bare_case(volume): volume for volume in volumes if not case_of(volume).endswith("_ct")}
    if missing := [scan.label.name for scan in scans if bare_case(scan.label) not in by_case]:
        raise InputError(
            f"{truths}: no volume with the true lesions of {', '.join(missing)}; add it under the scan's name"
        )
    return [replace(scan, truth=by_case[bare_case(scan.label)]) for scan in scans]


def _volumes_in(folder: Path) -> list[Path]:
    """The volumes of a folder that are scans, no masks."""
    return [child for child in volumes_of(folder) if not case_of(child).endswith("_seg")]


def volumes_of(folder: Path) -> list[Path]:
    """The volumes of a folder, of a pair ``.hdr`` and ``.img`` one."""
    found = [child for child in files_of(folder) if is_volume(child)]
    return [child for child in found if not (child.suffix == ".img" and child.with_suffix(".hdr") in found)]


def _below(folder: Path) -> Iterator[Path]:
    """The scans in all folders below a folder."""
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        if here != folder:
            yield from [here] if is_volume(here) else (child for child in _volumes_in(here) if child.is_file())
