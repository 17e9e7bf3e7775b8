"""Semi-supervised training with a teacher: pseudo labels that are made anew at every step.

The averaged weights of the network (Mean Teacher, Tarvainen & Valpola 2017) label a slice as it was turned and shifted;
the network learns that label on the same slice with other gray levels (FixMatch, Sohn et al. 2020) and with a piece of
another slice in it (CutMix, Yun et al. 2019).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from data.files import IGNORE
from data.transforms import cut_and_mix, move, random_positions, vary_grays


class TeacherLabels:
    """Augments a batch of which the second half is unlabeled, and labels that half.

    Pixels whose likelier class has a probability below ``confidence`` are left to ignore. Call it with images float32
    ``(N, 1, S, S)`` in [0, 1], masks int64 ``(N, S, S)``, of which the second half is not read, and the teacher,
    which maps images to logits; it returns images and masks of the same form.
    """

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence
        self._kept: list[Tensor] = []

    def __call__(self, images: Tensor, masks: Tensor, teacher: Callable) -> tuple[Tensor, Tensor]:
        images, masks = move(images, masks, random_positions(len(images), images.device))
        (labeled, unlabeled), (truth, _) = images.chunk(2), masks.chunk(2)
        label = self._label(unlabeled, teacher)
        unlabeled, label = cut_and_mix(vary_grays(unlabeled), label)
        return torch.cat([vary_grays(labeled), unlabeled]), torch.cat([truth, label])

    def _label(self, images: Tensor, teacher: Callable) -> Tensor:
        confidence, label = teacher(images).softmax(dim=1).max(dim=1)
        kept = confidence >= self.confidence
        self._kept.append(kept.float().mean())
        return label.where(kept, IGNORE)

    def kept_share(self) -> float:
        """Share of the unlabeled pixels that got a label since this was last asked; 0 if there were none."""
        share = torch.stack(self._kept).mean().item() if self._kept else 0.0
        self._kept.clear()
        return share
