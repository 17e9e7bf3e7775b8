"""``Predictor`` finds lesions in slices and scans, given checkpoints."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data.datasets import ScanSlices, UnlabeledSlices
from data.errors import InputError, one_note
from data.io.images import array_as_gray, as_gray, read_image
from data.io.volumes import read_scan
from data.preprocess.framing import WHOLE, Frame
from data.preprocess.preprocessing import Preprocessing
from data.preprocess.window import Window
from utils.checkpoint import load_model, located
from utils.config import PredictionConfig
from utils.device import choose_device, choose_precision
from utils.fields import check
from utils.inference.agreement import Agreement
from utils.inference.maps import Found, predict, predict_one
from utils.lesions import lesion_map, lesion_mask
from utils.output.console import warn

ALL_LESION = "nearly all of the slice is lesion; is it windowed, and are its gray levels inverted?"
NEARLY_ALL = 0.9
TOO_MUCH = "more lesion than air-filled lung"
UNSURE = "no lesion, but unsure nearly everywhere; is the network trained, and the slice like its training slices?"
RATHER, MOST = 64, 0.5  # of 255, and of the pixels of a slice above it


@dataclass(frozen=True)
class Prediction:
    """The prediction for a slice: the probability of each class, float32 ``(C, H, W)``, at its own size.

    frame: how the slice was cropped. agreement: of the views or the networks, if known.
    """

    probabilities: Tensor
    frame: Frame = WHOLE
    agreement: Agreement | None = None

    @cached_property
    def map(self) -> np.ndarray:
        """Probability of any lesion, uint8 ``(H, W)``, 255 for certainty."""
        return lesion_map(self.probabilities)

    @property
    def mask(self) -> np.ndarray:
        """Pixels where lesion is likelier than background, bool ``(H, W)``."""
        return self.mask_at(0.5)

    def mask_at(self, threshold: float) -> np.ndarray:
        """Pixels where the probability of lesion is above ``threshold``, in [0, 1); bool ``(H, W)``."""
        return lesion_mask(self.map, threshold)

    @property
    def reliability(self) -> float:
        """How far views or networks agree, in [0, 1]: low where the mask is likely wrong; NaN: unknown."""
        return self.agreement.dice if self.agreement else math.nan

    @property
    def note(self) -> str:
        """What may be wrong with the prediction; empty if nothing is known to be."""
        return one_note(self.frame.note, self.doubt)

    @property
    def doubt(self) -> str:
        """Why the mask can't be right: it has more lesion than air-filled lung, as far as that is known, or none where
        the network is unsure of most of the slice."""
        mask = self.mask
        if mask.mean() > NEARLY_ALL:
            return ALL_LESION
        if self.frame.air is not None and float(mask.mean()) > self.frame.air:
            return TOO_MUCH
        return UNSURE if not mask.any() and float(np.mean(self.map > RATHER)) > MOST else ""

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the likeliest class, float32 ``(H, W)``."""
        return self.probabilities.amax(dim=0)


