"""The training methods, by name. A new one is a file like the others here, and a line in SEMI_SUPERVISED.

``fit`` calls ``start_epoch``, ``prepare`` for every batch and ``report``, in this order.
"""

from utils.training.methods.complementary import Complementary
from utils.training.methods.copy_paste import CopyPaste
from utils.training.methods.double_threshold import DoubleThreshold
from utils.training.methods.pseudo import PseudoFirst, PseudoLabels
from utils.training.methods.soft import SoftLabels
from utils.training.methods.supervised import Batch, Supervised
from utils.training.methods.teacher import MeanTeacher
from utils.training.methods.two_views import TwoViews
from utils.training.methods.unimatch import UniMatch

SEMI_SUPERVISED: dict[str, type[PseudoLabels]] = {
    "pseudo": PseudoLabels,
    "pseudo_first": PseudoFirst,
    "teacher": MeanTeacher,
    "double_threshold": DoubleThreshold,
    "soft": SoftLabels,
    "copy_paste": CopyPaste,
    "two_views": TwoViews,
    "unimatch": UniMatch,
    "complementary": Complementary,
}

__all__ = ["SEMI_SUPERVISED", "Batch", "MeanTeacher", "PseudoLabels", "Supervised"]
