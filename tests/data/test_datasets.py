import re

import numpy as np
import pytest
import torch
from PIL import Image

from data.datasets import LesionSlices, UnlabeledSlices
from data.errors import InputError
from data.folders import list_slices, pair_by_stem, split_pairs
from data.io.images import read_image, read_mask
from data.labels import IGNORED_GRAY
from data.preprocess.framing import WHOLE
from data.preprocess.preprocessing import Preprocessing
from data.sampling import HalfAndHalf

TRUTH = np.zeros((6, 9), np.uint8)
TRUTH[1:3, 2:7] = 1


def palette(colours):
    image = Image.fromarray(TRUTH, "P")
    image.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return image


def rgb(colour):
    return Image.fromarray(np.array(colour, np.uint8) * TRUTH[..., None])


def drawn_in_alpha(gray=200):
    return Image.fromarray(np.dstack([np.full((*TRUTH.shape, 3), gray, np.uint8), 255 * TRUTH]))


MASKS = {
    "0/1": Image.fromarray(TRUTH),
    "0/255": Image.fromarray(255 * TRUTH),
    "1 bit": Image.fromarray(255 * TRUTH).convert("1"),
    "16 bits": Image.fromarray(TRUTH.astype(np.uint16)),
    "palette, black and red": palette([[0, 0, 0], [128, 0, 0]]),
    "palette, indices as gray": palette([[0, 0, 0], [1, 1, 1]]),
    "RGB white": rgb([255, 255, 255]),
    "RGB green": rgb([0, 255, 0]),
    "RGBA": rgb([255, 0, 0]).convert("RGBA"),
    "RGBA, in alpha alone": drawn_in_alpha(),
    "RGBA, black on transparent": drawn_in_alpha(gray=0),
}


@pytest.mark.parametrize("stored", MASKS)
def test_masks_are_read_rightly_however_stored(tmp_path, stored):
    MASKS[stored].save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), TRUTH)


def test_palette_whose_first_colour_is_the_lesion(tmp_path):
    palette([[255, 255, 255], [0, 0, 0]]).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), 1 - TRUTH)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_masks_of_one_value(tmp_path, value):
    Image.fromarray(np.full_like(TRUTH, value)).save(tmp_path / "mask.png")
    assert (np.array(read_mask(tmp_path / "mask.png")) == (value > 0)).all()


def test_ignored_pixels_are_for_pseudo_masks_alone(tmp_path):
    stored = 255 * TRUTH
    stored[0] = IGNORED_GRAY
    Image.fromarray(stored).save(tmp_path / "mask.png")
    expected = TRUTH.copy()
    expected[0] = 255
    assert np.array_equal(read_mask(tmp_path / "mask.png", pseudo=True), expected)
    with pytest.raises(InputError, match=r"mask\.png: not a mask of two classes \(3 values\)"):
        read_mask(tmp_path / "mask.png")


def test_images_are_read_rightly_however_stored(tmp_path):
    gray = np.arange(54, dtype=np.uint8).reshape(6, 9) * 4
    stored = {
        "gray.png": Image.fromarray(gray),
        "rgb.png": Image.fromarray(gray).convert("RGB"),
        "rgba.png": Image.fromarray(gray).convert("RGBA"),
        "palette.png": Image.fromarray(gray).convert("P"),
        "16.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "16.tif": Image.fromarray(gray.astype(np.uint16) * 257),
        "32.tif": Image.fromarray(gray.astype(np.int32) * 257),
    }
    for name, image in stored.items():
        image.save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name), gray), name


@pytest.mark.parametrize("values", [np.full((4, 4), -600, np.int32), np.full((4, 4), 300.5, np.float32)])
def test_images_of_unknown_range_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "hu.tif")
    with pytest.raises(InputError, match=r"hu\.tif: not gray levels .*Hounsfield units, .*--hu_offset"):
        read_image(tmp_path / "hu.tif")


