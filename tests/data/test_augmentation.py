import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist

from data.augmentation import GRAYS, Augmentation, equalize, move, random_positions, vary_grays


def pattern(n):
    """``n`` times an asymmetric L of ones, as image and mask, with a border for shifts and rotations."""
    mask = torch.zeros(n, 96, 96, dtype=torch.long)
    mask[:, 24:72, 30:42] = 1
    mask[:, 60:72, 30:64] = 1
    return mask[:, None].float(), mask


def mismatch(images, masks):
    """Pixels where the two disagree, over the pixels of the pattern; the worst of the batch."""
    differ = ((images[:, 0] > 0.5) != (masks > 0)).flatten(1).sum(dim=1)
    return (differ / (masks > 0).flatten(1).sum(dim=1)).max().item()


def test_image_and_mask_stay_in_register():
    torch.manual_seed(0)
    images, masks = pattern(64)
    moved, moved_masks = Augmentation()(images, masks)
    assert moved.shape == images.shape and moved_masks.shape == masks.shape and moved_masks.dtype == masks.dtype
    assert moved.min() >= 0 and moved.max() <= 1 and set(moved_masks.unique().tolist()) == {0, 1}
    assert mismatch(moved, moved_masks) < 0.15  # interpolation, along the outline
    assert (moved_masks != masks).flatten(1).any(dim=1).all()


def test_the_register_test_sees_a_drift():
    images, masks = pattern(1)
    assert mismatch(images, masks.rot90(1, (-2, -1))) > 0.5
    assert mismatch(images, torch.roll(masks, 3, dims=2)) > 0.15


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [1, -1])
def test_flips_and_rotations_are_exact(turns, flip):
    images, masks = torch.rand(1, 1, 8, 8), torch.randint(256, (1, 8, 8))
    angle = torch.tensor(turns * math.pi / 2)
    cos, sin = angle.cos(), angle.sin()
    moved, moved_masks = move(
        images, masks, torch.stack([flip * cos, -flip * sin, cos * 0, sin, cos, cos * 0]).view(1, 2, 3)
    )
    views = [masks.rot90(quarters, (-2, -1)) for quarters in range(4)]
    views = views if flip == 1 else [view.flip(-1) for view in views]
    place = [torch.equal(moved_masks, view) for view in views]
    assert sum(place) == 1
    same = images.rot90(place.index(True), (-2, -1))
    assert torch.allclose(moved, same if flip == 1 else same.flip(-1), atol=1e-5)


def test_positions_reach_all_orientations_and_keep_the_slice_in_view():
    torch.manual_seed(0)
    linear = random_positions(2000, torch.device("cpu"))[:, :, :2]
    zoom = 1 / linear.det().abs().sqrt()
    assert 0.8 <= zoom.min() < 0.82 and 1.23 < zoom.max() <= 1.25 + 1e-6
    turned = torch.atan2(linear[:, 1, 0], linear[:, 1, 1]).rad2deg() % 360
    mirrored = linear.det() < 0
    orientations = {
        (round(angle / 90) % 4, flip) for angle, flip in zip(turned.tolist(), mirrored.tolist(), strict=True)
    }
    assert len(orientations) == 8
    off_axis = (turned + 45) % 90 - 45
    assert 14 < off_axis.abs().max() <= 15 + 1e-3


def test_pixels_from_outside_are_air_and_ignored_pixels_stay_ignored():
    images, masks = torch.ones(1, 1, 32, 32), torch.full((1, 32, 32), 255)
    shift = torch.tensor([[[1.0, 0, 1], [0, 1, 0]]])  # half of the image
    moved, moved_masks = move(images, masks, shift)
    assert moved[..., :16].min() == 1 and moved[..., 16:].max() == 0
    assert moved_masks[..., :16].unique().tolist() == [255] and moved_masks[..., 16:].max() == 0


def test_gray_levels_vary_from_slice_to_slice_and_stay_in_range():
    torch.manual_seed(0)
    images = torch.linspace(0, 1, 64).repeat(32, 1, 64, 1)
    varied = vary_grays(images)
    assert varied.min() >= 0 and varied.max() <= 1
    means = varied.mean(dim=(1, 2, 3))
    assert len(set(means.tolist())) == 32 and (means - 0.5).abs().max() < 0.2
    assert (varied - images).flatten(1).std(dim=1).min() > 0


@pytest.mark.parametrize("step", GRAYS["wide"])
def test_every_step_changes_some_slices_and_keeps_the_range(step):
    torch.manual_seed(0)
    images = torch.rand(96, 1, 40, 48)
    changed = step(images)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    share = (changed != images).flatten(1).any(dim=1).float().mean()
    assert share == 1 if step is vary_grays else 0.2 < share < 0.7


@pytest.mark.parametrize(("tiles", "clip"), [(4, 0.01), (4, 0.05), (8, 0.02), (2, 0.005)])
def test_equalization_agrees_with_scikit_image(tiles, clip):
    grays = gaussian_filter(np.random.default_rng(0).normal(size=(2, 96, 96)), (0, 4, 4))
    grays = np.round(255 * (grays - grays.min()) / np.ptp(grays)) / 255
    images = torch.from_numpy(grays)[:, None].float()
    ours = equalize(images, tiles=tiles, clip=torch.full((2,), clip))
    for gray, image in zip(grays, ours[:, 0].numpy(), strict=True):
        theirs = equalize_adapthist(gray, kernel_size=96 // tiles, clip_limit=clip)
        inner = (slice(96 // tiles, -(96 // tiles)),) * 2 if tiles > 2 else (slice(None),) * 2  # it pads by reflection
        assert np.corrcoef(image[inner].ravel(), theirs[inner].ravel())[0, 1] > 0.97
        assert np.corrcoef(image.ravel(), theirs.ravel())[0, 1] > np.corrcoef(image.ravel(), gray.ravel())[0, 1] - 0.02