class Predictor:
    """Finds lesions with one network, or with the mean of several, rebuilt from their checkpoints.

        found = Predictor("best.pth").predict("slice.png")
        found.mask, found.map  # bool and uint8, both (H, W)

    Takes the paths of checkpoints, or pairs of a network and its preprocessing, and, by name, the settings of
    ``PredictionConfig``, such as ``device="cpu"``. Raises InputError if a file is not a checkpoint or a setting is not
    available.
    """

    def __init__(self, *networks: Path | str | tuple[nn.Module, Preprocessing], **settings: Any) -> None:
        self.config = PredictionConfig(**settings)
        check(self.config)
        if not networks or not all(isinstance(each, Path | str | tuple) for each in networks):
            raise InputError("Predictor: needs one checkpoint or several; give their paths, as Predictor('M.pth')")
        paths = [located(each).resolve() for each in networks if not isinstance(each, tuple)]
        if doubled := [str(path) for path, times in Counter(paths).items() if times > 1]:
            raise InputError(f"{doubled[0]}: is given twice; an ensemble needs different networks")
        self.device = choose_device(self.config.device)
        self.precision = choose_precision(self.config.amp, self.device)
        names = ["" if isinstance(each, tuple) else str(each) for each in networks]
        self.checkpoint = ", ".join(filter(None, names))
        pairs = [each if isinstance(each, tuple) else load_model(each) for each in networks]
        self._networks = [
            _Network(name, model, self._adapted(preprocessing), self._averages_views(model))
            for name, (model, preprocessing) in zip(names, pairs, strict=True)
        ]
        self.preprocessing = self._networks[0].preprocessing
        if len(pairs) > 1 and len(classes := {_classes_of(model) for model, _ in pairs}) > 1:
            counts = " and ".join(map(str, sorted(classes)))
            raise InputError(
                f"{self.checkpoint}: have {counts} classes; an ensemble needs networks of the same classes"
            )

    def predict(self, image: Path | str | Image.Image | np.ndarray) -> Prediction:
        """Find the lesions of a slice: a path, an image, or an array ``(H, W)`` of gray levels (``array_as_gray``).

        Raises InputError if it can't be read, or has other values than windowed gray levels.
        """
        if isinstance(image, Path | str):
            path = Path(image)
            gray = read_image(path, self.config.reading.for_slices([path]))
        else:
            gray = as_gray(image) if isinstance(image, Image.Image) else array_as_gray(np.asarray(image))
        prepared = [each.preprocessing.apply(gray) for each in self._networks]
        found = [
            predict_one(each.model, image, each.preprocessing, place, **self._options(each))
            for each, (image, place) in zip(self._networks, prepared, strict=True)
        ]
        return _together(found, prepared[0][1].frame)

    def predict_scan(self, scan: Path | str | np.ndarray, *, window: tuple[float, float] | None = None) -> np.ndarray:
        """Find the lesions of a scan: a path (NIfTI, NRRD, a DICOM folder) or axial slices ``(S, H, W)`` in HU.

        An array must have the orientation of data/io/volumes.py: row 0 in front, column 0 on the patient's right.
        window: level and width in HU, by default those of the settings. Returns the probability of lesion, uint8
        ``(S, H, W)``, 255 for certainty; above 127, lesion is likelier. Raises InputError if the scan can't be read, or
        an array is not in HU.
        """
        window = self.config.window if window is None else window
        if not (isinstance(window, tuple) and len(window) == 2 and all(np.isfinite(window)) and window[1] > 0):
            raise InputError(f"window {window!r}: not a level and a width above 0, in HU, such as (-650, 1500)")
        if not isinstance(scan, Path | str):
            found = self.predict_hu(_checked(np.asarray(scan)), window=Window(*window))
        else:
            volume = read_scan(Path(scan), **self.config.scan_options)
            found = self.predict_hu(volume.slices, window=Window(*window), note=volume.note)
        if found.note:
            warn(f"{scan if isinstance(scan, Path | str) else 'the scan'}: {found.note}")
        return found.map

    def predict_hu(self, slices: np.ndarray, *, window: Window, note: str = "") -> "ScanPrediction":
        """``predict_scan`` of slices known to be in HU; ``note``: what is known of the scan already."""
        framing = (each.preprocessing for each in self._networks if each.preprocessing.align_frame)
        shown = ScanSlices(slices, next(framing, self.preprocessing), window=window)
        maps, doubts, agreements = np.zeros(slices.shape, np.uint8), Counter[str](), []
        for index, found in zip(shown.indices, self.predict_slices(shown), strict=True):
            maps[index] = found.map
            doubts.update(filter(None, [found.doubt]))
            agreements += [found.agreement] if found.agreement else []
        doubt = "; ".join(f"{doubt} ({times} slices)" for doubt, times in doubts.items())
        return ScanPrediction(maps, shown, one_note(note, shown.note, doubt), Agreement.of_all(agreements))

    def read(self, files: list[Path], *, cache_gb: float = 4.0) -> UnlabeledSlices:
        """The slices of these files, prepared for ``predict_slices``."""
        return UnlabeledSlices(files, self.preprocessing, cache_gb=cache_gb, reading=self.config.reading)

    def predict_slices(self, slices: UnlabeledSlices | ScanSlices) -> Iterator[Prediction]:
        """Yield the prediction for each slice; computes several at a time and shows a progress bar."""
        options: dict[str, Any] = {"batchsize": self.batchsize, "num_workers": self.config.num_workers}
        found = [
            predict(each.model, slices.prepared_by(each.preprocessing), **options, **self._options(each))
            for each in self._networks
        ]
        for placement, *of_networks in zip(slices.placements, *found, strict=True):
            yield _together(of_networks, placement.frame)

    @property
    def batchsize(self) -> int:
        """Slices per batch; by default 8 on a GPU, else 1, as larger ones are no faster there."""
        return self.config.batchsize or (8 if self.device.type == "cuda" else 1)

    @property
    def tta(self) -> bool | list[bool]:
        """Whether views of each slice are averaged; a list if the networks differ in it."""
        chosen = [each.tta for each in self._networks]
        return chosen if len(set(chosen)) > 1 else chosen[0]

    def summary(self) -> dict:
        """Checkpoints and settings of preprocessing and prediction, for a table of results."""
        each = [
            {
                "checkpoint": network.name,
                **network.preprocessing.summary(),
                "within_lungs": network.preprocessing.within_lungs,
                "tta": network.tta,
            }
            for network in self._networks
        ]
        return each[0] if len(each) == 1 else {"checkpoint": self.checkpoint, "networks": each}

    def _adapted(self, preprocessing: Preprocessing) -> Preprocessing:
        """The preprocessing of a checkpoint with the settings that were given instead."""
        names = ("image_size", "align_grays", "align_frame", "align_turns", "within_lungs")
        given = {name: value for name in names if (value := getattr(self.config, name)) is not None}
        if given.get("align_turns") and preprocessing.typical_slice is None:
            raise InputError("--align_turns: the network was trained without it, and has no orientation; leave it out")
        return replace(preprocessing, **given)

    def _averages_views(self, model: nn.Module) -> bool:
        """By default only a network that was trained on flipped slices, as others do not know them."""
        return getattr(model, "knows_turns", False) if self.config.tta is None else self.config.tta

    def _options(self, network: "_Network") -> dict[str, Any]:
        return {"device": self.device, "precision": self.precision, "tta": network.tta}


