"""Semi-supervised training with a teacher, which makes new pseudo labels at every step.

The averaged weights of the network (Mean Teacher, Tarvainen & Valpola 2017) label a slice after rotation and shift. The
network learns that label on the same slice with other gray levels (FixMatch, Sohn et al. 2020) and with a piece of
another slice in it (CutMix, Yun et al. 2019).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from data.augmentation import Augmentation, cut_and_mix
from data.labels import IGNORE
from utils.lesions import lesions


class TeacherLabels:
    """Augments a batch of which the second half is unlabeled, and labels that half.

    Pixels whose likelier class has a probability below ``confidence`` are ignored. Call it with images float32
    ``(N, 1, S, S)`` in [0, 1], masks int64 ``(N, S, S)`` and the teacher, which maps images to logits; it returns
    images and masks in the same form. The second half of the masks is not learned. With ``truth_known``, it is the
    truth, by which the labels are scored.
    """

    def __init__(self, confidence: float, augmentation: Augmentation, *, truth_known: bool = False) -> None:
        self.confidence, self.augmentation, self.truth_known = confidence, augmentation, truth_known
        self._counts: list[Tensor] = []  # of each step: pixels, kept, lesion in both, lesion in labels, lesion in truth

    def __call__(self, images: Tensor, masks: Tensor, teacher: Callable) -> tuple[Tensor, Tensor]:
        images, masks = self.augmentation.move(images, masks)
        (labeled, unlabeled), (truth, hidden_truth) = images.chunk(2), masks.chunk(2)
        logits = teacher(unlabeled)
        lesion, kept = lesions(logits), logits.softmax(dim=1).amax(dim=1) >= self.confidence
        self._count(kept, lesion, hidden_truth > 0)
        unlabeled, label = cut_and_mix(self.augmentation.vary(unlabeled), lesion.long().where(kept, IGNORE))
        return torch.cat([self.augmentation.vary(labeled), unlabeled]), torch.cat([truth, label])

    def _count(self, kept: Tensor, lesion: Tensor, true_lesion: Tensor) -> None:
        pixels = torch.ones_like(kept)
        counted = (pixels, kept, lesion & true_lesion, lesion, true_lesion)
        self._counts.append(torch.stack([each.sum() for each in counted]))

    def report(self) -> dict[str, float]:
        """On the labels since the last report: the share of pixels kept (0 without labels) and, if the truth is known,
        the Dice of all of them, ignored pixels included (NaN without lesion)."""
        counted = torch.stack(self._counts).sum(dim=0).tolist() if self._counts else [0] * 5
        pixels, kept, both, lesion, true_lesion = counted
        self._counts.clear()
        row = {"kept_share": kept / max(1, pixels)}
        if self.truth_known:
            row["label_dice"] = 2 * both / (lesion + true_lesion) if lesion + true_lesion else math.nan
        return row
