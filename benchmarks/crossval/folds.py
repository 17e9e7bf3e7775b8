"""Labeled slices in folds for cross-validation; slices that look alike, as neighbours in a scan do, stay together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import InputError
from data.folders import Pair
from data.io.images import read_all, read_image

THUMBNAIL = 64  # pixels a side


def alike(images: Sequence[Path], correlation: float) -> list[int]:
    """A group number for each image; chains of thumbnails with a higher correlation than this form a group."""
    from scipy.sparse.csgraph import connected_components  # slow to import

    def thumbnail(path: Path) -> np.ndarray:
        return np.asarray(
            read_image(path).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS), dtype=float
        ).ravel()

    linked = np.corrcoef(read_all(thumbnail, images)) > correlation
    return connected_components(linked, directed=False)[1].tolist()


def split_in_folds(pairs: Sequence[Pair], groups: Sequence[int], count: int) -> list[list[Pair]]:
    """Deal out whole groups, in a fixed random order, each to the smallest fold so far, and say how many there are.

    GroupKFold of scikit-learn would form other folds, and earlier results would no longer be comparable.
    """
    if len(set(groups)) < count:
        found = f"the slices are {len(set(groups))} groups of neighbours"
        raise InputError(f"--folds {count}: {found}; ask for fewer, or raise --alike")
    folds: list[list[Pair]] = [[] for _ in range(count)]
    names = list(dict.fromkeys(groups))
    for name in np.random.default_rng(0).permutation(names):
        smallest = min(folds, key=len)
        smallest += [pair for pair, group in zip(pairs, groups, strict=True) if group == name]
    print(f"slices      {len(pairs)} in {len(names)} groups of neighbours; folds of {[len(fold) for fold in folds]}")
    return folds
