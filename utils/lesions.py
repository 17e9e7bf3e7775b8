"""The definition of lesion, used everywhere: from class probabilities to map to mask."""

import numpy as np
import torch
from torch import Tensor


def lesion_map(probabilities: Tensor) -> np.ndarray:
    """Probability of any lesion, uint8 ``(H, W)``, 255 for certainty, from class probabilities ``(C, H, W)``.

    Rounded half down, so that values above 127 mean that lesion is likelier than background.
    """
    return (255 * probabilities[1:].sum(dim=0) - 0.5).ceil().clamp(0, 255).to(torch.uint8).numpy()


def uncertainty(soft: np.ndarray) -> np.ndarray:
    """The entropy of a map of lesion probability in bits, uint8 with 255 for one bit, which is that of even chances."""
    chance = np.linspace(0, 1, 256)[1:-1]
    bits = np.zeros(256)
    bits[1:-1] = -chance * np.log2(chance) - (1 - chance) * np.log2(1 - chance)
    return np.round(255 * bits).astype(np.uint8)[soft]


def lesions(logits: Tensor) -> Tensor:
    """Where lesion of any class is likelier than background, bool ``(N, H, W)``, of logits ``(N, C, H, W)``."""
    return logits[:, 1:].logsumexp(dim=1) > logits[:, 0]


def lesion_chances(logits: Tensor) -> Tensor:
    """The probability of any lesion, float ``(N, H, W)`` in [0, 1], of logits ``(N, C, H, W)``."""
    return logits.softmax(dim=1)[:, 1:].sum(dim=1)


def lesion_mask(soft: np.ndarray, threshold: float) -> np.ndarray:
    """Where a map of lesion probability, uint8 with 255 for certainty, is above ``threshold`` in [0, 1); bool."""
    return soft > 255 * threshold
