import pytest
import torch

from models.inf_net import Maps
from utils.training.losses import ce, ce_dice, structure


def sure(mask, classes=2, margin=40.0):
    """Logits of a network that is certain of ``mask``."""
    return margin * torch.nn.functional.one_hot(mask, classes).movedim(-1, 1).float()


def test_loss_of_a_perfect_prediction_is_zero():
    mask = torch.randint(0, 3, (2, 16, 16))
    assert ce_dice(sure(mask, 3), mask) < 1e-6
    assert ce_dice(sure(torch.zeros_like(mask)), torch.zeros_like(mask)) < 1e-6


def test_loss_of_a_hesitant_prediction():
    mask = torch.zeros(1, 4, 4, dtype=torch.long)
    mask[:, :2] = 1
    # Every probability is 1/2: cross entropy is ln 2, and both Dice are 2 * 4 / (8 + 8).
    assert ce_dice(torch.zeros(1, 2, 4, 4), mask).item() == pytest.approx(0.6931 + 0.5, abs=1e-3)


def test_ignored_pixels_have_no_say():
    mask = torch.randint(0, 2, (2, 8, 8))
    logits = torch.randn(2, 2, 8, 8)
    half, half_logits = mask[..., :4], logits[..., :4]
    mask = mask.clone()
    mask[..., 4:] = 255
    logits.requires_grad_()
    loss = ce_dice(logits, mask)
    loss.backward()
    assert torch.isclose(loss, ce_dice(half_logits, half))
    assert logits.grad[..., 4:].abs().max() == 0
    assert ce_dice(logits, torch.full_like(mask, 255)) == 0


def test_loss_in_half_precision_is_taken_in_single():
    mask = torch.randint(0, 2, (1, 300, 300))
    assert ce_dice(sure(mask).half(), mask) < 1e-6


def test_margin_moves_the_probability_from_which_a_pixel_is_lesion():
    """Fitted to pixels of which one third is lesion, logits say lesion with the margin, and background without."""
    mask = (torch.arange(300) % 3 == 0).long().view(1, 1, 300)

    def fitted(margin):
        logits = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            ce(logits.view(1, 2, 1, 1).expand(1, 2, 1, 300), mask, margin=margin).backward()
            optimizer.step()
        return logits.diff().item()

    odds = torch.tensor(0.5).log().item()
    assert fitted(0.0) == pytest.approx(odds, abs=0.01) and fitted(1.5) == pytest.approx(odds + 1.5, abs=0.01)


def test_margins_of_single_slices():
    logits, mask = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    lowered = logits.clone()
    lowered[1, 1:] -= 2
    margin = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    assert torch.isclose(ce_dice(logits, mask, margin=margin), ce_dice(lowered, mask))


def test_dice_over_slices_counts_each_as_much():
    """A batch of one slice has but one Dice; of several, a lesion of one pixel weighs as much as a large one."""
    logits, mask = torch.randn(3, 2, 8, 8), torch.randint(0, 2, (3, 8, 8))
    alone = [ce_dice(logits[i : i + 1], mask[i : i + 1]) for i in range(3)]
    assert torch.isclose(ce_dice(logits, mask, dice_over="slice"), torch.stack(alone).mean())

    mask = torch.zeros(2, 16, 16, dtype=torch.long)
    mask[0, :8], mask[1, 3, 3] = 1, 1
    missed = mask.clone()
    missed[1] = 0
    logits = sure(missed)
    over_slices = ce_dice(logits, mask, dice_over="slice") - ce_dice(logits, mask)
    assert over_slices.item() == pytest.approx((1 / 2 - 1 / 257) / 2, abs=1e-3)


def test_structure_loss_is_that_of_inf_net():
    mask = torch.zeros(2, 40, 40, dtype=torch.long)
    mask[:, 10:30, 10:20] = 1
    right = torch.where(mask[:, None] == 1, 30.0, -30.0)
    outline = (
        torch.nn.functional.max_pool2d(mask[:, None].float(), 3, 1, 1)
        - 1
        + torch.nn.functional.max_pool2d(1 - mask[:, None].float(), 3, 1, 1)
    )
    edge = torch.where(outline > 0, 30.0, -30.0)
    assert structure(Maps((right,) * 4, edge), mask) < 1e-5
    assert structure(sure(mask), mask) < 1e-5  # logits count as one map
    wrong = structure(Maps((right, right, right, -right), edge), mask).item()
    assert structure(Maps((-right,) * 4, edge), mask).item() == pytest.approx(4 * wrong, rel=1e-4)
    assert structure(Maps((right,) * 4, -edge), mask) > 1
    ignored = mask.clone()
    ignored[:, :, 30:] = 255
    noise = torch.zeros_like(right)
    noise[..., 30:] = 60
    assert structure(Maps((right + noise,), edge), ignored).item() == pytest.approx(0, abs=0.05)
    assert structure(Maps((right,) * 4, edge), torch.full_like(mask, 255)).item() == pytest.approx(0, abs=1e-4)


def test_structure_loss_weighs_outlines_more():
    mask = torch.zeros(1, 64, 64, dtype=torch.long)
    mask[:, 24:40, 24:40] = 1
    logits = torch.where(mask[:, None] == 1, 4.0, -4.0)
    near, far = logits.clone(), logits.clone()
    near[..., 41:43, 30:34] = 4.0
    far[..., 2:4, 2:6] = 4.0
    loss = [structure(Maps((each,), logits), mask).item() for each in (near, far)]
    assert loss[0] > loss[1]
