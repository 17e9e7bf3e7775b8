import math
from types import SimpleNamespace

import pytest
import torch

from data.augmentation import GRAYS, Augmentation, cut_and_mix
from data.labels import IGNORE
from utils.config import TrainingConfig
from utils.training.features import keep_halves
from utils.training.methods import SEMI_SUPERVISED


def bright_is_lesion(images):
    """Logits of a teacher that is surer, the further a pixel is from mid-gray: its probability is the gray level."""
    return torch.cat([1 - images, images], dim=1).log()


def method(name="teacher", *, confidence=0.5, truth_known=False):
    """A method without slices: its batches are given."""
    made = object.__new__(SEMI_SUPERVISED[name])
    made.config, made.augmentation = TrainingConfig(confidence=confidence), Augmentation()
    made.mixture, made.pseudo = SimpleNamespace(labeled_share=0.5), SimpleNamespace(truth_known=truth_known)
    made._counts = []
    return made


def batch(n=8, size=32):
    torch.manual_seed(0)
    return torch.rand(n, 1, size, size).round(decimals=1), torch.randint(2, (n, size, size))


def test_confident_pixels_get_the_teachers_label_and_others_none(monkeypatch):
    monkeypatch.setattr("data.augmentation.random_positions", lambda n, device, mirror: torch.eye(2, 3).repeat(n, 1, 1))
    monkeypatch.setitem(GRAYS, "usual", [])
    monkeypatch.setattr("utils.training.methods.teacher.cut_and_mix", lambda images, masks: (images, masks))
    images, masks = batch()
    labels = method(confidence=0.75)
    new_images, new_masks, labeled, _ = labels.prepare(images, masks, bright_is_lesion)
    assert labeled.flatten().tolist() == [1] * 4 + [0] * 4
    assert torch.allclose(new_images, images) and torch.equal(new_masks[:4], masks[:4])
    gray, label = images[4:, 0], new_masks[4:]
    assert (label[gray > 0.75] == 1).all() and (label[gray < 0.25] == 0).all()
    unsure = (gray > 0.25) & (gray < 0.75)
    assert unsure.any() and (label[unsure] == IGNORE).all()
    assert labels.report() == {"kept_share": pytest.approx((~unsure).float().mean().item())}
    assert labels.report() == {"kept_share": 0}


def test_labels_are_scored_where_the_truth_is_known():
    """The truth is moved with the slice, and every label counts, also of the pixels that are not learned."""
    images, masks = batch(size=48)
    masks[4:] = images[4:, 0] > 0.5
    images = 0.2 + 0.6 * masks[:, None].float()
    labels = method(confidence=0.9, truth_known=True)
    for _ in range(2):
        labels.prepare(images, masks, bright_is_lesion)
    assert labels.report() == {"kept_share": pytest.approx(0, abs=0.5), "label_dice": pytest.approx(0.95, abs=0.05)}
    labels.prepare(images, 1 - masks, bright_is_lesion)
    assert labels.report()["label_dice"] < 0.1
    assert math.isnan(labels.report()["label_dice"])  # there were none


def test_the_teacher_sees_the_slice_in_its_new_place_but_its_old_grays(monkeypatch):
    monkeypatch.setattr(
        "data.augmentation.random_positions", lambda n, device, mirror: -torch.eye(2, 3).repeat(n, 1, 1)
    )
    monkeypatch.setitem(GRAYS, "usual", [lambda images: 1 - images])
    seen = []

    def teacher(images):
        seen.append(images.clone())
        return bright_is_lesion(images)

    images, masks = batch(2)
    new_images, *_ = method().prepare(images, masks, teacher)
    half_turned = images.flip(2, 3)
    assert len(seen) == 1 and torch.allclose(seen[0], half_turned[1:], atol=1e-5)
    assert torch.allclose(new_images, 1 - half_turned, atol=1e-5)


def test_cut_and_mix_moves_image_and_mask_together():
    torch.manual_seed(0)
    masks = torch.arange(200).view(-1, 1, 1).expand(200, 40, 24).clone()
    mixed, mixed_masks = cut_and_mix(masks[:, None].float(), masks)
    assert torch.equal(mixed[:, 0].long(), mixed_masks)
    neighbours = (torch.arange(200) - 1) % 200
    for own, (mask, neighbour) in enumerate(zip(mixed_masks, neighbours, strict=True)):
        assert set(mask.unique().tolist()) <= {own, neighbour.item()}
        pasted = mask == neighbour
        rows, columns = pasted.any(dim=1).sum(), pasted.any(dim=0).sum()
        assert pasted.sum() == rows * columns  # one rectangle
        assert pasted.float().mean() < 0.55
    share = (mixed_masks != masks).float().mean()
    assert 0.22 < share < 0.28  # half of the largest share


