"""Supervised training: the labeled slices in random order."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.augmentation import Augmentation
from data.datasets import LesionSlices
from utils.config import TrainingConfig
from utils.training.data import loader_options


class Batch(NamedTuple):
    """What to learn in a step: images float32 ``(N, 1, S, S)`` and masks int64 ``(N, S, S)``, on the device.

    labeled: 1 where masks are true, 0 where they are pseudo masks, float32 ``(N, 1, 1, 1)`` or ``(N, 1, S, S)``.
    halves: N numbers of the halves of the features to keep, as in ``keep_halves``; None: all.
    """

    images: Tensor
    masks: Tensor
    labeled: Tensor
    halves: Sequence[int] | None = None


class Supervised:
    """Learn the labeled slices, in random order."""

    best_restarts_at: int | None = None  # epoch at which the search for the best one restarts
    relabeled: LesionSlices | None = None  # slices that the averaged weights label at every step

    def __init__(self, config: TrainingConfig, labeled: LesionSlices) -> None:
        self.config, self.labeled = config, labeled
        mirror = labeled.preprocessing.mirror_axis
        self.augmentation = Augmentation(mirror=mirror, grays=config.augment_grays)
        self.batches = self._load()

    def _load(self) -> DataLoader:
        options = loader_options(self.config, self.labeled)
        return DataLoader(self.labeled, batch_size=self.config.batchsize, shuffle=True, drop_last=True, **options)

    def start_epoch(self, epoch: int) -> None:
        """Prepare for the batches of an epoch, counted from 1."""

    def prepare(self, images: Tensor, masks: Tensor, teacher: Callable[[Tensor], Tensor]) -> Batch:
        """What to learn from a batch of the loader, on the device.

        teacher: maps images to logits with the averaged weights.
        """
        if self.config.data_augmentation:
            images, masks = self.augmentation(images, masks)
        return Batch(images, masks, torch.ones(len(images), 1, 1, 1, device=images.device))

    def report(self) -> dict[str, float]:
        """More columns of log.csv for this epoch."""
        return {}
