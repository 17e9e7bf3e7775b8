"""Bidirectional copy and paste between labeled and unlabeled slices (BCP; Bai et al., CVPR 2023)."""

import torch
from torch import Tensor

from utils.training.methods.supervised import Batch
from utils.training.methods.teacher import MeanTeacher

SIDE = 2 / 3  # of the block, of that of a slice


class CopyPaste(MeanTeacher):
    """As MeanTeacher, but each slice has a block of a slice of the other half: labeled in unlabeled, and reverse.

    So true and pseudo masks meet within a slice, and labeled slices teach in the surroundings of unlabeled ones.
    """

    def mix(self, labeled: Tensor, truth: Tensor, unlabeled: Tensor, label: Tensor) -> Batch:
        labeled, unlabeled = self.augmentation.vary(labeled), self.augmentation.vary(unlabeled)
        block = random_blocks(labeled)
        images = torch.cat([unlabeled.where(block, labeled), labeled.where(block, unlabeled)])
        inside = block[:, 0]
        masks = torch.cat([label.where(inside, truth), truth.where(inside, label)])
        return Batch(images, masks, torch.cat([~block, block]).float())


def random_blocks(images: Tensor) -> Tensor:
    """A square at a random place of each image, bool ``(N, 1, S, S)``."""
    size = images.shape[-1]
    side = round(SIDE * size)
    top, left = torch.randint(size - side + 1, (2, len(images), 1), device=images.device)
    places = torch.arange(size, device=images.device)
    rows, columns = ((first <= places) & (places < first + side) for first in (top, left))
    return (rows[:, :, None] & columns[:, None, :])[:, None]
