"""The data sets: slices with lesion masks, slices without, and the slices of a scan."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.io.images import read_all, read_image, read_pair
from data.labels import IGNORE
from data.preprocess.orientation import thumbnail
from data.preprocess.preprocessing import Placement, Preprocessing
from data.preprocess.window import Window


class _DecodedSlices(Dataset):
    """Slices at one size, read once at the start and kept decoded if they fit in ``cache_gb`` gigabytes.

    ``placements`` records the rotation and the size of each. A subclass decodes one of ``files``: uint8
    ``(planes, size, size)``, the image first, before rotation, and its own height and width.
    """

    planes: int

    def __init__(self, files: Sequence, preprocessing: Preprocessing, *, cache_gb: float = 4.0) -> None:
        self.files, self.preprocessing, self.cache_gb = list(files), preprocessing, cache_gb
        self.kept = len(self.files) * self.planes * preprocessing.image_size**2 <= cache_gb * 1e9

        def look(file: Any) -> tuple:
            decoded, size = self._decode(file)
            counts = torch.stack([plane.flatten().bincount(minlength=256) for plane in decoded])
            return decoded if self.kept else None, counts.int(), thumbnail(decoded[0].numpy()), size

        decoded, histograms, self.thumbnails, self._sizes = zip(*read_all(look, self.files), strict=True)
        self._cache = decoded if self.kept else None
        self.histograms = torch.stack(histograms)  # int32 (files, planes, 256): pixels of each value
        self.reorient(preprocessing)

    def reorient(self, preprocessing: Preprocessing) -> None:
        """Rotate the slices as ``preprocessing`` does; it may differ from the earlier one only in its typical slice."""
        self.preprocessing = preprocessing
        turns = map(preprocessing.turns_of, self.thumbnails)
        self.placements = [
            Placement(*placement) for placement in zip(turns, *zip(*self._sizes, strict=True), strict=True)
        ]

    def _decode(self, file: Any) -> tuple[Tensor, tuple[int, int]]:
        raise NotImplementedError

    def _decoded(self, index: int) -> Tensor:
        decoded = self._cache[index] if self._cache is not None else self._decode(self.files[index])[0]
        turns = self.placements[index].turns
        return decoded.rot90(turns, (1, 2)) if turns else decoded  # rot90 copies even if it does not rotate

    def __len__(self) -> int:
        return len(self.files)

    def mean_gray(self) -> float:
        """Mean gray level of all images, in [0, 1]."""
        of_level = self.histograms[:, 0].sum(dim=0)
        return ((of_level * torch.arange(256)).sum() / of_level.sum()).item() / 255


class LesionSlices(_DecodedSlices):
    """Slices with their lesion masks, at one size; ``files`` are pairs of paths.

    An item is an image, float32 ``(1, size, size)`` in [0, 1], and a mask, int64 ``(size, size)`` in
    {0, 1, 255 = ignore}; ``size`` is the preprocessing's ``image_size``. All files are read once, at the start, and
    kept decoded (2 bytes a pixel) if they fit in ``cache_gb`` gigabytes, else decoded at every access. ``pseudo``
    accepts masks with ignored pixels; ``files`` may then have a third path each, the true masks, for ``with_truth``.
    Raises InputError that names every file that can't be used.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, ...]],
        preprocessing: Preprocessing,
        *,
        pseudo: bool = False,
        cache_gb: float = 4.0,
    ) -> None:
        self.pseudo, self.planes, self._mask = pseudo, len(files[0]), 1
        super().__init__(files, preprocessing, cache_gb=cache_gb)

    @property
    def truth_known(self) -> bool:
        return self.planes > 2

    def with_truth(self) -> "LesionSlices":
        """The same slices with their true masks."""
        other = copy.copy(self)
        other._mask = 2
        return other

    def _decode(self, file: Sequence[Path]) -> tuple[Tensor, tuple[int, int]]:
        image, *masks = read_pair(file, pseudo=self.pseudo)
        nearest = Image.Resampling.NEAREST
        planes = [self.preprocessing.resample(image), *(self.preprocessing.resize(mask, nearest) for mask in masks)]
        return torch.stack(planes), (image.height, image.width)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        planes = self._decoded(index)
        return planes[:1].float() / 255, planes[self._mask].long()

    def lesion_share(self) -> float:
        """Lesion pixels over all pixels that are not ignored."""
        of_class = self.histograms[:, self._mask].sum(dim=0)
        return of_class[1].item() / max(1, (of_class.sum() - of_class[IGNORE]).item())

    def lesion_areas(self) -> Tensor:
        """Lesion pixels of each slice, float32 ``(len(self),)``."""
        return self.histograms[:, self._mask, 1].float()


class UnlabeledSlices(_DecodedSlices):
    """Slices without masks, at one size; ``files`` are paths, an item an image, float32 ``(1, size, size)`` in [0, 1].

    Read and kept as by ``LesionSlices`` (1 byte a pixel).
    """

    planes = 1

    def _decode(self, file: Path) -> tuple[Tensor, tuple[int, int]]:
        image = read_image(file)
        return self.preprocessing.resample(image)[None], (image.height, image.width)

    def __getitem__(self, index: int) -> Tensor:
        return self._decoded(index).float() / 255

    def prepared_by(self, preprocessing: Preprocessing) -> "UnlabeledSlices":
        """The same slices for another network."""
        if replace(preprocessing, typical_slice=None) != replace(self.preprocessing, typical_slice=None):
            return UnlabeledSlices(self.files, preprocessing, cache_gb=self.cache_gb)
        other = copy.copy(self)  # shares the decoded slices, which are kept before rotation
        other.reorient(preprocessing)
        return other


class ScanSlices(Dataset):
    """The axial slices of a scan at one size: an item is an image, float32 ``(1, size, size)`` in [0, 1].

    hu: Hounsfield units ``(S, H, W)``. window: maps them to gray levels. ``placements``: as in the other data sets.
    """

    def __init__(self, hu: np.ndarray, preprocessing: Preprocessing, *, window: Window) -> None:
        self.hu, self.preprocessing, self.window = hu, preprocessing, window
        turns = 0
        if preprocessing.typical_slice:
            # All slices have one orientation; those of the middle third show both lungs best.
            middle = range(len(hu) // 3, len(hu) - len(hu) // 3, max(1, len(hu) // 24))
            mean = np.mean([self._decode(index).numpy() for index in middle], axis=0)
            turns = preprocessing.turns_of(thumbnail(mean.astype(np.uint8)))
        self.placements = [Placement(turns, *hu.shape[1:])] * len(hu)

    def __len__(self) -> int:
        return len(self.hu)

    def _decode(self, index: int) -> Tensor:
        return self.preprocessing.resample(Image.fromarray(self.window.to_gray(self.hu[index])))

    def __getitem__(self, index: int) -> Tensor:
        return self._decode(index).rot90(self.placements[index].turns)[None].float() / 255

    def prepared_by(self, preprocessing: Preprocessing) -> "ScanSlices":
        """The same slices for another network."""
        return self if preprocessing == self.preprocessing else ScanSlices(self.hu, preprocessing, window=self.window)
