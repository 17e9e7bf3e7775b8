"""Perturbation of features: half of the channels of each level, which a number names."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.compiler.disable
def keep_halves(features: Sequence[Tensor], numbers: Sequence[int]) -> list[Tensor]:
    """Keep a random half of the channels of features ``(N, C, h, w)``, doubled, and set the others to 0.

    A number for each of the N images says which half: ``-number`` names the complement of ``number``, and 0 keeps all.
    """
    generators = [torch.Generator().manual_seed(abs(number)) for number in numbers]
    kept = []
    for level in features:
        halves = torch.stack([torch.rand(level.shape[1], generator=generator) < 0.5 for generator in generators])
        numbered = torch.tensor(numbers)[:, None]
        factors = torch.where(numbered == 0, 1.0, 2.0 * (halves == (numbered > 0)))[:, :, None, None]
        kept.append(level * factors.to(level, non_blocking=True))
    return kept
