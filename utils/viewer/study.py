"""What a viewer shows: the slices of one input, their lesion maps, and what is measured in them."""

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import InputError, one_note
from data.folders import case_of, list_slices, pair_by_stem
from data.io.images import read_image, read_mask
from data.io.volumes import Volume, is_volume, read_labels, read_scan
from data.preprocess.lungs import find_body, find_lungs
from data.scans import find_scans
from utils.evaluation.metrics import ratios
from utils.inference.predictor import Predictor
from utils.lesions import lesion_mask

MOST_UNPACKED = 8 * 2**30  # bytes of an archive


@dataclass(frozen=True)
class Study:
    """Slices with their lesion maps.

    images: ``(H, W)`` each; of a scan in Hounsfield units, float32, else gray levels, uint8. maps: the probability of
    lesion, uint8. truths: bool, or None where it is not known. lungs: bool ``(S, H, W)``, of a scan. notes: one for
    each slice, or one for a scan. reliability: the same.
    """

    name: str
    names: Sequence[str]
    images: Sequence[np.ndarray]
    maps: Sequence[np.ndarray]
    truths: Sequence[np.ndarray] | None = None
    volume: Volume | None = None
    lungs: np.ndarray | None = field(default=None, repr=False)
    notes: Sequence[str] = ("",)
    reliability: Sequence[float] = ()
    _measured: dict[float, dict[str, float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def mask(self, index: int, threshold: float) -> np.ndarray:
        """The lesions of a slice, bool ``(H, W)``."""
        return lesion_mask(self.maps[index], threshold)

    def areas(self, threshold: float) -> np.ndarray:
        """The lesion pixels of each slice."""
        return np.array([np.count_nonzero(lesion_mask(soft, threshold)) for soft in self.maps])

    def worst(self, threshold: float) -> int:
        """The slice with most lesion; the middle one if there is none."""
        areas = self.areas(threshold)
        return int(areas.argmax()) if areas.any() else len(areas) // 2

    def measures(self, threshold: float) -> dict[str, float]:
        """Of a scan: volume of the lesions (mL, NaN if unknown), their number, their share of the lungs, and Dice if
        there is a truth; of slices, the share of all pixels."""
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
    """Predict a scan (a volume, DICOM files or a zip of them) or slices (image files), with their truths, if any.

    Raises InputError if the files can't be read, or are of several scans.
    """
    with tempfile.TemporaryDirectory() as place:
        inputs, masks = (_gathered(some, Path(place) / name) for name, some in (("in", paths), ("truth", truths)))
        if inputs is None:
            raise InputError("no file; drop a slice, a scan, or a DICOM folder as zip")
        scans = find_scans(inputs).scans
        if len(scans) > 1:
            shown = ", ".join(scan.label.name for scan in scans[:5])
            raise InputError(f"{len(scans)} scans ({shown}); drop one at a time")
        if scans:
            truth = next((path for path in _files(masks) if is_volume(path)), masks) if masks else None
            name = scans[0].label.name if scans[0].path != inputs else paths[0].stem
            return _scan(scans[0].path, name, predictor, truth)
        return _slices(inputs, predictor, masks)


def _scan(path: Path, name: str, predictor: Predictor, truth: Path | None) -> Study:
    volume = read_scan(path, **predictor.scan_options)
    labels, note = read_labels(truth, volume, path) if truth else (None, "")
    note = one_note(volume.note, note)
    found = predictor.predict_hu(volume.slices, window=predictor.config.window, note=note)
    lungs = find_lungs(volume.slices, find_body(volume.slices))
    return Study(
        name=case_of(Path(name)),
        names=[f"slice {index + 1}" for index in range(len(found.map))],
        images=list(volume.slices),
        maps=list(found.map),
        truths=None if labels is None else list(labels),
        volume=volume,
        lungs=lungs,
        notes=[found.note],
        reliability=[found.reliability],
    )


def _slices(folder: Path, predictor: Predictor, masks: Path | None) -> Study:
    files = list_slices(folder)
    slices = predictor.read(files)
    found = list(predictor.predict_slices(slices))
    images = [np.asarray(read_image(file, slices.reading)) for file in files]
    truths = None
    if masks:
        one = len(files) == 1  # whatever its mask is named
        mask_of = dict(pair_by_stem(files[0], _files(masks)[0]) if one else pair_by_stem(folder, masks))
        truths = [np.asarray(read_mask(mask_of[file])) > 0 for file in files]
    return Study(
        name=files[0].stem if len(files) == 1 else f"{len(files)} slices",
        names=[file.name for file in files],
        images=images,
        maps=[each.map for each in found],
        truths=truths,
        notes=[each.note for each in found],
        reliability=[each.reliability for each in found],
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _gathered(paths: Sequence[Path], folder: Path) -> Path | None:
    """The files in one folder, archives unpacked; or the path itself, if it is a single one; None if there are none."""
    if not paths:
        return None
    folder.mkdir()
    for path in paths:
        if zipfile.is_zipfile(path) and path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                if sum(info.file_size for info in archive.infolist()) > MOST_UNPACKED:
                    raise InputError(f"{path.name}: too large when unpacked; drop one scan")
                archive.extractall(folder / path.stem)  # never out of the folder
        elif path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            shutil.copy(path, folder / path.name)
    return folder
