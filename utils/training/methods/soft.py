"""Soft labels: the teacher's map of chances, not its mask, is what the network learns."""

import torch
from torch import Tensor

from utils.lesions import lesion_chances
from utils.training.methods.teacher import MeanTeacher


class SoftLabels(MeanTeacher):
    """As MeanTeacher, but each label is cut from the teacher's map at a random threshold of its own.

    So a pixel is called lesion as often as the teacher gives it a chance of being so: in the mean over steps, the cross
    entropy is that of soft labels, while each mask is a mask, which soft Dice is made for.
    """

    heeds_confidence = False

    def decide(self, logits: Tensor) -> Tensor:
        chance = lesion_chances(logits)
        return (chance > torch.rand(len(chance), 1, 1, device=chance.device)).long()
