"""Make the maps of a network mean chances: divide its logits by a temperature (Guo et al., ICML 2017, section 4.2)."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.folders import Pair
from data.io.images import read_mask
from data.io.reading import AS_STORED, Reading
from utils.checkpoint import load_model, read_checkpoint, save_checkpoint
from utils.inference.predictor import Predictor

COLDEST, HOTTEST, PRECISE = 0.25, 4.0, 0.02  # temperatures that are tried; how exactly, as a share
BINS = 15
ENOUGH = 64  # slices
SURE = 1e-6  # chances are kept this far from 0 and 1


class Calibration(NamedTuple):
    """The temperature that fits best, and the expected calibration error with and without it."""

    temperature: float
    before: float
    after: float


class Fit(NamedTuple):
    """How chances fit what is true: mean negative log likelihood of a pixel, and expected calibration error."""

    loss: float
    error: float


def calibrate(path: Path, pairs: Sequence[Pair], reading: Reading = AS_STORED, **settings: Any) -> Calibration:
    """Fit the temperature of a checkpoint on slices that it was not trained on, and keep it in the checkpoint.

    pairs: of images and masks, of which 64 are enough. settings: of ``Predictor``. It hardly changes masks. Raises
    InputError if a file can't be read.
    """
    chosen = [pairs[index] for index in np.unique(np.linspace(0, len(pairs) - 1, ENOUGH).round().astype(int))]
    fit = fit_of(path, chosen, reading, **settings)
    temperature = best_temperature(fit)
    save_checkpoint(path, read_checkpoint(path) | {"temperature": temperature})
    return Calibration(temperature, fit(1.0).error, fit(temperature).error)


def fit_of(
    path: Path | str, pairs: Sequence[Pair], reading: Reading = AS_STORED, **settings: Any
) -> Callable[[float], Fit]:
    """A function that tells how the chances of a checkpoint fit the masks of ``pairs`` at a temperature."""
    model, preprocessing = load_model(path)
    predictor = Predictor((model, preprocessing), **settings)
    slices = predictor.read([image for image, *_ in pairs])
    truths = [np.asarray(read_mask(mask, reading)) > 0 for _, mask, *_ in pairs]

    def fit_at(temperature: float) -> Fit:
        model.temperature = temperature  # type: ignore[assignment]
        found = predictor.predict_slices(slices)
        return how_well([each.probabilities[1:].sum(dim=0).numpy() for each in found], truths)

    return fit_at


def best_temperature(fit: Callable[[float], Fit]) -> float:
    """The temperature with the least loss."""
    from scipy.optimize import minimize_scalar  # slow to import

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(
        lambda log: fit(math.exp(log)).loss, bounds=bounds, method="bounded", options={"xatol": PRECISE}
    )
    return math.exp(found.x)


def how_well(chances: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> Fit:
    """How chances of lesion, float in [0, 1], fit the true masks, bool, of the same shapes; over all pixels.

    The expected calibration error is the mean distance of chance and frequency in 15 bins of equal width.
    """
    loss, counts, expected, found = 0.0, *(np.zeros(BINS) for _ in range(3))
    for chance, truth in zip(chances, truths, strict=True):
        clipped = np.clip(chance, SURE, 1 - SURE)
        loss -= float(np.log(np.where(truth, clipped, 1 - clipped)).sum())
        bins = np.minimum((chance * BINS).astype(int), BINS - 1).ravel()
        counts += np.bincount(bins, minlength=BINS)
        expected += np.bincount(bins, weights=chance.ravel(), minlength=BINS)
        found += np.bincount(bins, weights=truth.ravel(), minlength=BINS)
    return Fit(loss / counts.sum(), float(np.abs(expected - found).sum() / counts.sum()))
