"""Preprocessing of slices for a network, and its inverse for the maps that the network returns."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from data.preprocess.framing import WHOLE, Box, Frame, are_cropped, frame_slice
from data.preprocess.grays import align_grays
from data.preprocess.orientation import (
    SIDE,
    Portrait,
    front_to_back,
    likeness,
    mirror_axis,
    portrait,
    turns_towards,
    typical_slice,
    upright_turns,
)

LEAST_SIZE, MOST_SIZE = 16, 2048  # of image_size
INVERTED = 0.1  # of likeness; real slices have -0.18 and less
TOLERANCE = 0.8  # to the training slice that is least like the typical one; few of the same kind are less like it


def _is_of(values: object, shape: tuple[int, ...]) -> bool:
    """Whether these are finite numbers, nested in this shape."""
    try:
        array = np.array(values, float)
    except (TypeError, ValueError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())


def _is_negative(typical: list[list[float]], small: np.ndarray) -> bool:
    """Whether a slice, given its thumbnail, would be more like the typical one with its gray levels inverted."""
    return likeness(typical, -small) - likeness(typical, small) > INVERTED


class Placement(NamedTuple):
    """Undoes the preprocessing of a slice: the quarter turns (of ``rot90``) that rotated it, its own size and frame."""

    turns: int
    height: int
    width: int
    frame: Frame = WHOLE


NEARLY_BLACK = 0.05 * 255  # mean gray level; chest CT in a lung window has about 0.4
FEW_PIXELS = 48  # along a side


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Gray levels, framing, size and orientation of slices, learned from training slices and kept in the checkpoint.

    image_size: the side to which slices are resized. align_grays: bring the gray levels of different sources together
    (grays.py). align_frame: crop slices to the lungs (framing.py), as the training slices are. typical_slice: slices
    are rotated to its orientation (orientation.py), with the help of front_to_back; None: it is unknown. align_turns:
    rotate them, if it is known.
    least_likeness: of the training slices to it; what is less like it gets a note. within_lungs: there is no lesion
    beyond the lungs, closed over lesions.
    The defaults apply to checkpoints without these entries.
    """

    image_size: int = 256
    align_grays: bool = False
    align_frame: bool = False
    align_turns: bool = True
    typical_slice: list[list[float]] | None = None
    front_to_back: list[list[list[float]]] | None = None
    least_likeness: float | None = None
    within_lungs: bool = False

    def fit(self, images: Iterable[Image.Image], *, turns: bool = True, frame: bool = True) -> "Preprocessing":
        """The same preprocessing, which also rotates slices to the orientation of most of these 8-bit gray images
        (unless ``turns`` is False), and crops them to the lungs if these are (unless ``frame`` is False)."""
        return self.learn([portrait(self.resample(image).numpy()) for image in images], turns=turns, frame=frame)

    def learn(self, portraits: Sequence[Portrait], *, turns: bool = True, frame: bool = True) -> "Preprocessing":
        """``fit`` by the portraits (orientation.py) of resampled slices."""
        learned = replace(self, align_frame=frame and are_cropped([each.cropped for each in portraits]))
        if not turns:
            return learned
        typical = typical_slice(each.gray for each in portraits)
        return replace(
            learned,
            typical_slice=typical,
            front_to_back=front_to_back(portraits, mirror_axis(typical)),
            least_likeness=TOLERANCE * min(likeness(typical, each.gray) for each in portraits),
        )

    def apply(self, image: Image.Image) -> tuple[Tensor, Placement]:
        """Prepare an 8-bit gray image: float32 ``(1, size, size)`` in [0, 1], and the placement for ``undo``."""
        frame = self.frame(image)
        pixels = self.resample(image, frame.box)
        placement = self.place(portrait(pixels.numpy()), image.height, image.width, frame)
        return pixels.rot90(placement.turns)[None].float() / 255, placement

    def undo(self, probabilities: Tensor, placement: Placement) -> Tensor:
        """Class probabilities float32 ``(C, size, size)`` at the slice's own size and orientation, ``(C, H, W)``.

        Bilinear. Beyond the frame of the slice, all is background (class 0).
        """
        turned = probabilities.rot90(-placement.turns, (-2, -1))
        own_size, (box, body, *_) = (placement.height, placement.width), placement.frame
        box_size = (box.bottom - box.top, box.right - box.left) if box else own_size
        whole = F.interpolate(turned[None], box_size, mode="bilinear", antialias=True)[0]
        if box:  # what it has beyond the slice is cut off
            edges = (-box.left, box.right - placement.width, -box.top, box.bottom - placement.height)
            whole = F.pad(whole, [-edge for edge in edges])
        if body is not None:
            inside = F.interpolate(torch.from_numpy(body)[None, None].float(), own_size, mode="nearest")[0]
            whole = whole * inside.to(whole.device)
        if box or body is not None:
            whole[0] += 1 - whole.sum(dim=0)
        return whole

    def frame(self, image: Image.Image) -> Frame:
        """How an 8-bit gray image is cropped, and where it may have lesions."""
        gray = np.asarray(image)
        frame = WHOLE
        if self.align_frame or self.within_lungs:
            frame = frame_slice(gray, within_lungs=self.within_lungs)
            frame = frame if self.align_frame else frame._replace(box=None)
        if gray.mean() < NEARLY_BLACK:  # then nothing else that is found in it means anything
            frame = frame._replace(note="nearly black; is it windowed?")
        if min(gray.shape) < FEW_PIXELS:
            frame = frame.with_note("{1}x{0} pixels are few; give it at its original size".format(*gray.shape))
        return frame

    def place(self, slice_: Portrait, height: int, width: int, frame: Frame) -> Placement:
        """The placement of a slice, given its portrait (orientation.py), its own size and its frame."""
        least = -1.0 if self.least_likeness is None else self.least_likeness
        if self.typical_slice and likeness(self.typical_slice, slice_.gray) < least:
            frame = frame.with_note("unlike the training slices")
        if self.typical_slice and _is_negative(self.typical_slice, slice_.gray):
            frame = frame.with_note("gray levels seem inverted, air is not dark")
        return Placement(self.turns_of(slice_, framed=frame.box is not None), height, width, frame)

    def resample(self, image: Image.Image, box: Box | None = None) -> Tensor:
        """Crop a slice, align its gray levels and resize it, but do not rotate it: uint8 ``(size, size)``."""
        image = image.crop(box) if box else image
        if self.align_grays:
            image = Image.fromarray(align_grays(np.asarray(image)))
        return self.resize(image, Image.Resampling.LANCZOS)

    def resize(self, image: Image.Image, resample: Image.Resampling, box: Box | None = None) -> Tensor:
        """Crop and resize an 8-bit image or mask: uint8 ``(size, size)``."""
        image = image.crop(box) if box else image
        return torch.from_numpy(np.array(image.resize((self.image_size, self.image_size), resample)))

    def turns_of(self, slice_: Portrait, *, framed: bool) -> int:
        """The quarter turns that a slice needs, by its portrait (orientation.py); ``framed``: if it was cropped."""
        return turns_towards(self._orientation, slice_, self.front_to_back, framed=framed) if self._orientation else 0

    @property
    def _orientation(self) -> list[list[float]] | None:
        return self.typical_slice if self.align_turns else None

    @property
    def before_rotation(self) -> "Preprocessing":
        """The same without orientation: what decides how a file is decoded."""
        return replace(self, typical_slice=None, front_to_back=None, least_likeness=None, align_turns=True)

    @property
    def upright_turns(self) -> int:
        """The quarter turns that an upright slice needs."""
        return upright_turns(self._orientation) if self._orientation else 0

    @property
    def mirror_axis(self) -> int | None:
        """The axis from one lung to the other, -2 or -1; None if slices may have any orientation."""
        return mirror_axis(self.typical_slice) if self.typical_slice else None

    def to_dict(self) -> dict:
        """Plain types, for a checkpoint; ``Preprocessing(**d)`` is the inverse."""
        return asdict(self)

    @classmethod
    def why_refused(cls, content: dict) -> str:
        """Which entry of a dict can't be one of ``to_dict``, by its name; empty if all can be."""
        flags = [option.name for option in fields(cls) if option.type == "bool" or option.type is bool]
        for name, value in content.items():
            shape = {"typical_slice": (SIDE, SIDE), "front_to_back": (2, SIDE, SIDE), "least_likeness": ()}.get(name)
            if name in flags:
                fits = isinstance(value, bool)
            elif name == "image_size":
                fits = type(value) is int and LEAST_SIZE <= value <= MOST_SIZE
            else:
                fits = shape is not None and (value is None or _is_of(value, shape))
            if not fits:
                return f"{name} {str(value)[:50]!r}"
        return ""

    def summary(self) -> dict:
        """The settings, for a table of results."""
        names = ("image_size", "align_grays", "align_frame")
        return {**{name: getattr(self, name) for name in names}, "align_turns": self._orientation is not None}
