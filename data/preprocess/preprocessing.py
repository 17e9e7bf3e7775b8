"""What is done to every slice before a network sees it, and how its maps come back to the slice."""

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
    """How a slice lay as stored: the quarter turns that it was given, as ``rot90`` counts them, and its own size."""

    turns: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Gray levels, size and orientation of slices, learned from training slices and kept in the checkpoint.

    image_size: the side to which slices are resized. align_grays: bring the gray levels of different sources together
    (grays.py). typical_slice: what slices are turned towards (orientation.py); None leaves them as they lie.
    The defaults are those of checkpoints that do not say.
    """

    image_size: int = 256
    align_grays: bool = False
    typical_slice: list[list[float]] | None = None

    def fit(self, images: Iterable[Image.Image]) -> "Preprocessing":
        """The same, which turns slices to lie as most of these 8-bit gray images do."""
        return self.fit_thumbnails(thumbnail(self.resample(image).numpy()) for image in images)

    def fit_thumbnails(self, thumbnails: Iterable[np.ndarray]) -> "Preprocessing":
        """``fit`` on what ``thumbnail`` (orientation.py) gives of resampled slices."""
        return replace(self, typical_slice=typical_slice(thumbnails))

    def apply(self, image: Image.Image) -> tuple[Tensor, Placement]:
        """An 8-bit gray image as networks take it, float32 ``(1, size, size)`` in [0, 1], and the way back."""
        pixels = self.resample(image)
        turns = self.turns_of(thumbnail(pixels.numpy()))
        return pixels.rot90(turns)[None].float() / 255, Placement(turns, image.height, image.width)

    def undo(self, maps: Tensor, placement: Placement) -> Tensor:
        """Maps float32 ``(C, size, size)`` of a prepared slice as the slice was stored, ``(C, H, W)``, bilinear."""
        maps = maps.rot90(-placement.turns, (-2, -1))
        own_size = (placement.height, placement.width)
        return F.interpolate(maps[None], own_size, mode="bilinear", antialias=True)[0]

    def resample(self, image: Image.Image) -> Tensor:
        """The gray levels and the size of a slice set right, but not yet its orientation: uint8 ``(size, size)``."""
        if self.align_grays:
            image = Image.fromarray(align_grays(np.asarray(image)))
        return self.resize(image, Image.Resampling.LANCZOS)

    def resize(self, image: Image.Image, resample: Image.Resampling) -> Tensor:
        """An 8-bit image or mask at the side of this preprocessing, uint8 ``(size, size)``."""
        return torch.from_numpy(np.array(image.resize((self.image_size, self.image_size), resample)))

    def turns_of(self, small: np.ndarray) -> int:
        """The quarter turns that a slice needs, by its ``thumbnail`` (orientation.py)."""
        return turns_towards(self.typical_slice, small) if self.typical_slice else 0

    @property
    def mirror_axis(self) -> int | None:
        """The axis from one lung to the other, -2 or -1; None if slices may lie in any way."""
        return mirror_axis(self.typical_slice) if self.typical_slice else None

    def to_dict(self) -> dict:
        """Plain types, for a checkpoint; ``Preprocessing(**d)`` is the way back."""
        return asdict(self)

    def summary(self) -> dict:
        """For a table of results: of the typical slice, whether there is one."""
        aligned = self.typical_slice is not None
        return {"image_size": self.image_size, "align_grays": self.align_grays, "align_turns": aligned}
