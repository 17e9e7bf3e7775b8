import numpy as np
import pytest
from PIL import Image

from data.datasets import UnlabeledSlices
from data.phantom.slices import draw_slice
from data.preprocess.grays import SOFT_TISSUE, align_grays
from data.preprocess.preprocessing import Preprocessing
from data.preprocess.window import LUNG, Window

WIDE = Window(level=500, width=3500)  # nearly all of the Hounsfield scale, soft tissue dark gray


@pytest.fixture(scope="module")
def hounsfield():
    return [draw_slice(np.random.default_rng(seed), 96)[0] for seed in range(6)]


def soft_tissue(hu, gray):
    return np.median(gray[(hu > -50) & (hu < 100)])


def test_soft_tissue_has_one_gray_level_from_any_window(hounsfield):
    for hu in hounsfield:
        for window in (LUNG, WIDE, Window(-600, 1200)):
            assert soft_tissue(hu, align_grays(window.to_gray(hu))) == pytest.approx(
                SOFT_TISSUE, abs=12
            )  # fat is in the median, too
        assert soft_tissue(hu, WIDE.to_gray(hu)) < 100


def test_slices_stored_differently_become_similar(hounsfield):
    for hu in hounsfield:
        lung, wide = (window.to_gray(hu).astype(float) for window in (LUNG, WIDE))
        before = np.abs(lung - wide).mean()
        after = np.abs(align_grays(lung.astype(np.uint8)).astype(float) - align_grays(wide.astype(np.uint8))).mean()
        assert after < before / 3


def test_grays_keep_their_order():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    aligned = align_grays(gray).ravel().astype(int)
    assert aligned[0] == 0 and (np.diff(aligned) >= 0).all() and align_grays(gray).dtype == np.uint8


def test_a_slice_that_was_not_windowed_stays_black(hounsfield):
    stored = (hounsfield[0] + 1024).clip(0, 65535) / 65535 * 255
    gray = stored.astype(np.uint8)
    assert np.array_equal(align_grays(gray), gray) and gray.max() < 20


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_slice_of_one_gray_level_is_unchanged(level):
    gray = np.full((4, 5), level, np.uint8)
    assert np.array_equal(align_grays(gray), gray)


def test_data_sets_align_on_request(hounsfield, tmp_path):
    gray = WIDE.to_gray(hounsfield[0])
    Image.fromarray(gray).save(tmp_path / "slice.png")
    stored, aligned = (
        UnlabeledSlices([tmp_path / "slice.png"], Preprocessing(image_size=96, align_grays=align))[0][0]
        for align in (False, True)
    )
    assert np.array_equal(stored.numpy() * 255, gray) and np.array_equal(aligned.numpy() * 255, align_grays(gray))
