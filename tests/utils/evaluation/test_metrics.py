"""Scores of masks and maps, against hand-worked numbers and the saliency field's own tool."""

import math

import numpy as np
import py_sod_metrics
import pytest
import torch
from scipy.spatial.distance import cdist

from utils.evaluation.metrics import FROM_COUNTS, SCORES, evaluate, follows_empty_rule, scores

TRUTH = np.zeros((12, 16), bool)
TRUTH[3:9, 4:10] = True
SHIFTED = np.roll(TRUTH, 2, axis=1)  # 24 of 36 pixels in common
RAMP = (TRUTH * 120 + np.arange(16) * 8).astype(np.uint8)  # from 0 to 192, half of the truth above 127
NOTHING, ALL = np.zeros_like(TRUTH), np.ones_like(TRUTH)
DIAGONAL = math.hypot(12, 16)

CASES = {
    "perfect": (255 * np.uint8(TRUTH), TRUTH),
    "binary": (255 * np.uint8(SHIFTED), TRUTH),
    "soft": (RAMP, TRUTH),
    "constant": (np.full(TRUTH.shape, 90, np.uint8), TRUTH),
    "constant and bright": (np.full(TRUTH.shape, 200, np.uint8), TRUTH),
    "empty prediction": (255 * np.uint8(NOTHING), TRUTH),
    "empty truth": (255 * np.uint8(SHIFTED), NOTHING),
    "empty truth, soft": (RAMP, NOTHING),
    "both empty": (255 * np.uint8(NOTHING), NOTHING),
    "full truth": (255 * np.uint8(SHIFTED), ALL),
    "full truth, soft": (RAMP, ALL),
}


def by_the_fields_tool(soft, truth):
    """The tool's report on one image; ratios at every threshold, whose mean is the threshold mean."""
    gt = 255 * np.uint8(truth)
    s, e, mae = py_sod_metrics.Smeasure(), py_sod_metrics.Emeasure(), py_sod_metrics.MAE()
    kinds = ("DICE", "IOU", "Sensitivity", "Specificity", "Precision")
    handlers = {
        name: getattr(py_sod_metrics, f"{kind}Handler")(with_dynamic=True, with_adaptive=False)
        for name, kind in zip(FROM_COUNTS, kinds, strict=True)
    }
    ratios = py_sod_metrics.FmeasureV2(handlers)
    for tool in (s, e, mae, ratios):
        tool.step(soft, gt)
    em = e.get_results()["em"]
    found = {"s_measure": s.get_results()["sm"], "mae": mae.get_results()["mae"]}
    found |= {"e_mean": em["curve"].mean(), "e_max": em["curve"].max(), "e_adaptive": em["adp"]}
    return found | {name: result["dynamic"].mean() for name, result in ratios.get_results().items()}


@pytest.mark.parametrize("case", CASES)
def test_threshold_mean_is_what_the_fields_tool_reports(case):
    soft, truth = CASES[case]
    found = evaluate(soft, truth)
    expected = by_the_fields_tool(soft, truth)
    assert {name.removeprefix("tm_") for name in found if name.startswith("tm_")} == set(expected)
    for name, value in expected.items():
        assert found[f"tm_{name}"] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("case", CASES)
def test_saliency_scores_of_the_fixed_protocol_are_those_of_the_mask(case):
    soft, truth = CASES[case]
    found, expected = evaluate(soft, truth), by_the_fields_tool(255 * np.uint8(soft > 127), truth)
    for name in ("s_measure", "e_mean", "e_max", "e_adaptive", "mae"):
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name


def fixed(case, **options):
    return {name: value for name, value in evaluate(*CASES[case], **options).items() if not name.startswith("tm_")}


def test_a_mask_that_is_off_by_two_columns():
    """tp 24, fp 12, fn 12, tn 144 of 192; outlines 6 x 6 apart by 2 columns."""
    found = fixed("binary")
    assert set(found) == set(SCORES)
    assert found["dice"] == pytest.approx(48 / 72)
    assert found["iou"] == pytest.approx(24 / 48)
    assert found["sensitivity"] == found["precision"] == pytest.approx(24 / 36)
    assert found["specificity"] == pytest.approx(144 / 156)
    assert found["mae"] == pytest.approx(24 / 192)
    # Each outline has 20 pixels. Distances of the prediction's to the truth's: rows 3 and 8 both 0 0 0 0 1 2; column 6
    # between them, inside the truth, 1 2 2 1; column 11, outside, 2 2 2 2. Together 20; the other way mirrors it.
    assert found["hd95"] == pytest.approx(2)
    assert found["assd"] == pytest.approx(20 / 20)


def test_distances_between_two_points():
    prediction, truth = NOTHING.copy(), NOTHING.copy()
    prediction[2, 3] = truth[5, 7] = True
    found = evaluate(255 * np.uint8(prediction), truth)
    assert found["hd95"] == found["assd"] == pytest.approx(5)


