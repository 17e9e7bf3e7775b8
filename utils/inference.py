"""From a network and slices of any size to probability maps at the slices' own sizes."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.slices import ScanSlices, UnlabeledSlices


@torch.inference_mode()
def predict(
    model: nn.Module,
    slices: UnlabeledSlices | ScanSlices,
    *,
    device: torch.device,
    batchsize: int = 8,
    num_workers: int = 0,
    tta: bool = False,
) -> Iterator[Tensor]:
    """Yield each slice's class probabilities, float32 ``(C, H, W)`` on the CPU at its own size.

    The probabilities are resized (bilinear), not the mask, so that outlines stay smooth on large slices. With ``tta``
    they are the mean over the eight flips and quarter turns of the slice.
    """
    model.eval().to(device)
    index = 0
    batches = DataLoader(slices, batch_size=batchsize, num_workers=num_workers)
    with tqdm(total=len(slices), desc="predicting", unit="slice", disable=None) as bar:
        for images in batches:
            images = images.to(device)
            for probabilities in _averaged_over_views(model, images) if tta else _probabilities(model, images):
                own_size = slices.own_size(index)
                resized = F.interpolate(probabilities[None], own_size, mode="bilinear", antialias=True)[0]
                yield resized.cpu()
                index += 1
                bar.update()


def lesion_map(probabilities: Tensor) -> np.ndarray:
    """Class probabilities ``(C, H, W)`` -> probability of any lesion, uint8 ``(H, W)``, 255 for certainty.

    Rounded half down, so that more than 127 is where lesion is likelier than background.
    """
    return (255 * probabilities[1:].sum(dim=0) - 0.5).ceil().clamp(0, 255).to(torch.uint8).numpy()


def _probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).float().softmax(dim=1)


def _averaged_over_views(model: nn.Module, images: Tensor) -> Tensor:
    total = 0
    for turns in range(4):
        for flipped in (False, True):
            view = images.rot90(turns, (-2, -1))
            found = _probabilities(model, view.flip(-1) if flipped else view)
            total = total + (found.flip(-1) if flipped else found).rot90(-turns, (-2, -1))
    return total / 8
