"""Joint augmentation of slices and masks, a batch at a time, on the device of the batch."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

TILES = (4, 8)  # along each side of a slice, for images in turn


class Augmentation:
    """Move each slice of a batch and its mask at random, then vary the gray levels of the slice.

    Runs the steps of GEOMETRY and of one of GRAYS, below; every training method runs a step added there. ``mirror``:
    see ``random_positions``. ``grays``: which of GRAYS.
    """

    def __init__(self, *, mirror: int | None = None, grays: str = "usual") -> None:
        self.mirror, self.grays = mirror, grays

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """images: float32 ``(N, 1, S, S)`` in [0, 1]. masks: int64 ``(N, S, S)``. Returns both in the same form."""
        images, masks = self.move(images, masks)
        return self.vary(images), masks

    def move(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Run the steps of GEOMETRY."""
        for step in GEOMETRY:
            images, masks = step(images, masks, mirror=self.mirror)
        return images, masks

    def vary(self, images: Tensor) -> Tensor:
        """Run the steps of GRAYS."""
        for step in GRAYS[self.grays]:
            images = step(images)
        return images


def move_randomly(images: Tensor, masks: Tensor, *, mirror: int | None = None) -> tuple[Tensor, Tensor]:
    """Flip, rotate, shift and zoom each slice and its mask."""
    return move(images, masks, random_positions(len(images), images.device, mirror=mirror))


def random_positions(n: int, device: torch.device, *, mirror: int | None = None) -> Tensor:
    """``n`` random affine maps ``(n, 2, 3)`` from new to old coordinates, in which the image spans [-1, 1].

    Half of the slices are flipped along ``mirror``, the axis from one lung to the other, -2 or -1. Without it (None)
    slices may have any orientation, and all flips and quarter turns are drawn. Added to these are a rotation of up to
    15 degrees, a shift of up to 8 % of the side and a zoom between 0.8 and 1.25.
    """
    flipped = torch.randint(2, (n,), device=device)
    # A flip of x and a rotation by 180 degrees are a flip of y.
    quarters = torch.randint(4, (n,), device=device) if mirror is None else flipped * (2 if mirror == -2 else 0)
    angle = quarters * (math.pi / 2) + _uniform(n, device, -15, 15).deg2rad()
    flip = 1 - 2.0 * flipped
    zoom = _uniform(n, device, 0.8, 1.25)
    shift_x, shift_y = _uniform(n, device, -0.16, 0.16), _uniform(n, device, -0.16, 0.16)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    return torch.stack([flip * cos, -flip * sin, shift_x, sin, cos, shift_y], dim=1).view(n, 2, 3)


