"""A teacher that makes new pseudo labels at every step.

The averaged weights of the network (Mean Teacher, Tarvainen & Valpola 2017) label a slice after rotation and shift. The
network learns that label on the same slice with other gray levels (FixMatch, Sohn et al. 2020) and with a piece of
another slice in it (CutMix, Yun et al. 2019).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.augmentation import cut_and_mix
from data.datasets import LesionSlices
from data.errors import InputError
from data.labels import IGNORE
from models import perturbs
from utils.config import TrainingConfig
from utils.lesions import lesions
from utils.training.methods.pseudo import PseudoLabels
from utils.training.methods.supervised import Batch


class MeanTeacher(PseudoLabels):
    """As PseudoLabels, but at every step the averaged weights label the second half of the batch.

    The pseudo masks only decide which slices are drawn. Pixels whose likelier class has a probability below
    ``config.confidence`` are ignored. If the slices have true masks, the labels are scored by them.
    """

    needs_features = False  # whether batches have ``halves``
    heeds_confidence = True  # whether ``decide`` does

    def __init__(self, config: TrainingConfig, labeled: LesionSlices, pseudo: LesionSlices) -> None:
        if self.needs_features and not perturbs(config.model):
            raise InputError(f"--method {config.method}: --model {config.model} lacks what it needs; use cares_unet")
        if config.confidence and not self.heeds_confidence:
            raise InputError(f"--confidence {config.confidence:g}: --method {config.method} takes none; leave it out")
        super().__init__(config, labeled, pseudo)
        self.relabeled = self.pseudo
        self._counts: list[Tensor] = []  # of each step: pixels, kept, lesion in both, lesion in labels, lesion in truth

    def _load(self) -> DataLoader:
        if self.pseudo.truth_known:
            self.pseudo = self.pseudo.with_truth()
        return super()._load()

    def prepare(self, images: Tensor, masks: Tensor, teacher: Callable[[Tensor], Tensor]) -> Batch:
        if self.finishes:
            return super().prepare(images, masks, teacher)
        images, masks = self.augmentation.move(images, masks)
        (labeled, unlabeled), (truth, hidden_truth) = images.chunk(2), masks.chunk(2)
        return self.mix(labeled, truth, unlabeled, self.label(unlabeled, hidden_truth, teacher))

    def mix(self, labeled: Tensor, truth: Tensor, unlabeled: Tensor, label: Tensor) -> Batch:
        """The batch of both halves, moved but with the gray levels of before."""
        unlabeled, label = cut_and_mix(self.augmentation.vary(unlabeled), label)
        return joined(Batch(self.augmentation.vary(labeled), truth, true(labeled)), [(unlabeled, label)])

    def label(self, unlabeled: Tensor, hidden_truth: Tensor, teacher: Callable[[Tensor], Tensor]) -> Tensor:
        """The teacher's labels int64 ``(N, S, S)``, IGNORE where it is not sure enough, scored by ``hidden_truth``."""
        logits = teacher(unlabeled)
        label, lesion = self.decide(logits), lesions(logits)
        kept = label != IGNORE
        counted = (torch.ones_like(kept), kept, lesion & (hidden_truth > 0), lesion, hidden_truth > 0)
        self._counts.append(torch.stack([each.sum() for each in counted]))
        return label

    def decide(self, logits: Tensor) -> Tensor:
        """Lesion or not, or IGNORE, int64 ``(N, S, S)``, by logits ``(N, C, S, S)``."""
        sure = logits.softmax(dim=1).amax(dim=1) >= self.config.confidence
        return lesions(logits).long().where(sure, IGNORE)

    def report(self) -> dict[str, float]:
        """On the labels of this epoch: the share of pixels kept (0 without labels) and, if the truth is known, the Dice
        of all of them, ignored pixels included (NaN without lesion)."""
        counted = torch.stack(self._counts).sum(dim=0).tolist() if self._counts else [0] * 5
        pixels, kept, both, lesion, true_lesion = counted
        self._counts.clear()
        row = {"kept_share": kept / max(1, pixels)}
        if self.pseudo.truth_known:
            row["label_dice"] = 2 * both / (lesion + true_lesion) if lesion + true_lesion else math.nan
        return row


def joined(labeled: Batch, pseudo: list[tuple[Tensor, Tensor]]) -> Batch:
    """A batch of labeled slices and of pairs of images and pseudo masks, all features kept."""
    images, masks = zip((labeled.images, labeled.masks), *pseudo, strict=True)
    share = torch.cat([labeled.labeled, *(0 * true(some) for some, _ in pseudo)])
    return Batch(torch.cat(images), torch.cat(masks), share)


def true(images: Tensor) -> Tensor:
    """That the masks of these images are true, ``(N, 1, 1, 1)``."""
    return torch.ones(len(images), 1, 1, 1, device=images.device)