@pytest.fixture
def folders(tmp_path):
    """Images 2.jpg and 10.jpg with masks 2.png and 10.png."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for stem, gray in (("2", 50), ("10", 200)):
        Image.fromarray(np.full((6, 9), gray, np.uint8)).save(images / f"{stem}.jpg")
        Image.fromarray(255 * TRUTH).save(masks / f"{stem}.png")
    return images, masks


def test_pairs_match_by_stem_in_natural_order(folders):
    assert [(i.name, m.name) for i, m in pair_by_stem(*folders)] == [("2.jpg", "2.png"), ("10.jpg", "10.png")]


def test_every_offender_is_named(folders):
    images, masks = folders
    (masks / "2.png").rename(masks / "x2.png")
    with pytest.raises(InputError, match=r"no mask .* for 2\.jpg of .*; no image .* for x2\.png of "):
        pair_by_stem(images, masks)
    (masks / "10.png").rename(masks / "y.png")
    with pytest.raises(InputError, match=r"no file of .*images, such as 2\.jpg, has a partner in .*masks"):
        pair_by_stem(images, masks)


def test_files_with_the_same_problem_are_reported_together(tmp_path):
    for stem in range(4):
        Image.fromarray(TRUTH).save(tmp_path / f"{stem}.png")
    for stem in (1, 2):
        (tmp_path / f"{stem}.png").write_text("not an image")
    with pytest.raises(InputError) as caught:
        UnlabeledSlices(list_slices(tmp_path), Preprocessing(image_size=16))
    assert re.search(r": not a readable image: 1\.png \(.*\), 2\.png \(.*\); export", str(caught.value))
    for stem in (0, 3):
        (tmp_path / f"{stem}.png").write_text("not an image")
    with pytest.raises(InputError, match=r"not a readable image: all 4 files, as 0\.png .*; export or copy it again$"):
        UnlabeledSlices(list_slices(tmp_path), Preprocessing(image_size=16))


def test_images_and_jpegs_given_as_masks(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 9), np.uint8)
    for name, advice in (("mask.png", "folders swapped"), ("mask.jpg", "JPEG blurs")):
        Image.fromarray(noise).save(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: not a mask of two classes .*{advice}"):
            read_mask(tmp_path / name)


def test_files_of_several_pages_are_refused(tmp_path):
    page = Image.fromarray(TRUTH)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match=r"pages\.tif: not a single slice \(2 pages\)"):
        read_image(tmp_path / "pages.tif")


def test_odd_digits_are_letters(tmp_path):
    for stem in ("1²", "10", "9"):
        Image.fromarray(TRUTH).save(tmp_path / f"{stem}.png")
    assert [file.stem for file in list_slices(tmp_path)] == ["1²", "9", "10"]


def test_doubled_stems_are_refused(folders):
    (folders[1] / "2.bmp").write_bytes(b"")
    with pytest.raises(InputError, match=r"two files with the same stem: 2\.bmp and 2\.png"):
        pair_by_stem(*folders)


def test_every_unreadable_file_is_named(folders):
    (folders[0] / "2.jpg").write_text("not an image")
    whole = (folders[1] / "10.png").read_bytes()
    (folders[1] / "10.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"images: not a readable image: 2\.jpg .*masks: .*: 10\.png "):
        LesionSlices(pair_by_stem(*folders), Preprocessing(image_size=16))


def test_size_of_mask_and_image_must_agree(folders):
    Image.fromarray(TRUTH[:-1]).save(folders[1] / "10.png")
    with pytest.raises(InputError, match=r"10\.png: differs in size from its image .*9x5, the image 9x6"):
        LesionSlices(pair_by_stem(*folders), Preprocessing(image_size=16))


@pytest.mark.parametrize("cache_gb", [0, 4])
def test_items(folders, cache_gb):
    slices = LesionSlices(pair_by_stem(*folders), Preprocessing(image_size=12), cache_gb=cache_gb)
    image, mask = slices[1]
    assert image.shape == (1, 12, 12) and image.dtype == torch.float32
    assert mask.shape == (12, 12) and mask.dtype == torch.int64
    assert image.mean().item() == pytest.approx(200 / 255, abs=0.01)
    expected = Image.fromarray(TRUTH).resize((12, 12), Image.Resampling.NEAREST)
    assert np.array_equal(mask, expected)
    assert slices.lesion_share() == pytest.approx(np.mean(expected))

    unlabeled = UnlabeledSlices(list_slices(folders[0]), Preprocessing(image_size=12), cache_gb=cache_gb)
    assert torch.equal(unlabeled[1], image)
    assert unlabeled.placements[1][1:] == (6, 9, WHOLE.with_note("9x6 pixels are few; give it at its original size"))


def test_cached_slices_are_decoded_once(folders):
    cached = LesionSlices(pair_by_stem(*folders), Preprocessing(image_size=12))
    uncached = LesionSlices(pair_by_stem(*folders), Preprocessing(image_size=12), cache_gb=0)
    for file in folders[0].iterdir():
        file.unlink()
    cached[0]
    with pytest.raises(InputError):
        uncached[0]


def test_split_keeps_order_and_depends_on_the_seed():
    pairs = list(range(50))
    train, val = split_pairs(pairs, 0.2, seed=0)
    assert len(val) == 10 and sorted(train + val) == pairs and train == sorted(train) and val == sorted(val)
    assert split_pairs(pairs, 0.2, seed=0)[1] == val != split_pairs(pairs, 0.2, seed=1)[1]
    assert len(split_pairs(pairs, 0.001, seed=0)[1]) == 1
    assert split_pairs(pairs, 0, seed=0) == (pairs, [])


@pytest.mark.parametrize(("labeled", "pseudo"), [(10, 7), (10, 100), (5, 2)])
def test_batches_are_half_labeled_half_pseudo_labeled(labeled, pseudo):
    sampler = HalfAndHalf(labeled, torch.ones(pseudo), batchsize=4, mixed_epochs=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == labeled // 2
    for batch in batches:
        assert all(i < labeled for i in batch[:2]) and all(labeled <= i < labeled + pseudo for i in batch[2:])
    seen = [i for batch in batches for i in batch[:2]]
    assert len(set(seen)) == len(seen) == labeled // 2 * 2


def test_pseudo_labeled_slices_are_drawn_by_their_weights():
    torch.manual_seed(0)
    sampler = HalfAndHalf(4000, torch.tensor([1.0, 0.0, 3.0]), batchsize=4, mixed_epochs=1)
    drawn = torch.tensor([i - 4000 for batch in sampler for i in batch[2:]])
    assert len(drawn) == 4000 and (drawn == 1).sum() == 0
    assert (drawn == 2).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_after_the_mixed_epochs_every_slice_is_labeled():
    sampler = HalfAndHalf(10, torch.ones(100), batchsize=4, mixed_epochs=2)
    for epoch, labeled in enumerate((10, 10, 20, 20), start=1):
        sampler.epoch = epoch
        drawn = [i for batch in sampler for i in batch]
        assert len(drawn) == 20 and sum(i < 10 for i in drawn) == labeled
    assert all(drawn.count(i) == 2 for i in range(10))


def test_masks_are_resized_without_new_values(tmp_path):
    stored = np.random.default_rng(0).choice([0, IGNORED_GRAY, 255], (61, 47)).astype(np.uint8)
    for name in ("image", "mask"):
        Image.fromarray(stored).save(tmp_path / f"{name}.png")
    _, mask = LesionSlices(
        [(tmp_path / "image.png", tmp_path / "mask.png")], Preprocessing(image_size=32), pseudo=True
    )[0]
    expected = read_mask(tmp_path / "mask.png", pseudo=True).resize((32, 32), Image.Resampling.NEAREST)
    assert set(mask.unique().tolist()) == {0, 1, 255}
    assert np.array_equal(mask, expected)


def test_pseudo_labeled_slices_alone_come_first():
    sampler = HalfAndHalf(10, torch.ones(100), batchsize=4, mixed_epochs=2, mixed_share=0.0)
    for epoch, share in ((1, 0.0), (2, 0.0), (3, 1.0)):
        sampler.epoch = epoch
        drawn = [index for batch in sampler for index in batch]
        assert sampler.labeled_share == share and len(drawn) == 20
        assert all((index < 10) == (share == 1) for index in drawn)
    with pytest.raises(ValueError, match="mixed_share"):
        HalfAndHalf(10, torch.ones(100), batchsize=4, mixed_epochs=2, mixed_share=0.3)
