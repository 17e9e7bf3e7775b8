import pytest
import torch

from utils.losses import segmentation_loss


def sure(mask, classes=2, margin=40.0):
    """Logits of a network that is certain of ``mask``."""
    return margin * torch.nn.functional.one_hot(mask, classes).movedim(-1, 1).float()


def test_loss_of_a_perfect_prediction_is_zero():
    mask = torch.randint(0, 3, (2, 16, 16))
    assert segmentation_loss(sure(mask, 3), mask) < 1e-6
    assert segmentation_loss(sure(torch.zeros_like(mask)), torch.zeros_like(mask)) < 1e-6


def test_loss_of_a_hesitant_prediction():
    mask = torch.zeros(1, 4, 4, dtype=torch.long)
    mask[:, :2] = 1
    # Every probability is 1/2: cross entropy is ln 2, and both Dice are 2 * 4 / (8 + 8).
    assert segmentation_loss(torch.zeros(1, 2, 4, 4), mask).item() == pytest.approx(0.6931 + 0.5, abs=1e-3)


def test_ignored_pixels_have_no_say():
    mask = torch.randint(0, 2, (2, 8, 8))
    logits = torch.randn(2, 2, 8, 8)
    half, half_logits = mask[..., :4], logits[..., :4]
    mask = mask.clone()
    mask[..., 4:] = 255
    logits.requires_grad_()
    loss = segmentation_loss(logits, mask)
    loss.backward()
    assert torch.isclose(loss, segmentation_loss(half_logits, half))
    assert logits.grad[..., 4:].abs().max() == 0
    assert segmentation_loss(logits, torch.full_like(mask, 255)) == 0


def test_loss_in_half_precision_is_taken_in_single():
    mask = torch.randint(0, 2, (1, 300, 300))
    assert segmentation_loss(sure(mask).half(), mask) < 1e-6
