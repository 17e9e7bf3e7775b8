"""Two thresholds for the teacher's labels: between them, a pixel is neither lesion nor background."""

from torch import Tensor

from data.labels import IGNORE
from utils.lesions import lesion_chances, lesions
from utils.training.methods.teacher import MeanTeacher

BACKGROUND = 0.1  # is below this probability of lesion


class DoubleThreshold(MeanTeacher):
    """As MeanTeacher, but what may be lesion and is not called so is ignored, lest the network learn to miss it."""

    heeds_confidence = False

    def decide(self, logits: Tensor) -> Tensor:
        lesion, chance = lesions(logits), lesion_chances(logits)
        return lesion.long().masked_fill((chance >= BACKGROUND) & ~lesion, IGNORE)
