"""Preprocessing of slices for a network, and its inverse for the maps that the network returns."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from data.preprocess.grays import align_grays
from data.preprocess.orientation import mirror_axis, thumbnail, turns_towards, typical_slice


class Placement(NamedTuple):
    """Undoes the preprocessing of a slice: the quarter turns (of ``rot90``) that rotated it, and its own size."""

    turns: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Gray levels, size and orientation of slices, learned from training slices and kept in the checkpoint.

    image_size: the side to which slices are resized. align_grays: bring the gray levels of different sources together
    (grays.py). typical_slice: slices are rotated to its orientation (orientation.py); None: they are not rotated.
    The defaults apply to checkpoints without these entries.
    """

    image_size: int = 256
    align_grays: bool = False
    typical_slice: list[list[float]] | None = None

    def fit(self, images: Iterable[Image.Image]) -> "Preprocessing":
        """The same preprocessing, which also rotates slices to the orientation of most of these 8-bit gray images."""
        return self.fit_thumbnails(thumbnail(self.resample(image).numpy()) for image in images)

    def fit_thumbnails(self, thumbnails: Iterable[np.ndarray]) -> "Preprocessing":
        """``fit`` by the thumbnails (orientation.py) of resampled slices."""
        return replace(self, typical_slice=typical_slice(thumbnails))

    def apply(self, image: Image.Image) -> tuple[Tensor, Placement]:
        """Prepare an 8-bit gray image: float32 ``(1, size, size)`` in [0, 1], and the placement for ``undo``."""
        pixels = self.resample(image)
        turns = self.turns_of(thumbnail(pixels.numpy()))
        return pixels.rot90(turns)[None].float() / 255, Placement(turns, image.height, image.width)

    def undo(self, maps: Tensor, placement: Placement) -> Tensor:
        """Maps float32 ``(C, size, size)`` at the slice's own size and orientation, ``(C, H, W)``; bilinear."""
        maps = maps.rot90(-placement.turns, (-2, -1))
        own_size = (placement.height, placement.width)
        return F.interpolate(maps[None], own_size, mode="bilinear", antialias=True)[0]

    def resample(self, image: Image.Image) -> Tensor:
        """Align the gray levels of a slice and resize it, but do not rotate it: uint8 ``(size, size)``."""
        if self.align_grays:
            image = Image.fromarray(align_grays(np.asarray(image)))
        return self.resize(image, Image.Resampling.LANCZOS)

    def resize(self, image: Image.Image, resample: Image.Resampling) -> Tensor:
        """Resize an 8-bit image or mask: uint8 ``(size, size)``."""
        return torch.from_numpy(np.array(image.resize((self.image_size, self.image_size), resample)))

    def turns_of(self, small: np.ndarray) -> int:
        """The quarter turns that a slice needs, by its ``thumbnail`` (orientation.py)."""
        return turns_towards(self.typical_slice, small) if self.typical_slice else 0

    @property
    def mirror_axis(self) -> int | None:
        """The axis from one lung to the other, -2 or -1; None if slices may have any orientation."""
        return mirror_axis(self.typical_slice) if self.typical_slice else None

    def to_dict(self) -> dict:
        """Plain types, for a checkpoint; ``Preprocessing(**d)`` is the inverse."""
        return asdict(self)

    def summary(self) -> dict:
        """The settings, for a table of results."""
        aligned = self.typical_slice is not None
        return {"image_size": self.image_size, "align_grays": self.align_grays, "align_turns": aligned}
