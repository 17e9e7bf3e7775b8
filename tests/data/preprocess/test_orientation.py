from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import SHARED
from PIL import Image

from data.augmentation import Augmentation, random_positions
from data.datasets import LesionSlices, ScanSlices, UnlabeledSlices
from data.folders import list_slices, pair_by_stem
from data.phantom.slices import draw_slice
from data.preprocess.orientation import mirror_axis, portrait, thumbnail, turns_towards, typical_slice
from data.preprocess.preprocessing import Placement, Preprocessing
from data.preprocess.window import LUNG
from utils.checkpoint import read_checkpoint
from utils.inference.maps import predict

PLAIN = Preprocessing(image_size=64)


@pytest.fixture(scope="module")
def chests():
    return [LUNG.to_gray(draw_slice(np.random.default_rng(seed), 64)[0]) for seed in range(24)]


@pytest.fixture(scope="module")
def typical(chests):
    return typical_slice(map(thumbnail, chests[:12]))


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("lying", [0, 1])
def test_slices_are_rotated_back_and_mirror_images_match(chests, turns, lying):
    typical = typical_slice([thumbnail(np.rot90(chest, lying)) for chest in chests[:12]])
    found = []
    for chest in chests[12:]:
        for side in (chest, chest[:, ::-1]):
            turned = np.ascontiguousarray(np.rot90(side, lying - turns))
            found.append(turns_towards(typical, portrait(turned)))
    # At the apex and the base there is no heart: front and back are much alike, and in doubt a slice stays.
    assert found.count(turns) == 24 if turns != 2 else 16 <= found.count(2) == 24 - found.count(0)


def test_the_lungs_are_side_by_side_or_one_above_the_other(chests, typical):
    assert mirror_axis(typical) == -1
    for count in (1, 8, 24):
        assert mirror_axis(typical_slice(map(thumbnail, chests[-count:]))) == -1
        assert mirror_axis(typical_slice([thumbnail(np.rot90(chest)) for chest in chests[-count:]])) == -2


def test_a_slice_of_one_gray_stays(typical):
    assert turns_towards(typical, portrait(np.full((40, 30), 7, np.uint8))) == 0


TURNS = [0, 3, 0, 1]  # after which a slice lies as before; half a turn is left alone in doubt


@pytest.mark.parametrize("cache_gb", [1, 0])
def test_data_sets_rotate_images_and_masks_together(phantom, tmp_path, cache_gb):
    pairs = pair_by_stem(phantom / "Train-Image", phantom / "Train-Mask")
    as_stored = LesionSlices(pairs, PLAIN)
    fitted = PLAIN.fit(Image.open(image) for image, _ in pairs)
    assert fitted == PLAIN.learn(as_stored.portraits)
    for number, pair in enumerate(pairs):
        for path, kind in zip(pair, ("image", "mask"), strict=True):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(np.rot90(Image.open(path), -TURNS[number % 4])).save(tmp_path / kind / path.name)
    turned_pairs = pair_by_stem(tmp_path / "image", tmp_path / "mask")
    turned = LesionSlices(turned_pairs, fitted, cache_gb=cache_gb)
    turned_later = LesionSlices(turned_pairs, PLAIN, cache_gb=cache_gb)
    for _ in range(2):  # the second time changes nothing
        turned_later.reorient(fitted)
    for slices in (turned, turned_later):
        assert [where.turns for where in slices.placements] == [TURNS[number % 4] for number in range(len(pairs))]
        for (image, mask), (own_image, own_mask) in zip(as_stored, slices, strict=True):
            assert (image - own_image).abs().max() < 0.01 and torch.equal(mask, own_mask)


def bright_is_lesion(images):
    return torch.cat([-images, images], dim=1) * 20 - 10


@pytest.mark.parametrize("tta", [False, True])
def test_maps_are_rotated_back(chests, typical, tmp_path, tta):
    model = torch.nn.Identity()
    model.forward = bright_is_lesion
    stored = np.ascontiguousarray(np.rot90(chests[20], 3)[:48])  # lungs cut off at a side, not square
    Image.fromarray(stored).save(tmp_path / "slice.png")
    slices = UnlabeledSlices([tmp_path / "slice.png"], replace(PLAIN, typical_slice=typical))
    assert slices.placements == [Placement(1, 48, 64)]
    [(found, _)] = predict(model, slices, device=torch.device("cpu"), tta=tta)
    plain = UnlabeledSlices([tmp_path / "slice.png"], PLAIN)
    [(wanted, _)] = predict(model, plain, device=torch.device("cpu"))
    assert found.shape == (2, 48, 64) and torch.allclose(found, wanted, atol=1e-5)


