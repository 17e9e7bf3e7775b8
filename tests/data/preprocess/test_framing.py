"""Framing: whole slices and scans are cropped to the lungs, and maps put back; cropped slices stay as they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import SHARED
from PIL import Image, ImageOps
from skimage.exposure import equalize_adapthist

from benchmarks.shift.field import widen
from data.datasets import ScanSlices, UnlabeledSlices
from data.io.volumes import read_scan
from data.phantom.slices import draw_slice
from data.phantom.volumes import draw_volume
from data.preprocess.framing import WHOLE, Box, Frame, frame_scan, frame_slice
from data.preprocess.lungs import box, find_body, find_lungs
from data.preprocess.orientation import portrait
from data.preprocess.preprocessing import Placement, Preprocessing
from data.preprocess.window import LUNG
from utils.inference.predictor import Predictor

FRAMED = Preprocessing(image_size=64, align_frame=True)


@pytest.fixture(scope="module")
def hu():
    """Whole slices ``(24, 128, 128)`` with air and, in some, a table."""
    return np.stack([draw_slice(np.random.default_rng(seed), 128)[0] for seed in range(24)])


@pytest.fixture(scope="module")
def cropped(hu):
    """The same, each cropped to its lungs."""
    slices = []
    for slice_ in hu[:, None]:
        rows, columns = box(find_lungs(slice_, find_body(slice_)), margin=1)
        slices.append(LUNG.to_gray(slice_[0, rows, columns]))
    return slices


def whole(hu):
    return [LUNG.to_gray(slice_) for slice_ in hu]


def overlap(one, other):
    """Intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = np.prod(np.clip(high - low, 0, None))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return both / (sum(areas) - both)


def lung_box(slice_):
    rows, columns = box(find_lungs(slice_[None], find_body(slice_[None])), margin=0)
    return np.array([columns.start, rows.start, columns.stop, rows.stop])


def test_whole_slices_are_cropped_to_the_lungs(hu):
    for slice_, gray in zip(hu, whole(hu), strict=True):
        found, lungs = frame_slice(gray).box, lung_box(slice_)
        assert overlap(found, lungs) > 0.7
        assert found[0] <= lungs[0] and found[1] <= lungs[1] and found[2] >= lungs[2] and found[3] >= lungs[3]


def test_the_lungs_are_found_whatever_the_gray_levels(hu):
    rng = np.random.default_rng(0)
    for gray in whole(hu)[::4]:
        expected = frame_slice(gray).box
        variants = {
            "full range": gray // 3 + 20,
            "negative of the window": np.clip(gray * 1.4 - 60, 0, 255).astype(np.uint8),
            "noise": np.clip(gray + rng.normal(0, 20, gray.shape), 0, 255).astype(np.uint8),
            "local contrast": (equalize_adapthist(gray, clip_limit=0.03) * 255).astype(np.uint8),
        }
        for name, variant in variants.items():
            assert overlap(frame_slice(variant).box, expected) > 0.85, name


def test_cropped_slices_stay_as_they_are(cropped):
    for gray in cropped:
        assert portrait(gray).cropped and frame_slice(gray)[:2] == (None, None)
        plain, _ = replace(FRAMED, align_frame=False).apply(Image.fromarray(gray))
        assert torch.equal(FRAMED.apply(Image.fromarray(gray))[0], plain)


@pytest.mark.parametrize("level", [0, 255])
def test_a_border_is_removed(cropped, level):
    for gray in cropped:
        bordered = np.asarray(ImageOps.expand(Image.fromarray(gray), (20, 35), fill=level))
        assert frame_slice(bordered)[:2] == (Box(20, 35, 20 + gray.shape[1], 35 + gray.shape[0]), None)


