"""The training losses, by name. To try another, write a function like these and add a line to LOSSES."""

import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from data.labels import IGNORE
from models.inf_net import Maps

SMOOTH = 1e-4  # as published; defines soft Dice where a class is absent


def ce_dice(
    logits: Tensor,
    mask: Tensor,
    *,
    margin: Tensor | float = 0.0,
    weight: Tensor | float = 1.0,
    dice_over: str = "batch",
) -> Tensor:
    """Cross entropy + (1 - soft Dice averaged over all classes), both over the pixels that are not ignored.

    logits: ``(N, C, H, W)``. mask: int64 ``(N, H, W)``, class indices or IGNORE. Returns a scalar >= 0, about 0 for a
    perfect prediction, and 0 where every pixel is ignored.

    dice_over: "batch" for one soft Dice of all pixels together, as in the paper; "slice" for the mean of the slices'
    own, in which a slice with little lesion counts as much as one with much, as it does in the scores.

    margin: a number, or one for each slice ``(N, 1, 1, 1)``, to subtract from the logits of all lesion classes. The
    network learns to be right in spite of it and so, without it, finds more (Menon et al., ICLR 2021). It then calls a
    pixel lesion from a probability of ``1 / (1 + exp(margin))`` on, which suits Dice better than one half.

    weight: how much slices ``(N, 1, 1)`` or pixels ``(N, H, W)`` count, 1 on average.
    """
    log_probabilities = _log_probabilities(logits, margin)
    valid = mask != IGNORE
    counted = (valid * weight)[:, None]
    loss = _cross_entropy(log_probabilities, mask, counted)

    probabilities = log_probabilities.exp() * counted
    # F.one_hot looks for the largest class, which makes the host wait for the GPU.
    one_hot = mask.where(valid, 0)[:, None] == _classes(logits)
    summed = {"batch": (0, 2, 3), "slice": (2, 3)}[dice_over]
    overlap = (probabilities * one_hot).sum(dim=summed)
    total = (probabilities + one_hot * counted).sum(dim=summed)
    dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
    return loss + torch.mean((1 - dice) * _of_slices(weight, mask)[:, None])


def ce(logits: Tensor, mask: Tensor, *, margin: Tensor | float = 0.0, weight: Tensor | float = 1.0) -> Tensor:
    """Cross entropy over the pixels that are not ignored; arguments as in ``ce_dice``."""
    return _cross_entropy(_log_probabilities(logits, margin), mask, ((mask != IGNORE) * weight)[:, None])


def structure(
    outputs: Tensor | Maps, mask: Tensor, *, margin: Tensor | float = 0.0, weight: Tensor | float = 1.0
) -> Tensor:
    """Inf-Net's: of each of its maps, cross entropy and soft IoU, in which pixels near an outline weigh up to six times
    (its Section III-E); and the cross entropy of its edge. Logits, as in ``ce_dice``, count as one map."""
    valid, counted = (mask != IGNORE)[:, None], ((mask != IGNORE) * weight)[:, None]
    lesion = ((mask > 0)[:, None] & valid).float()
    if isinstance(outputs, Tensor):
        maps, edge = [outputs[:, 1:] - outputs[:, :1]], None
    else:
        maps, edge = list(outputs.maps), outputs.edge
    near_outline = (1 + 5 * (F.avg_pool2d(lesion, 31, stride=1, padding=15) - lesion).abs()) * counted
    each = [_of_map(logits.float() - margin, lesion, near_outline) for logits in maps]
    loss = (torch.stack(each).sum(dim=0) * _of_slices(weight, mask)).mean()
    if edge is not None:
        outline = F.max_pool2d(lesion, 3, 1, 1) + F.max_pool2d(-lesion, 3, 1, 1)
        # Beside ignored pixels, the outline is not known.
        known = (1 - F.max_pool2d((~valid).float(), 3, 1, 1)) * counted
        of_pixels = F.binary_cross_entropy_with_logits(edge.float(), outline, reduction="none")
        loss = loss + (of_pixels * known).sum() / known.sum().clamp(min=1)
    return loss


def _of_map(logits: Tensor, lesion: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy + (1 - soft IoU) of a map ``(N, 1, H, W)``, of each slice ``(N,)``."""
    each = F.binary_cross_entropy_with_logits(logits, lesion, reduction="none")
    chance, over = logits.sigmoid(), (1, 2, 3)
    cross_entropy = (each * weight).sum(over) / weight.sum(over).clamp(min=1)
    overlap = (chance * lesion * weight).sum(over)
    union = ((chance + lesion) * weight).sum(over) - overlap
    return cross_entropy + 1 - (overlap + 1) / (union + 1)


def _log_probabilities(logits: Tensor, margin: Tensor | float) -> Tensor:
    # In half precision, sums over a batch of pixels would overflow or lose the small lesions.
    return F.log_softmax(logits.float() - margin * (_classes(logits) > 0), dim=1)


def _cross_entropy(log_probabilities: Tensor, mask: Tensor, counted: Tensor) -> Tensor:
    of_pixels = -log_probabilities.gather(1, mask.where(mask != IGNORE, 0)[:, None])
    return (of_pixels * counted).sum() / counted.sum().clamp(min=1)


def _of_slices(weight: Tensor | float, mask: Tensor) -> Tensor:
    return torch.as_tensor(weight, device=mask.device).expand(mask.shape).mean(dim=(1, 2))


def _classes(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[1], device=logits.device).view(-1, 1, 1)


LOSSES: dict[str, Callable[..., Tensor]] = {"ce_dice": ce_dice, "ce": ce, "structure": structure}


def options_of_loss(name: str) -> set[str]:
    """The arguments that the loss called ``name`` takes."""
    return set(inspect.signature(LOSSES[name]).parameters)
