import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from data.transforms import RandomGamma, RandomNoise, RandomQuarterTurn, augmentation


def pattern():
    """An asymmetric L of ones, as an image and as a mask, inside a border that shifts and turns may use up."""
    mask = torch.zeros(96, 96, dtype=torch.uint8)
    mask[24:72, 30:42] = 1
    mask[60:72, 30:64] = 1
    return tv_tensors.Image(mask[None].float()), tv_tensors.Mask(mask)


def mismatch(image, mask):
    """Pixels where the two disagree, over the pixels of the pattern."""
    return ((image[0] > 0.5) != (mask > 0)).sum().item() / (mask > 0).sum().item()


@pytest.mark.parametrize("transform", [*augmentation().transforms, augmentation()], ids=lambda t: type(t).__name__)
def test_image_and_mask_stay_in_register(transform):
    worst = 0
    for seed in range(30):
        torch.manual_seed(seed)
        image, mask = transform(*pattern())
        assert image.shape == (1, 96, 96) and mask.shape == (96, 96)
        assert image.min() >= 0 and image.max() <= 1 and set(mask.unique().tolist()) <= {0, 1}
        worst = max(worst, mismatch(image, mask))
    assert worst < 0.1  # interpolation, along the outline


def test_the_register_test_sees_a_drift():
    image, mask = pattern()
    turned = RandomQuarterTurn().transform(mask, {"turns": 1})
    assert mismatch(image, turned) > 0.5
    assert mismatch(image, torch.roll(mask, 3, dims=1)) > 0.1


def test_augmentation_moves_and_varies():
    seen = []
    for seed in range(8):
        torch.manual_seed(seed)
        seen.append(augmentation()(*pattern())[1])
    assert all((a != b).any() for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize("transform", [RandomGamma(1.5), RandomNoise(0.1), v2.ColorJitter(0.2, 0.2)])
def test_gray_level_transforms_leave_the_mask_alone(transform):
    image, mask = pattern()
    image = tv_tensors.wrap(0.2 + 0.5 * image, like=image)
    changed, same = transform(image, mask)
    assert torch.equal(mask, same) and not torch.equal(image, changed)
