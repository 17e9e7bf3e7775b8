"""Pseudo masks that stay as they are: beside labeled slices, as in the paper, or before them, as for Semi-Inf-Net."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from data.datasets import LesionSlices
from data.sampling import HalfAndHalf
from utils.config import TrainingConfig
from utils.training.data import loader_options
from utils.training.methods.supervised import Batch, Supervised


class PseudoLabels(Supervised):
    """Learn labeled and pseudo-labeled slices, half and half (the paper), and finally only the labeled ones."""

    mixed_share = 0.5  # of labeled slices, before the finish

    def __init__(self, config: TrainingConfig, labeled: LesionSlices, pseudo: LesionSlices) -> None:
        self.mixed_epochs = config.epoch - round(config.epoch * config.labeled_finish)
        # Early epochs are close to pre-trained weights chosen on the same slices, and can win by chance.
        self.best_restarts_at = self.mixed_epochs + 1
        # Many unlabeled slices have little lesion; drawn by its area, they have about as much as labeled slices.
        weights = 1 + pseudo.lesion_areas() if config.favor_lesions else torch.ones(len(pseudo))
        self.mixture = HalfAndHalf(
            len(labeled), weights, config.batchsize, mixed_epochs=self.mixed_epochs, mixed_share=self.mixed_share
        )
        self.pseudo = pseudo
        super().__init__(config, labeled)

    def _load(self) -> DataLoader:
        both = [self.labeled, self.pseudo]
        return DataLoader(ConcatDataset(both), batch_sampler=self.mixture, **loader_options(self.config, *both))

    def start_epoch(self, epoch: int) -> None:
        self.mixture.epoch = epoch

    @property
    def finishes(self) -> bool:
        """Whether this epoch has labeled slices only."""
        return self.mixture.labeled_share == 1

    def prepare(self, images: Tensor, masks: Tensor, teacher: Callable[[Tensor], Tensor]) -> Batch:
        batch = super().prepare(images, masks, teacher)
        batch.labeled[round(len(images) * self.mixture.labeled_share) :] = 0  # labeled slices come first
        return batch


class PseudoFirst(PseudoLabels):
    """Learn the pseudo-labeled slices alone, then the labeled ones alone, as Semi-Inf-Net does (Fan et al., 2020)."""

    mixed_share = 0.0
