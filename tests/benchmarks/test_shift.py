"""Stand-ins for scans: masks follow their slices, and a network is scored on each kind."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.shift.field import SIDE, widen
from benchmarks.shift.grays import SHIFTS, shifted
from benchmarks.shift.scans import DEPTH, THICK, scan_with_lesions
from data.folders import list_slices
from data.preprocess.lungs import box, find_body, find_lungs
from data.preprocess.preprocessing import Preprocessing
from data.preprocess.window import LUNG
from models import build_model
from utils.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """Labeled phantom slices that are cropped to the lungs, with a bright square for a lesion."""
    from data.phantom.slices import draw_slice

    root = tmp_path_factory.mktemp("labeled")
    for kind in ("Train-Image", "Train-Mask"):
        (root / kind).mkdir()
    for seed in range(4):
        hu, _ = draw_slice(np.random.default_rng(seed), 128)
        rows, columns = box(find_lungs(hu[None], find_body(hu[None])), margin=1)
        gray = LUNG.to_gray(hu[rows, columns]).clip(0, 240)
        mask = np.zeros(gray.shape, bool)
        mask[gray.shape[0] // 2 :][:14, 8:22] = True
        Image.fromarray(np.where(mask, 255, gray).astype(np.uint8)).save(root / "Train-Image" / f"{seed}.png")
        Image.fromarray(mask).save(root / "Train-Mask" / f"{seed}.png")
    return root


def slices(root):
    folders = (list_slices(root / kind) for kind in ("Train-Image", "Train-Mask"))
    return [(np.asarray(Image.open(i)), np.asarray(Image.open(m)) > 0) for i, m in zip(*folders, strict=True)]


def test_a_mask_follows_its_slice_into_the_field(labeled):
    for seed, (gray, mask) in enumerate(slices(labeled) * 3):
        field = widen(gray, mask, np.random.default_rng(seed), upright=0)
        assert field.image.shape == (SIDE, SIDE) and field.image.dtype == np.uint8
        assert field.mask.any() and field.inside[field.mask].all()
        assert np.median(field.image[field.mask]) > 240 and (field.image[~field.mask] > 240).mean() < 0.1
        assert mask.mean() * field.inside.sum() == pytest.approx(field.mask.sum(), rel=0.15)
        sides = [np.ptp(np.flatnonzero(field.inside.any(axis=axis))) / SIDE for axis in (0, 1)]
        assert 0.35 < max(sides) < 0.9
        again = widen(gray, mask, np.random.default_rng(seed), upright=0)
        assert all(np.array_equal(a, b) for a, b in zip(field, again, strict=True))


@pytest.mark.parametrize("name", SHIFTS)
def test_gray_levels_change_and_anatomy_does_not(labeled, name):
    gray = np.asarray(Image.fromarray(slices(labeled)[0][0]).resize((300, 300)))
    changed = shifted(name, gray, np.random.default_rng(1))
    assert changed.dtype == np.uint8 and changed.shape == gray.shape and not np.array_equal(changed, gray)
    assert np.corrcoef(gray.ravel(), changed.ravel())[0, 1] > 0.8


def test_lesions_are_pasted_into_the_lungs_of_a_scan(labeled):
    lesions = slices(labeled)
    hu, truth = scan_with_lesions(lesions, np.random.default_rng(0), upright=0)
    plain, _ = scan_with_lesions(
        [(gray, np.zeros_like(mask)) for gray, mask in lesions], np.random.default_rng(0), upright=0
    )
    assert hu.shape == truth.shape and len(hu) == DEPTH
    assert truth.any(axis=(1, 2)).sum() == THICK * len(lesions)
    assert np.array_equal(hu[~truth], plain[~truth]) and np.median(hu[truth]) > np.median(plain[truth]) + 300
    assert find_lungs(plain, find_body(plain))[truth].all()


def test_a_network_is_scored_on_every_kind(labeled, tmp_path, call):
    torch.manual_seed(0)
    model = build_model("cares_unet", base_channels=2)
    learned = Preprocessing(image_size=32).fit([Image.fromarray(gray) for gray, _ in slices(labeled)])
    assert learned.align_frame
    content = {"model": model.config, "preprocessing": learned.to_dict(), "weights": model.state_dict(), "run": {}}
    save_checkpoint(tmp_path / "M.pth", content | {"epoch": 1, "best_score": -1.0})
    options = ["--data_root", labeled, "--draws", 2, "--device", "cpu", "--out", tmp_path / "shift.json"]
    code, out, error = call("benchmarks.shift.__main__", tmp_path / "M.pth", *options)
    assert code == 0, error
    result = json.loads((tmp_path / "shift.json").read_text())
    assert list(result) == ["plain", "field", *SHIFTS, "scans"]
    assert [kind["slices"] for kind in result.values()] == [4, *[8] * (1 + len(SHIFTS)), THICK * 4]
    assert all(0 <= kind["dice"] <= 1 for kind in result.values()) and f"{result['field']['dice']:.3f}" in out


def test_a_folder_that_is_no_setting_is_refused(labeled, tmp_path, call):
    code, _, error = call("benchmarks.shift.__main__", tmp_path, "--data_root", labeled)
    assert code == 2 and "no setting.json" in error
