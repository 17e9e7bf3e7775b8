"""The training loss: the paper's cross entropy plus soft Dice."""

import torch
import torch.nn.functional as F
from torch import Tensor


def segmentation_loss(
    logits: Tensor,
    mask: Tensor,
    *,
    margin: Tensor | float = 0.0,
    dice_over: str = "batch",
    ignore: int = 255,
    smooth: float = 1e-4,
) -> Tensor:
    """Cross entropy + (1 - soft Dice averaged over all classes), both over the pixels that are not ignored.

    logits: ``(N, C, H, W)``. mask: int64 ``(N, H, W)``, class indices or ``ignore``. Returns a scalar >= 0,
    about 0 for a perfect prediction, and 0 where every pixel is ignored.

    ``dice_over`` "batch": one soft Dice of all pixels together, as in the paper. "slice": the mean of the slices' own,
    in which a slice with little lesion counts as much as one with much, as it does in the scores.

    ``margin``, a number or one for each slice ``(N, 1, 1, 1)``, is taken from the logits of all lesion classes before:
    the network learns to be right in spite of it and so, without it, finds more (Menon et al., ICLR 2021). A pixel is
    then called lesion from a probability of ``1 / (1 + exp(margin))`` on, which suits Dice better than one half.
    """
    classes = torch.arange(logits.shape[1], device=logits.device).view(-1, 1, 1)
    # In half precision, sums over a batch of pixels would overflow or lose the small lesions.
    log_probabilities = F.log_softmax(logits.float() - margin * (classes > 0), dim=1)
    valid = mask != ignore
    target = mask.where(valid, 0)
    cross_entropy = -log_probabilities.gather(1, target[:, None])[:, 0]
    cross_entropy = (cross_entropy * valid).sum() / valid.sum().clamp(min=1)

    weight = valid[:, None]
    probabilities = log_probabilities.exp() * weight
    one_hot = (target[:, None] == classes) * weight  # F.one_hot looks for the largest class, and the host waits
    summed = {"batch": (0, 2, 3), "slice": (2, 3)}[dice_over]
    overlap = (probabilities * one_hot).sum(dim=summed)
    total = (probabilities + one_hot).sum(dim=summed)
    dice = (2 * overlap + smooth) / (total + smooth)
    return cross_entropy + torch.mean(1 - dice)
