"""Bring slices and scans to the framing of training slices that are cropped to the lungs.

Public data sets show the lungs from border to border, a scanner the whole chest with air and table. If most training
slices are cropped to the lungs, other slices are, too: the lungs are found, the slice is cropped to a box around them,
and the map of the network is put back in its place, with no lesion beyond the body.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.errors import one_note
from data.preprocess.lungs import (
    SIDE,
    air_in_corners,
    close_lungs,
    find_body,
    find_in_slice,
    find_lungs,
    largest_spaces,
    touches_borders,
)

ALL_BODY = 0.9  # of a slice: with more body, it may be cropped to lungs that are full of lesions
LEAST_LUNG = 0.01  # of a slice, to predict it
PAD = 0.03  # of the box, added at each side
ASYMMETRY = 1.25  # of the chest wall: a side that is thicker than this times the other one is consolidated lung
BRIGHTEST, LEAST_OUTSIDE = 8, 0.05  # gray levels below the brightest; share of a slice outside the body
FLAT, THIN = 16, 0.04  # gray levels within a border; share of the side up to which it is ignored
SMOOTH = 0.1  # of the height of the lungs, along a scan


class Box(NamedTuple):
    """A rectangle of a slice in pixels, which may reach beyond its borders."""

    left: int
    top: int
    right: int
    bottom: int


class Frame(NamedTuple):
    """How a slice is cropped: to a box (None: not at all), with no lesion outside of ``body``, bool, at any resolution.

    air: the share of the slice that is air-filled lung, if known. note: what may be wrong, for the user.
    """

    box: Box | None = None
    body: np.ndarray | None = None
    air: float | None = None
    note: str = ""

    def with_note(self, note: str) -> "Frame":
        return self._replace(note=one_note(self.note, note))


WHOLE = Frame()


def are_cropped(flags: Sequence[bool]) -> bool:
    """Whether training slices are cropped to the lungs, by whether each is: more than half of them.

    With one box for all slices of a scan, the lungs do not reach it at the apex and the base.
    """
    return sum(flags) > len(flags) / 2


def frame_slice(gray: np.ndarray, *, within_lungs: bool = False) -> Frame:
    """The frame of a slice uint8 ``(H, W)``; the whole slice if it is cropped already.

    within_lungs: the lungs, closed over lesions, take the place of the body, also in a slice that is cropped already.
    """
    frame = _framed(gray, within_lungs)
    return (
        frame.with_note("bright around the body; are the gray levels inverted?") if _is_bright_outside(gray) else frame
    )


def _framed(gray: np.ndarray, within_lungs: bool) -> Frame:
    """``frame_slice``, whether or not the gray levels are as they should be."""
    inner, (height, width) = _without_border(gray), gray.shape
    has_border = inner != (0, 0, width, height)
    body, lungs = find_in_slice(gray[inner.top : inner.bottom, inner.left : inner.right])
    air = float(lungs.mean()) * (inner.bottom - inner.top) * (inner.right - inner.left) / gray.size
    limit = close_lungs(lungs) if within_lungs else body
    limit = _placed(limit, inner, gray.shape) if has_border else limit
    if touches_borders(lungs):
        return Frame(inner if has_border else None, limit if within_lungs else None, air)
    if lungs.mean() < LEAST_LUNG:
        if body.mean() > ALL_BODY:
            return Frame(air=air, note="no lungs found, not cropped")
        return Frame(None, np.zeros_like(body), air, "no lungs found, not predicted")
    left, top, right, bottom = _pixels(_box_edges(body, lungs), (inner.bottom - inner.top, inner.right - inner.left))
    return Frame(Box(inner.left + left, inner.top + top, inner.left + right, inner.top + bottom), limit, air)


def _is_bright_outside(gray: np.ndarray) -> bool:
    """Whether what reaches the corners of a slice is as bright as anything in it, where air is dark."""
    small = np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BOX)).astype(int)
    bright = small >= np.percentile(small, 99) - BRIGHTEST
    corners = np.count_nonzero(bright[[0, 0, -1, -1], [0, -1, 0, -1]])
    return bool(corners >= 3 and air_in_corners(bright).mean() > LEAST_OUTSIDE)


def _without_border(gray: np.ndarray) -> Box:
    """The part of a slice within a border of one gray level, as screenshots have; the whole slice if it is thin."""
    edges = []
    for across, side in enumerate(gray.shape):
        varied = np.flatnonzero(np.ptp(gray, axis=1 - across) > FLAT)
        first, last = (varied[0], varied[-1] + 1) if len(varied) else (0, side)
        edges.append((first, last) if last - first < (1 - THIN) * side else (0, side))
    (top, bottom), (left, right) = np.array(edges).tolist()
    return Box(left, top, right, bottom)


def _placed(body: np.ndarray, inner: Box, shape: Sequence[int]) -> np.ndarray:
    """A mask of the part ``inner`` of a slice as one of the whole slice, bool ``(128, 128)``."""
    height, width = shape
    left, right = (round(edge * SIDE / width) for edge in (inner.left, inner.right))
    top, bottom = (round(edge * SIDE / height) for edge in (inner.top, inner.bottom))
    whole = Image.new("1", (SIDE, SIDE))
    whole.paste(Image.fromarray(body).resize((right - left, bottom - top)), (left, top))
    return np.array(whole)


def frame_scan(hu: np.ndarray, *, within_lungs: bool = False) -> tuple[list[Frame], np.ndarray]:
    """The frame of each axial slice of a scan in HU ``(S, H, W)``, upright, and whether it shows lung, bool ``(S,)``.

    The boxes change slowly along the scan. Without lung, no slice is to be predicted. within_lungs: as in
    ``frame_slice``.
    """
    from scipy import ndimage

    steps = [-(-side // SIDE) for side in hu.shape[1:]]
    small = hu[:, :: steps[0], :: steps[1]]
    body = find_body(small)
    lungs = largest_spaces(find_lungs(small, body))
    shown = lungs.mean(axis=(1, 2)) >= LEAST_LUNG
    if not shown.any():
        return [Frame(note="no lungs found, not predicted")] * len(hu), shown
    edges = np.stack([_box_edges(body[index], lungs[index]) for index in np.flatnonzero(shown)])
    reach = max(1, round(SMOOTH * len(edges)))
    ends = ndimage.maximum_filter1d(edges * (-1, 1), 2 * reach + 1, axis=0)  # the widest box nearby
    edges = ndimage.uniform_filter1d(ends, reach + 1, axis=0) * (-1, 1)
    frames = [WHOLE] * len(hu)
    for index, of_slice in zip(np.flatnonzero(shown), edges, strict=True):
        limit = close_lungs(lungs[index]) if within_lungs else body[index]
        frames[index] = Frame(_pixels(of_slice, hu.shape[1:]), limit, float(lungs[index].mean()))
    return frames, shown


def _pixels(edges: np.ndarray, shape: Sequence[int]) -> Box:
    (top, bottom), (left, right) = np.round(edges * np.array(shape)[:, None]).astype(int).tolist()
    return Box(left, top, right, bottom)


def _box_edges(body: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """First and last row, first and last column of a box around the lungs ``(2, 2)``, as shares of the side.

    Where lung is consolidated, the chest wall looks thicker than at the opposite side; the box includes it.
    """
    edges = np.empty((2, 2))
    for across in (0, 1):
        outer, inner = (np.flatnonzero(mask.any(axis=1 - across))[[0, -1]] + (0, 1) for mask in (body, lungs))
        walls = np.abs(inner - outer)
        start, end = outer + np.minimum(walls, ASYMMETRY * walls[::-1] + 1) * (1, -1)
        pad = PAD * (end - start)
        edges[across] = start - pad, end + pad
    return edges / np.array(lungs.shape)[:, None]
