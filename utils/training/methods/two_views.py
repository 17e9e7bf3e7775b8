"""Two views of each unlabeled slice, as in UniMatch (Yang et al., CVPR 2023)."""

import torch
from torch import Tensor

from data.augmentation import cut_and_mix
from utils.training.methods.supervised import Batch
from utils.training.methods.teacher import MeanTeacher, joined, true


class TwoViews(MeanTeacher):
    """As MeanTeacher, but the network learns each label on two views, with gray levels and pieces of their own."""

    def mix(self, labeled: Tensor, truth: Tensor, unlabeled: Tensor, label: Tensor) -> Batch:
        views = [cut_and_mix(self.augmentation.vary(unlabeled), label) for _ in range(2)]
        return joined(Batch(self.augmentation.vary(labeled), truth, true(labeled)), views)


def numbered(count: int) -> list[int]:
    """Numbers of random halves of the features, as in ``keep_halves``."""
    return torch.randint(1, 2**31, (count,)).tolist()