def test_framing_is_learned_from_the_training_slices(hu, cropped):
    plain = Preprocessing(image_size=64)
    crops, chests = ([Image.fromarray(gray) for gray in slices] for slices in (cropped, whole(hu)))
    assert plain.fit(crops).align_frame and plain.fit([*crops, *chests[:9]]).align_frame
    assert not plain.fit(chests).align_frame and not plain.fit(crops[:12] + chests[:12]).align_frame
    assert not plain.fit(crops, frame=False).align_frame


def test_bright_air_gets_a_note(hu):
    """Not if noise or a table reaches the corners; but never a slice as it should be."""
    grays = whole(hu)
    assert not any("inverted" in frame_slice(gray).note for gray in grays)
    assert sum("inverted" in frame_slice(255 - gray).note for gray in grays) > len(grays) / 2


def test_a_slice_without_lungs_is_not_predicted_or_not_cropped():
    """An abdomen with air around it; a slice that is all body, as lungs full of lesions are."""
    disc = np.hypot(*(np.mgrid[:90, :90] - 45)) < 35
    box, body, air, note = frame_slice(np.where(disc, 210, 20).astype(np.uint8))
    assert box is None and not body.any() and air == 0 and note == "no lungs found, not predicted"
    texture = np.random.default_rng(0).integers(180, 230, (90, 90), np.uint8)
    assert frame_slice(texture)[:2] == (None, None)


def test_consolidated_lungs_are_in_the_box(hu):
    """A slice whose left lung is white is cropped as if it were not."""
    for slice_, gray in zip(hu[::3], whole(hu)[::3], strict=True):
        lungs = find_lungs(slice_[None], find_body(slice_[None]))[0]
        left = lungs & (np.arange(128) > 64)
        found = frame_slice(np.where(left, 200, gray).astype(np.uint8)).box
        assert overlap(found, frame_slice(gray).box) > 0.75


def bright(images):
    """Logits of a network that calls bright pixels lesion."""
    return torch.cat([0.5 - images, images - 0.5], dim=1) * 100


def test_maps_are_put_back_and_nothing_is_found_beyond_the_body(hu):
    model = torch.nn.Identity()
    model.forward = bright
    predictor = Predictor((model, replace(FRAMED, image_size=128)), device="cpu", tta=False)
    for gray in whole(hu)[:6]:
        found, frame = predictor.predict(gray).mask, frame_slice(gray)
        left, top, right, bottom = (np.clip(edge, 0, 128) for edge in frame.box)
        inside = np.zeros(gray.shape, bool)
        inside[top:bottom, left:right] = True
        assert not found[~inside | ~frame.body].any()
        assert (found == (gray > 127))[inside & frame.body].mean() > 0.97


def test_boxes_may_reach_beyond_the_slice():
    image = Image.fromarray(np.arange(30 * 40, dtype=np.uint8).reshape(30, 40))
    placement = Placement(1, 30, 40, Frame(Box(-5, -4, 50, 33)))
    pixels = replace(FRAMED, image_size=128).resample(image, placement.frame.box).rot90()
    probabilities = torch.stack([1 - pixels / 255, pixels / 255])
    undone = FRAMED.undo(probabilities, placement)
    assert undone.shape == (2, 30, 40) and torch.allclose(undone.sum(dim=0), torch.ones(30, 40))


def test_a_network_sees_the_same_in_a_larger_field_of_view(cropped):
    """What it sees of a slice in a chest, on a table, rotated and mirrored, is the slice."""
    fitted = Preprocessing(image_size=64).fit([Image.fromarray(gray) for gray in cropped])
    correlations = {True: [], False: []}
    for seed, gray in enumerate(cropped):
        field = Image.fromarray(widen(gray, gray > 200, np.random.default_rng(seed), upright=0).image)
        plain, _ = fitted.apply(Image.fromarray(gray))
        for framed, found in correlations.items():
            seen, _ = replace(fitted, align_frame=framed).apply(field)
            both = [np.corrcoef(x.ravel(), plain.ravel())[0, 1] for x in (seen.numpy(), seen.flip(-1).numpy())]
            found.append(max(both))
    assert np.median(correlations[False]) < 0.5 and np.median(correlations[True]) > 0.8
    assert np.mean(np.array(correlations[True]) > 0.55) > 0.9


