"""The data sets: slices with lesion masks, slices without, and the slices of a scan."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.files import IGNORE, Pair, read_all, read_image, read_pair
from data.grays import align_grays
from data.turns import turns_towards
from data.window import Window


class _DecodedSlices(Dataset):
    """Slices at one size, read once at the start and kept decoded if they fit in ``cache_gb`` gigabytes.

    ``align_grays`` brings the gray levels of different sources together (data/grays.py), a ``typical_slice`` the sides
    on which they have the spine (data/turns.py): ``turns`` holds the quarter turns that every slice was given for it.
    A subclass says how one of ``files`` is decoded: uint8 ``(planes, size, size)``, the image first.
    """

    planes: int

    def __init__(
        self,
        files: Sequence,
        *,
        image_size: int,
        align_grays: bool = False,
        typical_slice: list[list[float]] | None = None,
        cache_gb: float = 4.0,
    ) -> None:
        self.files, self.image_size, self.align_grays = list(files), image_size, align_grays
        self.typical_slice = typical_slice
        self.kept = len(self.files) * self.planes * image_size**2 <= cache_gb * 1e9

        def look(file) -> tuple[Tensor | None, Tensor, int]:
            decoded = self._decode(file)
            turns = turns_towards(typical_slice, decoded[0].numpy()) if typical_slice else 0
            counts = torch.stack([plane.flatten().bincount(minlength=256) for plane in decoded])
            return decoded.rot90(turns, (1, 2)) if self.kept else None, counts.int(), turns

        decoded, histograms, self.turns = zip(*read_all(look, self.files), strict=True)
        self._cache = decoded if self.kept else None
        self.histograms = torch.stack(histograms)  # int32 (files, planes, 256): pixels of each value

    def turn_towards(self, typical_slice: list[list[float]]) -> None:
        """Turn the slices, which were read as they lie, to lie as the typical one does."""
        self.typical_slice = typical_slice
        self.turns = tuple(turns_towards(typical_slice, image) for image in self.images())
        if self._cache is not None:
            self._cache = tuple(  # rot90 copies even what it does not turn
                decoded.rot90(turns, (1, 2)) if turns else decoded
                for decoded, turns in zip(self._cache, self.turns, strict=True)
            )

    def images(self) -> Iterator[np.ndarray]:
        """All images, uint8 ``(size, size)``, one after the other."""
        return (self._decoded(index)[0].numpy() for index in range(len(self)))

    def _decode(self, file) -> Tensor:
        raise NotImplementedError

    def _decoded(self, index: int) -> Tensor:
        if self._cache is not None:
            return self._cache[index]
        return self._decode(self.files[index]).rot90(self.turns[index], (1, 2))

    def __len__(self) -> int:
        return len(self.files)

    def mean_gray(self) -> float:
        """Mean gray level of all images, in [0, 1]."""
        of_level = self.histograms[:, 0].sum(dim=0)
        return ((of_level * torch.arange(256)).sum() / of_level.sum()).item() / 255


class LesionSlices(_DecodedSlices):
    """Slices with their lesion masks, at one size; ``files`` are pairs of paths.

    An item is an image, float32 ``(1, size, size)`` in [0, 1], and a mask, int64 ``(size, size)`` in
    {0, 1, 255 = ignore}; ``size`` is ``image_size``. All files are read once, at the start; what fits in
    ``cache_gb`` gigabytes is kept decoded (2 bytes a pixel), a larger set is decoded anew at every access.
    ``pseudo`` admits masks with ignored pixels. Raises InputError that names every file that can't be used.
    """

    planes = 2

    def __init__(self, files: Sequence[Pair], *, pseudo: bool = False, **options) -> None:
        self.pseudo = pseudo
        super().__init__(files, **options)

    def _decode(self, file: Pair) -> Tensor:
        image, mask = read_pair(file, pseudo=self.pseudo)
        prepared = _prepared(image, self.image_size, self.align_grays)
        return torch.stack([prepared, _resized(mask, self.image_size, Image.NEAREST)])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self._decoded(index)
        return image[None].float() / 255, mask.long()

    def lesion_share(self) -> float:
        """Lesion pixels over all pixels that are not ignored."""
        of_class = self.histograms[:, 1].sum(dim=0)
        return of_class[1].item() / max(1, (of_class.sum() - of_class[IGNORE]).item())

    def lesion_areas(self) -> Tensor:
        """Lesion pixels of each slice, float32 ``(len(self),)``."""
        return self.histograms[:, 1, 1].float()


class UnlabeledSlices(_DecodedSlices):
    """Slices without masks, at one size; ``files`` are paths, an item an image, float32 ``(1, size, size)`` in [0, 1].

    Read and kept as by ``LesionSlices`` (1 byte a pixel).
    """

    planes = 1

    def _decode(self, file: Path) -> Tensor:
        return _prepared(read_image(file), self.image_size, self.align_grays)[None]

    def __getitem__(self, index: int) -> Tensor:
        return self._decoded(index).float() / 255

    def own_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image as stored."""
        with Image.open(self.files[index]) as image:
            return image.height, image.width


class ScanSlices(Dataset):
    """The axial slices of a scan at one size: an item is an image, float32 ``(1, size, size)`` in [0, 1].

    hu: Hounsfield units ``(S, H, W)``; ``window`` makes gray levels of them.
    """

    def __init__(
        self,
        hu: np.ndarray,
        *,
        window: Window,
        image_size: int,
        align_grays: bool = False,
        typical_slice: list[list[float]] | None = None,
    ) -> None:
        self.hu, self.window, self.image_size, self.align_grays = hu, window, image_size, align_grays
        self.typical_slice = typical_slice
        turns = 0
        if typical_slice:
            # All slices lie alike, and those of the middle third show both lungs best.
            middle = range(len(hu) // 3, len(hu) - len(hu) // 3, max(1, len(hu) // 24))
            mean = np.mean([self._decode(index).numpy() for index in middle], axis=0)
            turns = turns_towards(typical_slice, mean.astype(np.uint8))
        self.turns = [turns] * len(hu)

    def __len__(self) -> int:
        return len(self.hu)

    def _decode(self, index: int) -> Tensor:
        return _prepared(Image.fromarray(self.window.to_gray(self.hu[index])), self.image_size, self.align_grays)

    def __getitem__(self, index: int) -> Tensor:
        return self._decode(index).rot90(self.turns[index])[None].float() / 255

    def own_size(self, index: int) -> tuple[int, int]:
        """Height and width of the slice as scanned."""
        return self.hu.shape[1:]


def _prepared(image: Image.Image, image_size: int, align: bool) -> Tensor:
    """An 8-bit gray image as networks take it, but for the scale: uint8 ``(image_size, image_size)``."""
    if align:
        image = Image.fromarray(align_grays(np.asarray(image)))
    return _resized(image, image_size, Image.LANCZOS)


def _resized(image: Image.Image, size: int, resample: Image.Resampling) -> Tensor:
    return torch.from_numpy(np.array(image.resize((size, size), resample)))
