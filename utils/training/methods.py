"""The training methods: the batches of an epoch, what to learn from each, and what to report.

``fit`` calls ``start_epoch``, ``prepare`` for every batch and ``report``, in this order. A new method is a subclass
and a line in ``SEMI_SUPERVISED``, whose names are the choices of ``--method``.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from data.augmentation import Augmentation
from data.datasets import LesionSlices
from data.sampling import HalfAndHalf
from utils.config import TrainingConfig
from utils.training.data import loader_options
from utils.training.teacher import TeacherLabels


class Supervised:
    """Learn the labeled slices, in random order."""

    best_restarts_at: int | None = None  # epoch at which the search for the best one restarts

    def __init__(self, config: TrainingConfig, labeled: LesionSlices) -> None:
        self.config, self.labeled = config, labeled
        mirror = labeled.preprocessing.mirror_axis
        self.augmentation = Augmentation(mirror=mirror, grays=config.augment_grays)
        self.batches = self._load()

    @property
    def labeled_share(self) -> float:
        """The share of labeled slices, which come first, in the batches of this epoch."""
        return 1.0

    def _load(self) -> DataLoader:
        options = loader_options(self.config, self.labeled)
        return DataLoader(self.labeled, batch_size=self.config.batchsize, shuffle=True, drop_last=True, **options)

    def start_epoch(self, epoch: int) -> None:
        """Prepare for the batches of an epoch, counted from 1."""

    def prepare(self, images: Tensor, masks: Tensor, teacher: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The batch to learn: images float32 ``(N, 1, S, S)`` and masks int64 ``(N, S, S)``, returned in the same form.

        teacher: maps images to logits with the averaged weights.
        """
        return self.augmentation(images, masks) if self.config.data_augmentation else (images, masks)

    def report(self) -> dict[str, float]:
        """More columns of log.csv for this epoch."""
        return {}


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
    def labeled_share(self) -> float:
        return self.mixture.labeled_share


class PseudoFirst(PseudoLabels):
    """Learn the pseudo-labeled slices alone, then the labeled ones alone, as Semi-Inf-Net does (Fan et al., 2020)."""

    mixed_share = 0.0


class MeanTeacher(PseudoLabels):
    """As PseudoLabels, but at every step the averaged weights label the second half (teacher.py).

    The pseudo masks only decide which slices are drawn. If the slices have true masks, the labels are scored by them.
    """

    def __init__(self, config: TrainingConfig, labeled: LesionSlices, pseudo: LesionSlices) -> None:
        super().__init__(config, labeled, pseudo)
        self.labels = TeacherLabels(config.confidence, self.augmentation, truth_known=pseudo.truth_known)

    def _load(self) -> DataLoader:
        if self.pseudo.truth_known:
            self.pseudo = self.pseudo.with_truth()
        return super()._load()

    def prepare(self, images: Tensor, masks: Tensor, teacher: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        if self.labeled_share == 1:
            return super().prepare(images, masks, teacher)
        return self.labels(images, masks, teacher)

    def report(self) -> dict[str, float]:
        return self.labels.report()


SEMI_SUPERVISED = {"pseudo": PseudoLabels, "pseudo_first": PseudoFirst, "teacher": MeanTeacher}
