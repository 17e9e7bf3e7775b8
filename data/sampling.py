"""Batches that mix labeled and pseudo-labeled slices."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class HalfAndHalf(Sampler[list[int]]):
    """Batches of which one half is labeled and the other pseudo-labeled, as in the paper.

    Indices are those of ``ConcatDataset([labeled, pseudo])``. One pass is one pass over the labeled slices, in
    random order, each batch completed by as many of the pseudo-labeled ones, drawn without replacement
    as far as they reach. A last, smaller batch is dropped.
    """

    def __init__(self, labeled: int, pseudo: int, batchsize: int) -> None:
        self.labeled, self.pseudo, self.half = labeled, pseudo, batchsize // 2

    def __len__(self) -> int:
        return self.labeled // self.half

    def __iter__(self) -> Iterator[list[int]]:
        needed = len(self) * self.half
        labeled = torch.randperm(self.labeled).tolist()
        pseudo = []
        while len(pseudo) < needed:
            pseudo += (self.labeled + torch.randperm(self.pseudo)).tolist()
        for start in range(0, needed, self.half):
            yield labeled[start : start + self.half] + pseudo[start : start + self.half]