def test_distances_are_symmetric_and_hd95_leaves_out_the_farthest_twentieth():
    """A line of 40 pixels, and the same one with one pixel far away."""
    truth = np.zeros((40, 60), bool)
    truth[5, :40] = True
    prediction = truth.copy()
    prediction[35, 0] = True
    for pair in ((prediction, truth), (truth, prediction)):
        found = evaluate(255 * np.uint8(pair[0]), pair[1])
        assert found["hd95"] == 0
        assert found["assd"] == pytest.approx(30 / 81)
    prediction[35, :10] = True
    assert evaluate(255 * np.uint8(prediction), truth)["hd95"] == pytest.approx(30)


def outline(area):
    """Coordinates of the pixels of which one of the four neighbours is outside, or beyond the image."""
    padded = np.pad(area, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(area & ~inside)


def area(kind, rng, shape=(12, 16)):
    rows, columns = np.indices(shape)
    if kind == "pixel":
        return (rows == rng.integers(shape[0])) & (columns == rng.integers(shape[1]))
    if kind == "at the border":
        return (rows < 5) & (columns < 7)
    return {"whole": np.ones(shape, bool), "scattered": rng.random(shape) < 0.2, "holes": rng.random(shape) < 0.8}[kind]


@pytest.mark.parametrize("theirs", ["pixel", "at the border", "whole", "scattered", "holes"])
@pytest.mark.parametrize("ours", ["pixel", "at the border", "whole", "scattered", "holes"])
def test_distances_by_comparing_all_pixels_of_both_outlines(ours, theirs):
    rng = np.random.default_rng(0)
    mask, truth = area(ours, rng), area(theirs, rng)
    found = evaluate(255 * np.uint8(mask), truth)
    between = cdist(outline(mask), outline(truth))
    nearest = between.min(axis=1), between.min(axis=0)
    assert found["hd95"] == pytest.approx(max(np.percentile(distances, 95) for distances in nearest))
    assert found["assd"] == pytest.approx(np.concatenate(nearest).mean())


def test_distances_are_what_they_were_by_another_library():
    """Figures of the imaging library that computed distances here before; from both ends, percentile 95 of each."""
    rows, columns = np.indices((40, 50))
    disc = (rows - 18) ** 2 + (columns - 20) ** 2 < 150
    ring = (abs((rows - 22) ** 2 + (columns - 24) ** 2 - 120) < 50) | (columns == 49)
    found = evaluate(255 * np.uint8(disc), ring)
    assert (found["hd95"], found["assd"]) == pytest.approx((21.0238, 5.8918), abs=1e-4)


def test_perfect_and_soft():
    assert {name: fixed("perfect")[name] for name in ("dice", "iou", "precision", "mae", "hd95", "assd")} == {
        "dice": 1, "iou": 1, "precision": 1, "mae": 0, "hd95": 0, "assd": 0
    }  # fmt: skip
    # Of columns 4 to 9 of the truth, 120 + 8 x is above 127 everywhere, above 165 from column 6 on.
    assert fixed("soft")["dice"] == 1
    assert fixed("soft", threshold=165 / 255)["sensitivity"] == pytest.approx(4 / 6)
    assert fixed("constant") == fixed("empty prediction")


@pytest.mark.parametrize("empty", ["one", "zero", "skip"])
def test_a_missed_lesion_never_improves_an_average(empty):
    found = fixed("empty prediction", empty=empty)
    assert [found[name] for name in ("dice", "iou", "sensitivity", "precision")] == [0, 0, 0, 0]
    assert found["hd95"] == found["assd"] == DIAGONAL
    found = fixed("empty truth", empty=empty)  # nor does a false alarm
    assert [found[name] for name in ("dice", "iou", "precision")] == [0, 0, 0]
    assert found["hd95"] == found["assd"] == DIAGONAL


@pytest.mark.parametrize(("empty", "ratio", "distance"), [("one", 1, 0), ("zero", 0, DIAGONAL), ("skip", None, None)])
def test_nothing_to_find_and_nothing_found(empty, ratio, distance):
    found = fixed("both empty", empty=empty)
    for name in ("dice", "iou", "sensitivity", "precision"):
        assert math.isnan(found[name]) if ratio is None else found[name] == ratio
    for name in ("hd95", "assd"):
        assert math.isnan(found[name]) if distance is None else found[name] == distance
    assert found["specificity"] == 1
    false_alarm, full = fixed("empty truth", empty=empty), fixed("full truth", empty=empty)
    for value in (false_alarm["sensitivity"], full["specificity"]):
        assert math.isnan(value) if ratio is None else value == ratio


def test_which_images_the_empty_rule_touches():
    assert [follows_empty_rule(truth) for truth in (TRUTH, NOTHING, ALL)] == [False, True, True]


def test_scores_by_hand():
    truth = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 255]])
    prediction = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1]]).bool()
    # tp 2, fp 1, fn 1, tn 3; the last pixel is ignored
    assert scores(prediction, truth) == {"dice": 4 / 6, "sensitivity": 2 / 3, "specificity": 3 / 4}


def test_scores_of_empty_masks():
    none, one = torch.zeros(2, 2, dtype=torch.long), torch.tensor([[0, 0], [0, 1]])
    assert scores(none > 0, none) == {"dice": 1, "sensitivity": 1, "specificity": 1}
    assert scores(one > 0, none)["dice"] == 0
    assert scores(none > 0, one) == {"dice": 0, "sensitivity": 0, "specificity": 1}