def test_mirror_images_are_averaged(typical, chests, tmp_path):
    seen = []

    def forward(images):
        seen.append(images)
        return torch.cat([1 - images, images], dim=1) * 4

    model = torch.nn.Identity()
    model.forward = forward
    Image.fromarray(chests[0]).save(tmp_path / "slice.png")
    slices = UnlabeledSlices([tmp_path / "slice.png"], replace(PLAIN, typical_slice=typical))
    [(found, agreement)] = predict(model, slices, device=torch.device("cpu"), tta=True)
    assert agreement.dice == 1 and len(agreement.areas) == 2
    assert len(seen) == 2 and torch.equal(seen[0], seen[1].flip(-1))
    [(plain, agreement)] = predict(model, slices, device=torch.device("cpu"))
    assert torch.allclose(found, plain, atol=1e-6)  # pixel by pixel, hence the same in both, and back in place
    assert len(agreement.areas) == 1


@pytest.mark.parametrize("turns", range(4))
def test_scans_are_rotated_by_their_geometry(chests, turns):
    """Whatever they show: they are upright."""
    learned = replace(PLAIN, typical_slice=typical_slice([thumbnail(np.rot90(chest, turns)) for chest in chests]))
    hu = np.stack([draw_slice(np.random.default_rng(seed), 64)[0] for seed in range(9)])
    scan, plain = ScanSlices(hu, learned, window=LUNG), ScanSlices(hu, PLAIN, window=LUNG)
    assert {where.turns for where in scan.placements} == {turns}
    assert torch.equal(scan[3], plain[3].rot90(turns, (1, 2)))
    assert ScanSlices(hu, replace(learned, align_turns=False), window=LUNG).placements[3].turns == 0


@pytest.mark.parametrize("mirror", [-1, -2])
def test_only_mirror_images_for_slices_of_one_orientation(mirror):
    torch.manual_seed(0)
    linear = random_positions(500, torch.device("cpu"), mirror=mirror)[:, :, :2]
    signs = {(x > 0, y > 0) for x, y in zip(linear[:, 0, 0].tolist(), linear[:, 1, 1].tolist(), strict=True)}
    assert signs == {(True, True), (mirror == -2, mirror == -1)}
    assert linear[:, 0, 1].abs().max() < 0.4  # sin(15 degrees) at the smallest zoom

    images = torch.linspace(0, 1, 64).expand(40, 1, 64, 64)
    images = images if mirror == -1 else images.mT
    moved, _ = Augmentation(mirror=mirror)(images, torch.zeros(40, 64, 64, dtype=torch.long))
    ends = moved[:, 0, 32, 20] < moved[:, 0, 32, 44] if mirror == -1 else moved[:, 0, 20, 32] < moved[:, 0, 44, 32]
    assert 8 < ends.sum() < 32


SMALL = ("--base_channels", 4, "--image_size", 48, "--epoch", 3)


def test_a_network_finds_the_same_in_rotated_slices(phantom, tmp_path, call):
    """From training to the mask: slices of another orientation are rotated, and their masks are rotated back."""
    assert call("supervised_train", "--data_root", phantom, *SMALL, "--save_folder", tmp_path / "run")[0] == 0
    best = tmp_path / "run" / "best.pth"
    assert Preprocessing(**read_checkpoint(best)["preprocessing"]).mirror_axis == -1
    (tmp_path / "images").mkdir()
    for file in list_slices(phantom / "Train-Image"):
        Image.fromarray(np.rot90(Image.open(file))).save(tmp_path / "images" / file.name)
    out = {}
    for name, folder in (("plain", phantom / "Train-Image"), ("turned", tmp_path / "images")):
        options = ["--test_img_path", folder, "--img_save_folder", tmp_path / name, "--save_prob"]
        code, out[name], _ = call("test", "--pretrained_model", best, *options)
        assert code == 0
    assert "10 of them rotated" in out["turned"] and "them rotated" not in out["plain"]
    for file in list_slices(tmp_path / "plain" / "prob"):
        plain, turned = (np.asarray(Image.open(tmp_path / name / "prob" / file.name), int) for name in out)
        assert np.abs(np.rot90(plain) - turned).max() <= 2 and (plain != np.rot90(plain)).mean() > 0.5


