"""Batches that mix labeled and pseudo-labeled slices."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


class HalfAndHalf(Sampler[list[int]]):
    """Batches of which one half is labeled and the other pseudo-labeled, as in the paper; finally all are labeled.

    With ``mixed_share`` 0, all are pseudo-labeled until then.

    Indices are those of ``ConcatDataset([labeled, pseudo])``. One pass is one pass over the ``labeled`` slices, in
    random order, each batch completed by as many of the pseudo-labeled ones, drawn in proportion to ``pseudo_weights``
    ``(slices,)``. A last, smaller batch is dropped. Once ``epoch``, which the training loop sets, is beyond
    ``mixed_epochs``, a second pass over the labeled slices takes the place of the others.
    """

    def __init__(
        self, labeled: int, pseudo_weights: Tensor, batchsize: int, *, mixed_epochs: int, mixed_share: float = 0.5
    ) -> None:
        if batchsize % 2:
            raise ValueError(f"batchsize must be even, not {batchsize}")
        self.labeled, self.pseudo_weights, self.half = labeled, pseudo_weights, batchsize // 2
        if mixed_share not in (0, 0.5):
            raise ValueError(f"mixed_share must be 0 or 0.5, not {mixed_share}")
        self.mixed_epochs, self.mixed_share, self.epoch = mixed_epochs, mixed_share, 1

    @property
    def labeled_share(self) -> float:
        """Of each batch of this epoch; labeled slices come first."""
        return self.mixed_share if self.epoch <= self.mixed_epochs else 1.0

    def __len__(self) -> int:
        return self.labeled // self.half

    def __iter__(self) -> Iterator[list[int]]:
        needed = len(self) * self.half
        first = torch.randperm(self.labeled).tolist() if self.labeled_share > 0 else self._drawn(needed)
        second = self._drawn(needed) if self.labeled_share < 1 else torch.randperm(self.labeled).tolist()
        for start in range(0, needed, self.half):
            yield first[start : start + self.half] + second[start : start + self.half]

    def _drawn(self, count: int) -> list[int]:
        return (self.labeled + self.pseudo_weights.multinomial(count, replacement=True)).tolist()
