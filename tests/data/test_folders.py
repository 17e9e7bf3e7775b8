"""Names of images and masks: what makes a pair, and what is offered if nothing does."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from data.folders import list_slices, pair_by_stem


def folder(path, *names):
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path / name)
    return path


def names(pairs):
    return [(image.name, mask.name) for image, mask in pairs]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["img_001.png", "img_002.png"], ["mask_001.png", "mask_002.png"]),
        (["001.png", "002.png"], ["001_seg.png", "002_seg.png"]),
        (["covid19_001.png", "covid19_012.png"], ["covid19_mask_001.png", "covid19_mask_012.png"]),
        (["a-1-ct.png", "b-1-ct.png"], ["a-1-gt.png", "b-1-gt.png"]),
    ],
)
def test_one_prefix_or_suffix_of_all(tmp_path, capsys, images, masks):
    first, second = folder(tmp_path / "i", *images), folder(tmp_path / "m", *masks)
    assert names(pair_by_stem(first, second)) == list(zip(images, masks, strict=True))
    assert f"such as {images[0]} with {masks[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png", "b.png"], ["c.png", "d.png"]),
        (["1.png"], ["2.png"]),
        (["img_1.png", "img_2.png"], ["mask_1.png"]),
    ],
)
def test_names_without_partners_show_one_of_each_folder(tmp_path, images, masks):
    first, second = folder(tmp_path / "i", *images), folder(tmp_path / "m", *masks)
    with pytest.raises(InputError, match=rf"such as {images[0]}, has a partner in .*, such as {masks[0]}; give image"):
        pair_by_stem(first, second)


def test_missing_partners_are_named_whatever_the_prefix(tmp_path):
    first = folder(tmp_path / "i", "img_001.png", "img_002.png")
    with pytest.raises(InputError, match=r"no mask in .* for img_002\.png of .*; no image in .* for mask_003\.png of"):
        pair_by_stem(first, folder(tmp_path / "m", "mask_001.png", "mask_003.png"))


def test_masks_beside_their_images(tmp_path, capsys):
    both = folder(tmp_path / "both", "001.png", "001_mask.png", "002.png", "002_mask.png")
    expected = [("001.png", "001_mask.png"), ("002.png", "002_mask.png")]
    assert names(pair_by_stem(both, both)) == expected and "2 in" in capsys.readouterr().out
    before = folder(tmp_path / "before", "mask_1.png", "1.png")
    assert names(pair_by_stem(before, before)) == [("1.png", "mask_1.png")]
    folder(both, "003.png")
    with pytest.raises(InputError, match=r"is given for images and masks, .* 3_mask\.png"):
        pair_by_stem(both, both)


def test_two_files(tmp_path):
    image, mask = folder(tmp_path / "i", "ct.png") / "ct.png", folder(tmp_path / "m", "lesion.png") / "lesion.png"
    assert pair_by_stem(image, mask) == [(image, mask)] and list_slices(image) == [image]


def test_hidden_files_and_accents(tmp_path):
    first, second = folder(tmp_path / "i", "a.png"), folder(tmp_path / "m", "a.png")
    for form, place in (("NFC", first), ("NFD", second)):
        shutil.copy(first / "a.png", place / unicodedata.normalize(form, "slé.png"))
        (place / "._a.png").write_bytes(bytes(100))
        (place / ".DS_Store").write_bytes(bytes(100))
    assert len(pair_by_stem(first, second)) == 2


def test_images_in_sub_folders_are_pointed_to(tmp_path):
    folder(tmp_path / "i" / "patient_1", "1.png")
    with pytest.raises(InputError, match=r"sub-folders have some, such as patient_1: .* data\.prepare slices"):
        list_slices(tmp_path / "i")
