"""Two views of each unlabeled slice that share no feature: UniMatch V2 (Yang et al., 2025)."""

from torch import Tensor

from utils.training.methods.supervised import Batch
from utils.training.methods.two_views import TwoViews, numbered


class Complementary(TwoViews):
    """As TwoViews, but of the features, one view has a random half and the other the rest."""

    needs_features = True

    def mix(self, labeled: Tensor, truth: Tensor, unlabeled: Tensor, label: Tensor) -> Batch:
        halves = numbered(len(unlabeled))
        kept = [0] * len(labeled)
        batch = super().mix(labeled, truth, unlabeled, label)
        return batch._replace(halves=[*kept, *halves, *(-number for number in halves)])