@pytest.fixture
def nothing_moves(monkeypatch):
    monkeypatch.setattr("data.augmentation.random_positions", lambda n, device, mirror: torch.eye(2, 3).repeat(n, 1, 1))
    monkeypatch.setitem(GRAYS, "usual", [])


def test_two_views_are_learned_by_one_label(nothing_moves):
    images, masks = batch()
    views, labels, labeled, halves = method("two_views", confidence=0.0).prepare(images, masks, bright_is_lesion)
    assert halves is None
    assert views.shape == (12, 1, 32, 32) and labeled.flatten().tolist() == [1] * 4 + [0] * 8
    assert torch.allclose(views[:4], images[:4]) and torch.equal(labels[:4], masks[:4])
    for index in range(4):  # each view has pieces of another slice; image and label fit
        for view in (views[4 + index], views[8 + index]):
            assert ((view - images[4 + index]).abs() < 1e-5).float().mean() > 0.4
    assert torch.equal(labels[4:], (views[4:, 0] > 0.5).long()) and not torch.equal(views[4:8], views[8:])


def test_unimatch_adds_the_slice_itself_with_half_of_its_features(nothing_moves):
    images, masks = batch()
    views, labels, labeled, halves = method("unimatch", confidence=0.0).prepare(images, masks, bright_is_lesion)
    assert len(views) == 16 and labeled.flatten().tolist() == [1] * 4 + [0] * 12
    assert torch.allclose(views[12:], images[4:]) and torch.equal(labels[12:], (images[4:, 0] > 0.5).long())
    assert halves[:12] == [0] * 12 and len(set(halves[12:])) == 4 and min(halves[12:]) > 0


def test_complementary_views_share_no_feature(nothing_moves):
    images, masks = batch()
    views, _, _, halves = method("complementary", confidence=0.0).prepare(images, masks, bright_is_lesion)
    assert len(views) == len(halves) == 12 and halves[:4] == [0] * 4
    features = [torch.ones(12, 64, 2, 2), torch.ones(12, 128, 1, 1)]
    for level in keep_halves(features, halves):
        assert (level[:4] == 1).all() and set(level[4:].unique().tolist()) == {0, 2}
        assert torch.equal(level[4:8] + level[8:], torch.full_like(level[4:8], 2))
        assert 0.3 < (level[4:8] > 0).float().mean() < 0.7 and not torch.equal(level[4], level[5])


def test_what_may_be_lesion_is_not_taught_as_background(nothing_moves):
    images, masks = batch()
    chance = images[4:, 0]
    label = method("double_threshold").label(images[4:], masks[4:], bright_is_lesion)
    assert (label[chance > 0.55] == 1).all() and (label[chance < 0.05] == 0).all()
    assert (label[(chance > 0.15) & (chance < 0.45)] == IGNORE).all()


def test_soft_labels_are_the_teachers_chances_in_the_mean():
    torch.manual_seed(0)
    chance = torch.rand(1, 1, 16, 16).round(decimals=1)
    labels = method("soft").decide(bright_is_lesion(chance).expand(4000, -1, -1, -1))
    assert labels.dtype == torch.int64 and set(labels.unique().tolist()) == {0, 1}
    assert torch.allclose(labels.float().mean(dim=0), chance[0, 0], atol=0.03)
    surer = chance[0, 0].flatten().argsort()
    assert (labels.flatten(1)[:, surer].diff() >= 0).all()  # each is a mask of the same map


def test_copy_and_paste_goes_both_ways(nothing_moves):
    images, masks = batch()
    masks = (images[:, 0] < 0.5).long()  # the reverse of what the teacher says
    mixed, labels, labeled, _ = method("copy_paste", confidence=0.0).prepare(images, masks, bright_is_lesion)
    assert mixed.shape == images.shape and labeled.shape == images.shape
    inside = labeled[4:, 0] == 1
    assert torch.equal(labeled[:4], 1 - labeled[4:]) and inside.float().mean() == pytest.approx((21 / 32) ** 2)
    assert all(block.any(dim=0).sum() == block.any(dim=1).sum() == 21 for block in inside)  # a square
    of_true, of_teacher = (mixed[:, 0] < 0.5).long(), (mixed[:, 0] > 0.5).long()
    true = labeled[:, 0] == 1
    assert torch.equal(labels[true], of_true[true]) and torch.equal(labels[~true], of_teacher[~true])
    for index in range(4):
        for own, other, mask in ((images[index], images[4 + index], ~inside[index]),):
            assert torch.allclose(mixed[index, 0][mask], own[0][mask], atol=1e-5)
            assert torch.allclose(mixed[index, 0][~mask], other[0][~mask], atol=1e-5)
