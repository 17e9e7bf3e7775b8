"""Two views and perturbed features of each unlabeled slice: UniMatch (Yang et al., CVPR 2023)."""

from torch import Tensor

from utils.training.methods.supervised import Batch
from utils.training.methods.teacher import joined
from utils.training.methods.two_views import TwoViews, numbered


class UniMatch(TwoViews):
    """As TwoViews, and the network learns the label on the slice as it is, too, with half of its features."""

    needs_features = True

    def mix(self, labeled: Tensor, truth: Tensor, unlabeled: Tensor, label: Tensor) -> Batch:
        batch = super().mix(labeled, truth, unlabeled, label)
        kept = [0] * len(batch.images)
        return joined(batch, [(unlabeled, label)])._replace(halves=kept + numbered(len(unlabeled)))
