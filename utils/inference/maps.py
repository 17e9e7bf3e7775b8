"""Predict probability maps of slices, at their own sizes."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.datasets import ScanSlices, UnlabeledSlices
from data.preprocess.preprocessing import Placement, Preprocessing
from utils import malloc
from utils.device import autocast

T = TypeVar("T")


def predict(
    model: nn.Module,
    slices: UnlabeledSlices | ScanSlices,
    *,
    device: torch.device,
    batchsize: int = 8,
    precision: str = "off",
    num_workers: int = 0,
    tta: bool = False,
) -> Iterator[Tensor]:
    """Yield each slice's class probabilities, float32 ``(C, H, W)`` on the CPU at its own size.

    The probabilities are resized (bilinear), not the mask, so that outlines stay smooth on large slices. With ``tta``,
    they are averaged over the slice and its mirror image or, without a typical slice, over its eight flips and
    rotations.
    """
    model.eval().to(device)
    if device.type == "cpu":
        malloc.set_options(malloc.PREDICTING)
    batches = DataLoader(slices, batch_size=batchsize, num_workers=num_workers)
    bar = tqdm(total=len(slices), desc="predicting", unit="slice", disable=None)
    with bar:
        for found in _ahead(_predict_batches(model, _ahead(batches), slices, device, precision, tta)):
            yield from found
            bar.update(len(found))


def predict_one(
    model: nn.Module,
    image: Tensor,
    preprocessing: Preprocessing,
    placement: Placement,
    *,
    device: torch.device,
    precision: str = "off",
    tta: bool = False,
) -> Tensor:
    """The class probabilities of one prepared slice, float32 ``(C, H, W)``, as ``predict`` yields them."""
    model.eval().to(device)
    with torch.inference_mode():
        [found] = _maps(model, image[None].to(device), preprocessing, precision, tta)
        return preprocessing.undo(found, placement).cpu()


@torch.inference_mode()
def _predict_batches(
    model: nn.Module,
    batches: Iterable[Tensor],
    slices: UnlabeledSlices | ScanSlices,
    device: torch.device,
    precision: str,
    tta: bool,
) -> Iterator[list[Tensor]]:
    placements = iter(slices.placements)
    for images in batches:
        maps = _maps(model, images.to(device), slices.preprocessing, precision, tta)
        yield [slices.preprocessing.undo(found, next(placements)).cpu() for found in maps]


def _maps(model: nn.Module, images: Tensor, preprocessing: Preprocessing, precision: str, tta: bool) -> Tensor:
    """Class probabilities ``(N, C, size, size)`` of prepared images on the device."""
    with autocast(images.device, precision):
        if tta:
            return _averaged_over_views(model, images, preprocessing.mirror_axis)
        return _probabilities(model, images)


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items; a thread makes the next one while the caller uses this one."""
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(lambda: list(islice(iterator, 1)))
        while item := coming.result():
            coming = pool.submit(lambda: list(islice(iterator, 1)))
            yield item[0]


def _probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).float().softmax(dim=1)


def _averaged_over_views(model: nn.Module, images: Tensor, mirror: int | None) -> Tensor:
    quarters, axis = (range(4), -1) if mirror is None else (range(1), mirror)
    total = torch.zeros((), device=images.device)
    for turns in quarters:
        view = images.rot90(turns, (-2, -1))
        both = _probabilities(model, view) + _probabilities(model, view.flip(axis)).flip(axis)
        total = total + both.rot90(-turns, (-2, -1))
    return total / (2 * len(quarters))