def move(images: Tensor, masks: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Apply affine maps ``(N, 2, 3)`` to images (bilinear) and masks (nearest neighbour).

    Pixels from beyond the border are air: black, and no lesion.
    """
    grid = F.affine_grid(positions, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    moved_masks = F.grid_sample(masks[:, None].to(images.dtype), grid, mode="nearest", align_corners=False)
    return moved, moved_masks[:, 0].to(masks.dtype)


def vary_grays(images: Tensor) -> Tensor:
    """Gamma, brightness, contrast and noise, drawn for each of the images ``(N, 1, H, W)`` in [0, 1]."""

    draw = partial(_for_each, images)
    images = images.clamp(0, 1) ** draw(-math.log(1.3), math.log(1.3)).exp()
    images = (images * draw(0.9, 1.1)).clamp(0, 1)
    images = images.mean(dim=(1, 2, 3), keepdim=True).lerp(images, draw(0.8, 1.2))
    return (images + draw(0, 0.06) * torch.randn_like(images)).clamp(0, 1)


def vary_window(images: Tensor) -> Tensor:
    """Move the gray levels of air and of bone, as other windows do, in a third of the images ``(N, 1, H, W)``."""
    low, high = _for_each(images, -0.2, 0.2), _for_each(images, -0.2, 0.2)
    return ((images - low) / (1 + high - low)).clamp(0, 1).where(_some(images, 1 / 3), images)


def vary_sharpness(images: Tensor) -> Tensor:
    """Blur or sharpen a third of the images ``(N, 1, H, W)``, as the kernels of scanners do."""
    smooth = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    changed = (images + _for_each(images, -1, 1.5) * (images - smooth)).clamp(0, 1)
    return changed.where(_some(images, 1 / 3), images)


def equalize_some(images: Tensor) -> Tensor:
    """Equalize the contrast of half of the images ``(N, 1, H, W)`` locally, in tiles of two sizes."""
    clip, equal = _for_each(images, math.log(0.003), math.log(0.05)).exp().flatten(), torch.empty_like(images)
    # A random number of tiles would make the host wait for the GPU.
    for first, tiles in enumerate(TILES[: len(images)]):
        part = slice(first, None, len(TILES))
        equal[part] = equalize(images[part], tiles=tiles, clip=clip[part])
    return images.lerp(equal, _for_each(images, 0.3, 1)).where(_some(images, 1 / 2), images)


def equalize(images: Tensor, *, tiles: int, clip: Tensor) -> Tensor:
    """Contrast-limited adaptive histogram equalization (CLAHE; Zuiderveld 1994) of images ``(N, 1, H, W)`` in [0, 1].

    tiles: along each side; every one has its own mapping of gray levels, and a pixel the bilinear mean of the mappings
    of the nearest four. clip: the largest share of a tile's pixels that counts for one of 256 gray levels ``(N,)``.
    """
    n, _, height, width = images.shape
    sides = [-(-side // tiles) for side in (height, width)]
    padding = (0, sides[1] * tiles - width, 0, sides[0] * tiles - height)
    levels = (F.pad(images, padding, mode="replicate") * 255).round().long()[:, 0]
    of_tile = levels.view(n, tiles, sides[0], tiles, sides[1]).transpose(2, 3).flatten(3)  # (n, tiles, tiles, pixels)
    counts = torch.zeros(n, tiles, tiles, 256, device=images.device)
    counts.scatter_add_(3, of_tile, torch.ones_like(of_tile, dtype=counts.dtype))
    shares = counts / of_tile.shape[3]
    clipped = shares.minimum(clip.view(-1, 1, 1, 1))
    mapping = (clipped + (1 - clipped.sum(dim=3, keepdim=True)) / 256).cumsum(dim=3)

    def near(side: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        place = ((torch.arange(length, device=images.device) + 0.5) / side - 0.5).clamp(0, tiles - 1)
        first = place.floor().long().clamp(max=max(0, tiles - 2))
        return first, (first + 1).clamp(max=tiles - 1), place - first

    (top, bottom, down), (left, right, along) = near(sides[0], height), near(sides[1], width)
    levels, sample = levels[:, :height, :width], torch.arange(n, device=images.device).view(-1, 1, 1)

    def mapped(rows: Tensor, columns: Tensor) -> Tensor:
        return mapping[sample, rows.view(-1, 1), columns.view(1, -1), levels]

    down, along = down.view(-1, 1), along.view(1, -1)
    upper = mapped(top, left).lerp(mapped(top, right), along.expand(height, width))
    lower = mapped(bottom, left).lerp(mapped(bottom, right), along.expand(height, width))
    return upper.lerp(lower, down.expand(height, width))[:, None]


def _for_each(images: Tensor, low: float, high: float) -> Tensor:
    """A random number for each of the images, ``(N, 1, 1, 1)``."""
    return _uniform(len(images), images.device, low, high).view(-1, 1, 1, 1)


def _some(images: Tensor, share: float) -> Tensor:
    """Which of the images are changed, bool ``(N, 1, 1, 1)``."""
    return _for_each(images, 0, 1) < share


GEOMETRY = [move_randomly]  # steps for images and masks, given the axis to mirror along
USUAL = [vary_grays]  # steps for images
WIDE = [equalize_some, vary_grays, vary_window, vary_sharpness]  # for slices unlike the training slices, too
GRAYS = {"usual": USUAL, "wide": WIDE}


def cut_and_mix(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """CutMix: put a rectangle of each slice's neighbour in the batch, image and mask, in its place in the slice.

    images: ``(N, 1, H, W)``. masks: ``(N, H, W)``. A rectangle has up to half of the area.
    """
    n, _, height, width = images.shape
    share = _uniform(n, images.device, 0, 0.5).view(-1, 1, 1)
    ratio = _uniform(n, images.device, -math.log(2), math.log(2)).exp().view(-1, 1, 1)
    tall, wide = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)
    top, left = (torch.rand_like(share) * (1 - side) for side in (tall, wide))
    y = torch.linspace(0, 1, height, device=images.device).view(1, -1, 1)
    x = torch.linspace(0, 1, width, device=images.device).view(1, 1, -1)
    inside = (top <= y) & (y < top + tall) & (left <= x) & (x < left + wide)
    return images.roll(1, 0).where(inside[:, None], images), masks.roll(1, 0).where(inside, masks)


def _uniform(n: int, device: torch.device, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, device=device)