class ScanPrediction(NamedTuple):
    """The prediction for a scan: the lesion map uint8 ``(S, H, W)``, what was predicted, what may be wrong, and how far
    views or networks agree; None if no slice was predicted."""

    map: np.ndarray
    slices: ScanSlices
    note: str
    agreement: Agreement | None

    @property
    def reliability(self) -> float:
        """As that of a slice."""
        return self.agreement.dice if self.agreement else math.nan


def _classes_of(model: nn.Module) -> int:
    """The number of classes that a network tells apart."""
    with torch.inference_mode():
        device = next(model.parameters()).device
        return model.eval()(torch.zeros(1, 1, 64, 64, device=device)).shape[1]


class _Network(NamedTuple):
    name: str
    model: nn.Module
    preprocessing: Preprocessing
    tta: bool


def _together(found: Sequence[Found], frame: Frame) -> Prediction:
    """The prediction of one network, or the mean of several."""
    if len(found) == 1:
        return Prediction(found[0].probabilities, frame, found[0].agreement)
    maps = torch.stack([each.probabilities for each in found])
    mean = maps.mean(dim=0)
    return Prediction(mean, frame, Agreement.of(maps[:, 1:].sum(dim=1), mean[1:].sum(dim=0)))


def _checked(hu: np.ndarray) -> np.ndarray:
    """The array as float32. Raises InputError unless it is a volume in Hounsfield units."""
    if hu.ndim != 3 or hu.size == 0:
        raise InputError(f"the scan: has the shape {hu.shape}; give (slices, height, width)")
    if hu.dtype.kind not in "iuf" or not np.isfinite(hu).all() or hu.min() >= 0:
        levels = f"{hu.dtype} from {hu.min()} to {hu.max()}"
        raise InputError(f"the scan: not in Hounsfield units ({levels}), where air is -1000; convert it first")
    return hu.astype(np.float32)
