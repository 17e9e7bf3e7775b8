"""The data sets: slices with lesion masks, slices without, and the slices of a scan."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.errors import InputError
from data.io.images import read_all, read_image, read_pair
from data.io.reading import AS_STORED, Reading
from data.labels import IGNORE
from data.preprocess.framing import WHOLE, Frame, are_cropped, frame_scan
from data.preprocess.orientation import portrait
from data.preprocess.preprocessing import Placement, Preprocessing
from data.preprocess.window import Window

LEAST_SPAN = 8  # gray levels of all slices together


class _DecodedSlices(Dataset):
    """Slices at one size, read once at the start and kept decoded if they fit in ``cache_gb`` gigabytes.

    ``placements`` records rotation, size and frame of each, ``digests`` which are equal, ``reading`` what values mean.
    A subclass decodes one of ``files``: uint8 ``(planes, size, size)``, the image first, before rotation, its own
    height and width, and its frame.
    """

    planes: int

    def __init__(
        self, files: Sequence, preprocessing: Preprocessing, *, cache_gb: float = 4.0, reading: Reading = AS_STORED
    ) -> None:
        self.files, self.cache_gb = list(files), cache_gb
        paths = [file if isinstance(file, Path) else file[0] for file in self.files]
        self.reading = reading.for_slices(paths)
        self.decoder = preprocessing  # of which reorient changes nothing
        self.kept = len(self.files) * self.planes * preprocessing.image_size**2 <= cache_gb * 1e9

        def look(file: Any) -> tuple:
            decoded, *place = self._decode(file)
            counts = torch.stack([plane.flatten().bincount(minlength=256) for plane in decoded])
            image = decoded[0].numpy()
            return decoded if self.kept else None, counts.int(), portrait(image), digest_of(image), place

        decoded, histograms, self.portraits, self.digests, self._places = zip(*read_all(look, self.files), strict=True)
        self._cache = decoded if self.kept else None
        self.histograms = torch.stack(histograms)  # int32 (files, planes, 256): pixels of each value
        if self.gray_span() < LEAST_SPAN:
            raise InputError(
                f"{paths[0].parent if len(paths) > 1 else paths[0]}: nearly one gray level in all of it; if these are "
                "Hounsfield units, say by --hu_offset what was added to them (0: nothing)"
            )
        self.reorient(preprocessing)

    def reorient(self, preprocessing: Preprocessing) -> None:
        """Rotate the slices as ``preprocessing`` does; they keep size, gray levels and frame."""
        self.preprocessing = preprocessing
        places = zip(self.portraits, self._places, strict=True)
        self.placements = [preprocessing.place(slice_, *place) for slice_, place in places]

    def _decode(self, file: Any, frame: Frame | None = None) -> tuple[Tensor, int, int, Frame]:
        """``frame``: that of the file, if it is known already."""
        raise NotImplementedError

    def _decoded(self, index: int) -> Tensor:
        frame = self._places[index][-1]
        decoded = self._cache[index] if self._cache is not None else self._decode(self.files[index], frame)[0]
        turns = self.placements[index].turns
        return decoded.rot90(turns, (1, 2)) if turns else decoded  # rot90 copies even if it does not rotate

    def __len__(self) -> int:
        return len(self.files)

    def mean_grays(self) -> np.ndarray:
        """Mean gray level of each image, float64, in [0, 1]."""
        of_level = self.histograms[:, 0].numpy().astype(float)
        return of_level @ np.arange(256) / of_level.sum(axis=1) / 255

    def gray_span(self) -> int:
        """The gray levels, of 256, between which all images lie but for a thousandth of their pixels at either end."""
        share = self.histograms[:, 0].sum(dim=0).cumsum(0) / self.histograms[:, 0].sum()
        return int((share < 0.999).sum() - (share < 0.001).sum())


def digest_of(pixels: np.ndarray) -> bytes:
    """Equal for equal pixels only."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


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
        reading: Reading = AS_STORED,
    ) -> None:
        self.pseudo, self.planes, self._mask = pseudo, len(files[0]), 1
        super().__init__(files, preprocessing, cache_gb=cache_gb, reading=reading)

    @property
    def truth_known(self) -> bool:
        return self.planes > 2

    def with_truth(self) -> "LesionSlices":
        """The same slices with their true masks."""
        other = copy.copy(self)
        other._mask = 2
        return other

    def _decode(self, file: Sequence[Path], frame: Frame | None = None) -> tuple[Tensor, int, int, Frame]:
        image, *masks = read_pair(file, self.reading, pseudo=self.pseudo)
        frame, nearest = frame or self.decoder.frame(image), Image.Resampling.NEAREST
        planes = [self.decoder.resize(mask, nearest, frame.box) for mask in masks]
        return torch.stack([self.decoder.resample(image, frame.box), *planes]), image.height, image.width, frame

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        planes = self._decoded(index)
        return planes[:1].float() / 255, planes[self._mask].long()

    def original(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A slice as in its file, uint8 ``(H, W)``, and its mask, uint8 ``(H, W)``, of the classes of an item."""
        image, mask, *_ = read_pair(self.files[index], self.reading, pseudo=self.pseudo)
        return np.asarray(image), np.asarray(mask)

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

    def _decode(self, file: Path, frame: Frame | None = None) -> tuple[Tensor, int, int, Frame]:
        image = read_image(file, self.reading)
        frame = frame or self.decoder.frame(image)
        return self.decoder.resample(image, frame.box)[None], image.height, image.width, frame

    def __getitem__(self, index: int) -> Tensor:
        return self._decoded(index).float() / 255

    def prepared_by(self, preprocessing: Preprocessing) -> "UnlabeledSlices":
        """The same slices for another network."""
        if preprocessing.before_rotation != self.preprocessing.before_rotation:
            return UnlabeledSlices(self.files, preprocessing, cache_gb=self.cache_gb, reading=self.reading)
        other = copy.copy(self)  # shares the decoded slices, which are kept before rotation
        other.reorient(preprocessing)
        return other


class ScanSlices(Dataset):
    """The axial slices of a scan that may show lung, at one size: an item is float32 ``(1, size, size)`` in [0, 1].

    hu: Hounsfield units ``(S, H, W)``, upright: row 0 in front, the spine at the bottom. window: maps them to gray
    levels. ``placements``: as in the other data sets. ``shown``: the slices of the scan that are items, bool ``(S,)``;
    all of them unless slices are cropped to the lungs. ``note``: what may be wrong with the scan.
    """

    def __init__(
        self, hu: np.ndarray, preprocessing: Preprocessing, *, window: Window, shown: np.ndarray | None = None
    ) -> None:
        self.hu, self.preprocessing, self.window = hu, preprocessing, window
        frames, with_lung = [WHOLE] * len(hu), np.ones(len(hu), bool)
        middle = range(len(hu) // 3, len(hu) - len(hu) // 3, max(1, len(hu) // 24))
        if preprocessing.align_frame and not are_cropped(
            [portrait(window.to_gray(hu[index])).cropped for index in middle]
        ):
            frames, with_lung = frame_scan(hu, within_lungs=preprocessing.within_lungs)
        self.shown = with_lung if shown is None else shown
        self.indices: list[int] = np.flatnonzero(self.shown).tolist()
        turns, (height, width) = preprocessing.upright_turns, hu.shape[1:]
        self.placements = [Placement(turns, height, width, frames[index]) for index in self.indices]
        self.note = "" if self.indices else frames[0].note
        if self.indices and preprocessing.typical_slice:
            self.note = self._doubt(preprocessing)

    def _doubt(self, preprocessing: Preprocessing) -> str:
        """What may be wrong with the scan, by the mean of slices from its middle third, which show both lungs best."""
        middle = range(len(self) // 3, len(self) - len(self) // 3, max(1, len(self) // 24))
        mean = np.mean([self._prepared(item).numpy() for item in middle], axis=0)
        place = preprocessing.place(portrait(mean.astype(np.uint8)), self.hu.shape[1], self.hu.shape[2], WHOLE)
        turns = (place.turns - self.placements[0].turns) % 4
        if place.frame.note or not (turns and preprocessing.align_turns):
            return place.frame.note
        return f"seems rotated by {90 * turns} degrees; check the orientation in the file"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> Tensor:
        return self._prepared(item).rot90(self.placements[item].turns)[None].float() / 255

    def _prepared(self, item: int) -> Tensor:
        gray = Image.fromarray(self.window.to_gray(self.hu[self.indices[item]]))
        return self.preprocessing.resample(gray, self.placements[item].frame.box)

    def prepared_by(self, preprocessing: Preprocessing) -> "ScanSlices":
        """The same slices for another network."""
        if preprocessing == self.preprocessing:
            return self
        return ScanSlices(self.hu, preprocessing, window=self.window, shown=self.shown)
