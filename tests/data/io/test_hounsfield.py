"""Units of volumes: what is added to Hounsfield units, and what is padding."""

import numpy as np
import pytest
from helpers import SIZE, drawn

from data.io.hounsfield import to_hounsfield, why_no_ct
from data.preprocess.window import LUNG

HU = drawn(0)[0]
OUTSIDE = np.broadcast_to(np.hypot(*(np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2)) > SIZE / 2, HU.shape)
PADDED = np.where(OUTSIDE, -1024, HU)


@pytest.mark.parametrize("offset", [0, 1000, 1024, 2**15])
def test_what_was_added_is_found(offset):
    found, note = to_hounsfield(HU + offset)
    assert np.abs(found - HU).max() <= (24 if offset == 1000 else 0)
    assert note.endswith(f"interpreted as HU + {offset if offset != 1000 else 1024}") if offset else note == ""
    found, note = to_hounsfield(HU + offset, offset=offset)
    assert np.array_equal(found, HU) and note == ""


@pytest.mark.parametrize("values", [(-1024,), (-2000,), (-3024,), (-32768,), (-3024, -2000), (-9999, -1025)])
@pytest.mark.parametrize("offset", [0, 1024])
def test_padding_changes_nothing(values, offset):
    padded = np.where(OUTSIDE, np.resize(values, HU.shape), HU + offset)
    assert np.array_equal(to_hounsfield(padded)[0], PADDED)


def test_windowed_values_keep_their_gray_levels():
    share = np.clip((HU - LUNG.level) / LUNG.width + 0.5, 0, 1)
    for values in (share, share * (1 + 2e-7) - 1e-8, np.round(255 * share)):
        found, note = to_hounsfield(values)
        assert "interpreted as a lung window" in note
        assert np.abs(LUNG.to_gray(found).astype(int) - LUNG.to_gray(HU)).max() <= 1


def test_values_that_are_neither_keep_what_is_known():
    flat = np.full((2, 3, 4), 40.0)
    assert np.array_equal(to_hounsfield(flat - 100)[0], flat - 100)
    assert np.array_equal(to_hounsfield(np.full((2, 3, 4), -3000))[0], np.full((2, 3, 4), -1024))
    assert why_no_ct(flat) and not why_no_ct(HU)


@pytest.mark.parametrize("value", [0, -1, 40, 32767])
def test_one_value_around_a_round_field_of_view_is_padding(value):
    padded = np.where(OUTSIDE, value, HU)
    found, note = to_hounsfield(padded)
    assert np.array_equal(found, np.where(OUTSIDE, -1024, HU)) and f"{value:g} around the slices" in note


def test_negative_values_have_no_offset():
    """Values with another sign are no HU + 1024, but no CT."""
    found, note = to_hounsfield(-HU)
    assert note == "" and why_no_ct(found)


def test_input_is_not_changed():
    before = HU + 1024
    kept = before.copy()
    to_hounsfield(before, OUTSIDE)
    assert np.array_equal(before, kept)
