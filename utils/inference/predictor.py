"""``Predictor`` finds lesions in slices and scans, given checkpoints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data.datasets import ScanSlices, UnlabeledSlices
from data.io.images import as_gray, read_image
from data.io.volumes import read_scan
from data.preprocess.preprocessing import Preprocessing
from data.preprocess.window import LUNG, Window
from utils.checkpoint import load_model
from utils.config import PredictionConfig
from utils.device import choose_device, choose_precision
from utils.inference.maps import predict, predict_one
from utils.lesions import lesion_map, lesion_mask


@dataclass(frozen=True)
class Prediction:
    """The prediction for a slice: the probability of each class, float32 ``(C, H, W)``, at its own size."""

    probabilities: Tensor

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
        self.device = choose_device(self.config.device)
        self.precision = choose_precision(self.config.amp, self.device)
        size = self.config.image_size
        self._networks = [each if isinstance(each, tuple) else load_model(each, image_size=size) for each in networks]
        self.preprocessing = self._networks[0][1]
        tta = self.config.tta
        self.tta = any(getattr(model, "knows_turns", False) for model, _ in self._networks) if tta is None else tta

    def predict(self, image: Path | str | Image.Image | np.ndarray) -> Prediction:
        """Find the lesions of a slice: a path, an image, or gray levels ``(H, W)``, uint8 or uint16, windowed."""
        gray = read_image(Path(image)) if isinstance(image, Path | str) else as_gray(image)
        found = [predict_one(model, gray, preprocessing, **self._options) for model, preprocessing in self._networks]
        return Prediction(_mean(found))

    def predict_scan(self, scan: Path | str | np.ndarray, *, window: Window = LUNG) -> np.ndarray:
        """Find the lesions of a scan: a path (NIfTI, NRRD, a DICOM folder) or axial slices ``(S, H, W)`` in HU.

        Returns the probability of lesion, uint8 ``(S, H, W)``, 255 for certainty; above 127, lesion is likelier.
        """
        hu = read_scan(Path(scan)).slices if isinstance(scan, Path | str) else scan
        slices = ScanSlices(hu, self.preprocessing, window=window)
        return np.stack([found.map for found in self.predict_slices(slices)])

    def read(self, files: list[Path], *, cache_gb: float = 4.0) -> UnlabeledSlices:
        """The slices of these files, prepared for ``predict_slices``."""
        return UnlabeledSlices(files, self.preprocessing, cache_gb=cache_gb)

    def predict_slices(self, slices: UnlabeledSlices | ScanSlices) -> Iterator[Prediction]:
        """Yield the prediction for each slice; computes several at a time and shows a progress bar."""
        options: dict[str, Any] = {"batchsize": self.batchsize, "num_workers": self.config.num_workers, **self._options}
        found = [predict(model, slices.prepared_by(each), **options) for model, each in self._networks]
        for of_networks in zip(*found, strict=True):
            yield Prediction(_mean(of_networks))

    @property
    def batchsize(self) -> int:
        """Slices per batch; by default 8 on a GPU, else 1, as larger ones are no faster there."""
        return self.config.batchsize or (8 if self.device.type == "cuda" else 1)

    def summary(self) -> dict:
        """The settings of preprocessing and prediction, for a table of results."""
        return {**self.preprocessing.summary(), "tta": self.tta}

    @property
    def _options(self) -> dict[str, Any]:
        return {"device": self.device, "precision": self.precision, "tta": self.tta}


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.stack(list(maps)).mean(dim=0)