@pytest.fixture(scope="module")
def scan():
    return draw_volume(np.random.default_rng(3), 96, 24)[0]


def test_the_boxes_of_a_scan_change_slowly_and_hold_the_lungs(scan):
    frames, shown = frame_scan(scan)
    lungs = find_lungs(scan, find_body(scan))
    assert shown.sum() >= 20
    boxes = np.array([frame.box for frame in frames if frame.box])
    assert np.abs(np.diff(boxes, axis=0)).max() <= 6
    for index in np.flatnonzero(shown):
        rows, columns = box(lungs[index : index + 1], margin=0)
        left, top, right, bottom = frames[index].box
        assert left <= columns.start and columns.stop <= right and top <= rows.start and rows.stop <= bottom


def test_slices_of_a_scan_without_lung_are_not_predicted(scan):
    model = torch.nn.Identity()
    model.forward = bright
    predictor = Predictor((model, FRAMED), device="cpu", tta=False)
    abdomen = np.where(scan[:1] > -500, 40, -1000).repeat(6, axis=0).astype(np.float32)
    for section in abdomen:  # its lungs are filled
        section[find_body(section[None])[0]] = 40
    longer = np.concatenate([abdomen, scan.astype(np.float32)])
    maps = predictor.predict_hu(longer, window=LUNG).map
    assert maps.shape == longer.shape and not maps[:6].any() and maps[12].any()
    slices = ScanSlices(abdomen, FRAMED, window=LUNG)
    assert len(slices) == 0 and slices.note == "no lungs found, not predicted"
    found = predictor.predict_hu(abdomen, window=LUNG)
    assert not found.map.any() and found.note == slices.note


def test_a_scan_that_is_cropped_already_stays_so(scan):
    rows, columns = box(find_lungs(scan, find_body(scan)), margin=0)
    slices = ScanSlices(scan[6:18, rows, columns], FRAMED, window=LUNG)
    assert len(slices) == 12 and {placement.frame for placement in slices.placements} == {WHOLE}


def test_a_real_slice_is_framed():
    folder = SHARED / "datasets" / "chest-ct-dicom"
    if not folder.is_dir():
        pytest.skip("the real slice in ../shared/datasets is not part of the repository")
    slices = ScanSlices(read_scan(folder).slices, FRAMED, window=LUNG)
    lungs = (60, 170, 450, 430)  # seen in the picture
    for placement in slices.placements:
        assert overlap(placement.frame.box, lungs) > 0.85
    gray = LUNG.to_gray(slices.hu[0])
    assert overlap(frame_slice(gray).box, lungs) > 0.8


def test_sets_of_slices_are_framed_alike_whether_kept_or_not(hu, tmp_path):
    for index, gray in enumerate(whole(hu)[:3]):
        Image.fromarray(gray).save(tmp_path / f"{index}.png")
    files = sorted(tmp_path.iterdir())
    kept, fresh = UnlabeledSlices(files, FRAMED), UnlabeledSlices(files, FRAMED, cache_gb=0)
    for index, file in enumerate(files):
        single, placement = FRAMED.apply(Image.open(file))
        assert torch.equal(kept[index], single) and torch.equal(fresh[index], single)
        assert kept.placements[index].frame.box == placement.frame.box is not None


def test_a_frame_is_found_once(hu, tmp_path, monkeypatch):
    """Not at every access of slices that are too many to be kept."""
    Image.fromarray(whole(hu)[0]).save(tmp_path / "slice.png")
    slices = UnlabeledSlices([tmp_path / "slice.png"], FRAMED, cache_gb=0)
    first = slices[0]
    monkeypatch.setattr("data.preprocess.preprocessing.frame_slice", None)
    assert torch.equal(slices[0], first)
