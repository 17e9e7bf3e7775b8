"""What a viewer shows: the slices of one input, their lesion maps, and what is measured in them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import InputError, listed, one_note
from data.folders import SUFFIXES, case_of, match
from data.io.images import read_image, read_pair
from data.io.volumes import Volume, is_volume, read_labels, read_scan
from data.preprocess.lungs import find_body, find_lungs
from data.scans import find_scans
from utils.evaluation.metrics import ratios
from utils.inference.predictor import Predictor
from utils.lesions import lesion_mask
from utils.viewer.dropped import gather, only


@dataclass(frozen=True)
class Study:
    """Slices with their lesion maps.

    images: ``(H, W)`` each; of a scan in Hounsfield units, float32, else gray levels, uint8. maps: the probability of
    lesion, uint8. truths: bool, or None where it is not known; truth_name: of their files. lungs: bool ``(S, H, W)``,
    of a scan. notes: one for each slice, or one for a scan. reliability: the same. networks: which ones predicted.
    """

    name: str
    names: Sequence[str]
    images: Sequence[np.ndarray]
    maps: Sequence[np.ndarray]
    networks: str
    truths: Sequence[np.ndarray] | None = None
    truth_name: str = ""
    volume: Volume | None = None
    lungs: np.ndarray | None = field(default=None, repr=False)
    notes: Sequence[str] = ("",)
    reliability: Sequence[float] = ()
    _measured: dict[float, dict[str, float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def mask(self, index: int, threshold: float) -> np.ndarray:
        """The lesions of a slice, bool ``(H, W)``."""
        return lesion_mask(self.maps[index], threshold)

    def shares(self, threshold: float) -> np.ndarray:
        """The share of each slice that is lesion, in [0, 1]."""
        return np.array([lesion_mask(soft, threshold).mean() for soft in self.maps])

    def worst(self, threshold: float) -> int:
        """The slice with most lesion; the middle one if there is none."""
        shares = self.shares(threshold)
        return int(shares.argmax()) if shares.any() else len(shares) // 2

    def measures(self, threshold: float) -> dict[str, float]:
        """Of a scan: volume of the lesions (mL, NaN if unknown), their number, their share of the lungs; of slices, the
        share of all pixels; and Dice, if there is a truth."""
        if threshold not in self._measured:
            self._measured[threshold] = self._measure(threshold)
        return self._measured[threshold]

    def _measure(self, threshold: float) -> dict[str, float]:
        masks = [self.mask(index, threshold) for index in range(len(self.maps))]
        found: dict[str, float] = {}
        if self.volume is None:
            found["lesion_share"] = float(np.mean([mask.mean() for mask in masks]))
        else:
            from utils.evaluation.scans import burden

            whole = np.stack(masks)
            found |= burden(whole, self.volume.geometry)
            if self.lungs is not None and (size := np.count_nonzero(whole | self.lungs)):
                found["share_of_lungs"] = float(np.count_nonzero(whole) / size)
        if self.truths is not None:
            flat = (np.concatenate([part.ravel() for part in parts]) for parts in (masks, self.truths))
            found["dice"] = ratios(*flat, undefined=1.0)["dice"]
        return found


def read_study(paths: Sequence[Path], predictor: Predictor, truths: Sequence[Path] = ()) -> Study:
    """Predict a scan (a volume, DICOM files) or slices (image files), all of it also as zip, with their truths, if any.

    Raises InputError if the files can't be read, or are of several scans.
    """
    with tempfile.TemporaryDirectory() as place:
        try:
            inputs, masks = (gather(some, Path(place) / name) for name, some in (("in", paths), ("truth", truths)))
            packed = len(paths) == 1 and paths[0].suffix.lower() == ".zip"
            return _study(inputs, predictor, masks, series=paths[0].stem if packed else "dicom_series")
        except InputError as error:
            text = str(error)
            for name in ("in", "truth"):
                text = text.replace(f"{place}/{name}/", "").replace(f"{place}/{name}", "these files")
            raise InputError(text) from error


def _study(inputs: list[Path], predictor: Predictor, masks: list[Path], series: str) -> Study:
    if not inputs:
        raise InputError("no file; drop slices, a scan, or either as zip")
    root = inputs[0] if len(inputs) == 1 else _root(inputs)
    found = find_scans(root)
    if len(found.scans) > 1:
        shown = listed([scan.label.name for scan in found.scans])
        raise InputError(f"{len(found.scans)} scans ({shown}); drop one at a time")
    if found.scans:
        scan, loose = found.scans[0], found.scans[0].path == root and root.is_dir()
        return _scan(scan.path, series if loose else scan.label.name, predictor, masks, found.note)
    slices = [file for file in inputs if file.suffix.lower() in SUFFIXES]
    if not slices:
        raise InputError(
            f"{listed([file.name for file in inputs])}: no slice and no scan; drop PNG, JPEG, BMP or TIFF files, DICOM "
            "files, or a NIfTI, NRRD or MetaImage file"
        )
    others = [file.name for file in inputs if file not in slices]
    return _slices(slices, predictor, masks, f"{listed(others)} left out" if others else "")


def _root(files: Sequence[Path]) -> Path:
    """The folder that has all files."""
    return next(folder for folder in files[0].parents if all(folder in file.parents for file in files))


def _scan(path: Path, name: str, predictor: Predictor, masks: list[Path], note: str) -> Study:
    volume = read_scan(path, **predictor.config.scan_options)
    labels, truth = None, None
    if masks:
        truth = masks[0].parent if len(masks) > 1 and is_volume(masks[0].parent) else only(masks, "the scan")
        if not is_volume(truth):
            raise InputError(f"{truth.name}: not the mask of a scan; drop a NIfTI, NRRD or MetaImage file")
        labels, about_truth = read_labels(truth, volume, path)
        note = one_note(note, about_truth)
    note = one_note(volume.note, note)
    found = predictor.predict_hu(volume.slices, window=predictor.config.window, note=note)
    lungs = find_lungs(volume.slices, find_body(volume.slices))
    return Study(
        name=case_of(Path(name)),
        names=[f"slice {index + 1}" for index in range(len(found.map))],
        images=list(volume.slices),
        maps=list(found.map),
        networks=predictor.checkpoint,
        truths=None if labels is None else list(labels),
        truth_name=truth.name if truth else "",
        volume=volume,
        lungs=lungs,
        notes=[found.note],
        reliability=[found.reliability],
    )


def _slices(files: list[Path], predictor: Predictor, masks: list[Path], note: str) -> Study:
    slices = predictor.read(files)
    truths, root = None, _root(files)
    if masks:
        one = len(files) == 1  # whatever its mask is named
        mask_of = {files[0]: only(masks, "the slice")} if one else _pairs(files, masks)
        truths = [np.asarray(read_pair((file, mask_of[file]), slices.reading)[1]) > 0 for file in files]
    found = list(predictor.predict_slices(slices))
    return Study(
        name=files[0].stem if len(files) == 1 else f"{len(files)}_slices",
        names=[file.relative_to(root).as_posix() for file in files],
        images=[np.asarray(read_image(file, slices.reading)) for file in files],
        maps=[each.map for each in found],
        networks=predictor.checkpoint,
        truths=truths,
        truth_name=masks[0].name if len(masks) == 1 else f"{len(masks)} masks",
        notes=[one_note(note, each.note) for each in found],
        reliability=[each.reliability for each in found],
    )


def _pairs(files: Sequence[Path], masks: Sequence[Path]) -> dict[Path, Path]:
    """The mask of each slice, by name."""
    roots = _root(files), _root(masks)
    keys, others = (
        {file.relative_to(root).with_suffix("").as_posix(): file for file in some}
        for some, root in zip((files, masks), roots, strict=True)
    )
    return dict(match(keys, others, roots))
