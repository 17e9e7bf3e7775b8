"""From a network and slices of any size to probability maps at the slices' own sizes."""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.slices import UnlabeledSlices


@torch.inference_mode()
def predict(
    model: nn.Module, slices: UnlabeledSlices, *, device: torch.device, batchsize: int = 8, num_workers: int = 0
) -> Iterator[tuple[Path, Tensor]]:
    """Yield each slice's path and its class probabilities, float32 ``(C, H, W)`` on the CPU at its own size.

    The probabilities are resized (bilinear), not the mask, so that outlines stay smooth on large slices.
    """
    model.eval().to(device)
    index = 0
    batches = DataLoader(slices, batch_size=batchsize, num_workers=num_workers)
    with tqdm(total=len(slices), desc="predicting", unit="slice", disable=None) as bar:
        for images in batches:
            for probabilities in model(images.to(device)).float().softmax(dim=1):
                own_size = slices.own_size(index)
                resized = F.interpolate(probabilities[None], own_size, mode="bilinear", antialias=True)[0]
                yield slices.files[index], resized.cpu()
                index += 1
                bar.update()