def test_rotation_can_be_switched_off(phantom, tmp_path, call):
    run = ["--data_root", phantom, *SMALL, "--epoch", 1, "--no-align_turns", "--save_folder", tmp_path / "run"]
    assert call("supervised_train", *run)[0] == 0
    checkpoint = read_checkpoint(tmp_path / "run" / "last.pth")
    assert checkpoint["preprocessing"]["typical_slice"] is None
    start = ["--pretrained_model", tmp_path / "run" / "best.pth", "--epoch", 1, "--save_folder"]
    for flags, aligned in (([], False), (["--align_turns"], True)):
        assert call("supervised_train", "--data_root", phantom, *start, tmp_path / f"{aligned}", *flags)[0] == 0
        typical = read_checkpoint(tmp_path / f"{aligned}" / "last.pth")["preprocessing"]["typical_slice"]
        assert (typical is not None) == aligned


def test_labeled_slices_are_rotated_alike_in_new_and_resumed_runs(phantom, tmp_path, call):
    for kind in ("Image", "Mask"):
        (tmp_path / kind).mkdir()
        for number, file in enumerate(list_slices(phantom / f"Train-{kind}")):
            Image.fromarray(np.rot90(Image.open(file), number == 3)).save(tmp_path / kind / file.name)
    data = ["--train_img_path", tmp_path / "Image", "--train_msk_path", tmp_path / "Mask"]
    new = [*data, *SMALL, "--epoch", 1, "--save_folder", tmp_path / "run"]
    for flags in (new, ["--resume", tmp_path / "run" / "last.pth", "--epoch", 2]):
        code, report, _ = call("supervised_train", *flags)
        assert code == 0 and "1 of them rotated" in report


@pytest.mark.parametrize(("flag", "mirror"), [("--align_turns", -1), ("--no-align_turns", None)])
def test_both_trainers_mirror_along_the_right_axis(phantom, tmp_path, call, monkeypatch, flag, mirror):
    used = []

    def spy(n, device, *, mirror):
        used.append(mirror)
        return random_positions(n, device, mirror=mirror)

    monkeypatch.setattr("data.augmentation.random_positions", spy)
    data = ["--data_root", phantom, "--semi_img_path", phantom / "Test-Image", "--semi_msk_path", phantom / "Test-Mask"]
    small = ["--base_channels", 2, "--image_size", 32, "--epoch", 1, "--save_folder"]
    assert call("supervised_train", *data[:2], flag, *small, tmp_path / "supervised")[0] == 0
    assert set(used) == {mirror}
    used.clear()
    start = ["--pretrained_model", tmp_path / "supervised" / "best.pth", "--labeled_finish", 0]
    assert call("semi_supervised_train", *data, *start, *small, tmp_path / "semi")[0] == 0
    assert set(used) == {mirror}


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_real_slices_of_the_other_orientation(every):
    """COVID-SemiSeg: the spine is on the left in the unlabeled slices of coronacases, else on the right."""
    root = SHARED / "datasets" / "COVID-SemiSeg"
    if not root.is_dir():
        pytest.skip("the real slices in ../shared/datasets are not part of the repository")
    lung = root / "TrainingSet" / "LungInfection-Train"
    folders = (lung / "Doctor-label" / "Imgs", lung / "Pseudo-label" / "Imgs", root / "TestingSet")
    labeled, unlabeled = (list_slices(folder) for folder in folders[:2])
    unlabeled = unlabeled[::every]
    test = list_slices(folders[2] / "LungInfection-Test" / "Imgs")
    plain = Preprocessing(image_size=96, align_grays=True)
    slices = UnlabeledSlices(labeled, plain)
    fitted = plain.learn(slices.portraits)
    assert fitted.mirror_axis == -2 and fitted.upright_turns == 1 and fitted.align_frame
    turned = {}
    for file, placement in zip(unlabeled, UnlabeledSlices(unlabeled, fitted).placements, strict=True):
        turned.setdefault("corona" in file.name, []).append(placement.turns)
    assert np.mean(np.array(turned[True]) == 2) > 0.95 and np.mean(np.array(turned[False]) == 0) > 0.97
    assert not any(placement.turns for placement in UnlabeledSlices(test + labeled, fitted).placements)
    assert all(
        placement.frame.box is None for placement in UnlabeledSlices(test + labeled + unlabeled, fitted).placements
    )
