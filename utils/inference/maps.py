"""Predict probability maps of slices, at their own sizes, and how far the views of a slice agree."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.datasets import ScanSlices, UnlabeledSlices
from data.errors import InputError
from data.preprocess.preprocessing import Placement, Preprocessing
from utils import malloc
from utils.device import autocast
from utils.inference.agreement import Agreement

T = TypeVar("T")


class Found(NamedTuple):
    """What a network finds in a slice: class probabilities, float32 ``(C, H, W)``, and how far its views agree."""

    probabilities: Tensor
    agreement: Agreement


def predict(
    model: nn.Module,
    slices: UnlabeledSlices | ScanSlices,
    *,
    device: torch.device,
    batchsize: int = 8,
    precision: str = "off",
    num_workers: int = 0,
    tta: bool = False,
) -> Iterator[Found]:
    """Yield what is found in each slice, its class probabilities on the CPU at its own size.

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
) -> Found:
    """What is found in one prepared slice, as ``predict`` yields it."""
    model.eval().to(device)
    with torch.inference_mode():
        [found] = _maps(model, image[None].to(device), preprocessing, precision, tta)
        return found._replace(probabilities=preprocessing.undo(found.probabilities, placement).cpu())


@torch.inference_mode()
def _predict_batches(
    model: nn.Module,
    batches: Iterable[Tensor],
    slices: UnlabeledSlices | ScanSlices,
    device: torch.device,
    precision: str,
    tta: bool,
) -> Iterator[list[Found]]:
    placements = iter(slices.placements)
    for images in batches:
        maps = _maps(model, images.to(device), slices.preprocessing, precision, tta)
        yield [
            found._replace(probabilities=slices.preprocessing.undo(found.probabilities, next(placements)).cpu())
            for found in maps
        ]


def _maps(model: nn.Module, images: Tensor, preprocessing: Preprocessing, precision: str, tta: bool) -> list[Found]:
    """What is found in prepared images, class probabilities ``(C, size, size)`` on the device."""
    with autocast(images.device, precision):
        pairs = _views(model, images, preprocessing.mirror_axis) if tta else [[_probabilities(model, images)]]
        views = [view for pair in pairs for view in pair]
        mean = torch.stack([torch.stack(pair).sum(dim=0) for pair in pairs]).sum(dim=0) / len(views)
        if not mean.isfinite().all():
            raise InputError("the network's maps are NaN; its weights, or --amp, can't be right: try --amp off")
        lesion = torch.stack(views, dim=1)[:, :, 1:].sum(dim=2)
        return [
            Found(probabilities, Agreement.of(each, probabilities[1:].sum(dim=0)))
            for probabilities, each in zip(mean, lesion, strict=True)
        ]


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items; a thread makes the next one while the caller uses this one."""
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(lambda: list(islice(iterator, 1)))
        while item := coming.result():
            coming = pool.submit(lambda: list(islice(iterator, 1)))
            yield item[0]


def _probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return (model(images).float() / getattr(model, "temperature", 1.0)).softmax(dim=1)


def _views(model: nn.Module, images: Tensor, mirror: int | None) -> list[list[Tensor]]:
    """The probabilities of images and their mirror images, flipped back; of four rotations if the axis is unknown."""
    quarters, axis = (range(4), -1) if mirror is None else (range(1), mirror)
    pairs = []
    for turns in quarters:
        view = images.rot90(turns, (-2, -1))
        pair = [_probabilities(model, view), _probabilities(model, view.flip(axis)).flip(axis)]
        pairs.append([found.rot90(-turns, (-2, -1)) for found in pair])
    return pairs
