"""The phantom: reproducible, laid out as the scripts expect, and neither empty nor trivial to segment."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data.phantom import __main__, slices
from data.preprocess.window import LUNG
from utils.cli.parser import run

COUNTS = {"Train-Image": 3, "Train-Mask": 3, "Unlabeled": 4, "Test-Image": 2, "Test-Mask": 2}


def generate(out, *options):
    command = ["phantom", "--out", str(out), "--labeled=3", "--unlabeled=4", "--test=2", "--size=64", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        run(__main__.main)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.png"))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom")
    return out, generate(out)


@pytest.fixture(scope="module")
def drawn():
    """40 slices of 96 px: gray images (N, S, S), masks (N, S, S), and the lungs twice as fine."""
    lungs, draw_chest = [], slices.draw_chest

    def recording(*args):
        chest = draw_chest(*args)
        lungs.append(chest.lungs)
        return chest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "draw_chest", recording)
        pairs = [slices.draw_slice(np.random.default_rng([0, i]), 96) for i in range(40)]
    images, masks = zip(*pairs, strict=True)
    return LUNG.to_gray(np.stack(images)), np.stack(masks), np.stack(lungs)


def test_same_seed_same_bytes(written, tmp_path):
    """A second run in a process of its own, as from the command line."""
    options = ["--labeled=3", "--unlabeled=4", "--test=2", "--size=64"]
    command = [sys.executable, "-m", "data.phantom", "--out", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    again = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert again == written[1]
    assert "3 train, 4 unlabeled, 2 test slices" in done.stdout


def test_other_seed_other_slices(written, tmp_path):
    other = generate(tmp_path, "--seed=1")
    assert other.keys() == written[1].keys()
    assert all(other[name] != written[1][name] for name in other if "Mask" not in name)


def test_splits_share_no_slice(written):
    images = [content for name, content in written[1].items() if "Mask" not in name]
    assert len(set(images)) == len(images)


def test_more_slices_leave_the_first_unchanged(written, tmp_path):
    more = generate(tmp_path, "--labeled=5", "--unlabeled=5", "--test=3")
    assert len(more) == len(written[1]) + 4 + 1 + 2
    assert {name: more[name] for name in written[1]} == written[1]


def test_truth_of_unlabeled_slices_on_request(written, tmp_path):
    files = generate(tmp_path, "--labeled=3", "--unlabeled=4", "--test=2", "--unlabeled_truth")
    assert len(files) == len(written[1]) + 4 and {name: files[name] for name in written[1]} == written[1]


def test_layout(written):
    out, files = written
    assert {folder.name for folder in out.iterdir()} == set(COUNTS)  # and so no mask of Unlabeled
    for folder, count in COUNTS.items():
        names = sorted(path.name for path in (out / folder).iterdir())
        assert names == [f"phantom_{i:04}.png" for i in range(count)]
    for name in files:
        with Image.open(out / name) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (64, 64))
            if "Mask" in name:
                assert set(np.unique(image)) <= {0, 255}
            else:
                assert np.ptp(image) > 150


def test_hounsfield_units():
    hu, mask = slices.draw_slice(np.random.default_rng(3), 96)
    assert hu.dtype == np.float32 and mask.dtype == bool and hu.shape == mask.shape == (96, 96)
    assert hu.min() >= -1024 and hu.max() > 200  # bone
    assert abs(np.median(hu[:8]) + 1000) < 60  # air above the chest


def test_window():
    gray = LUNG.to_gray(np.array([-3000, -1400, -1100, -650, -200, 100, 3000]))
    assert gray.dtype == np.uint8 and gray.tolist() == [0, 0, 51, 128, 204, 255, 255]


def test_radiological_orientation():
    """At the level of the heart: the smaller left lung at the right of the image, the spine below."""
    rng = np.random.default_rng(0)
    chest = slices.draw_chest(slices.sample_patient(rng, 1), 0.72, 128, rng)
    assert chest.lungs[:, :64].sum() > 1.1 * chest.lungs[:, 64:].sum()
    assert np.mean(np.nonzero(chest.hu > 500)[0]) > 70


def test_lesions_vary(drawn):
    _, masks, _ = drawn
    shares = masks.mean((1, 2))
    some = shares[shares > 0]
    assert 0.02 < np.mean(shares == 0) < 0.4
    assert some.max() > 10 * some.min() and some.max() < 0.25
    assert 0.005 < np.median(some) < 0.1


def test_lesions_are_in_the_lungs(drawn):
    _, masks, lungs = drawn
    touched = lungs.reshape(len(lungs), 96, 2, 96, 2).any((2, 4))
    assert masks.any() and not (masks & ~touched).any()


def test_no_band_of_gray_levels_solves_it(drawn):
    """The best of all bands low <= gray < high, chosen on these very slices, is about Dice .4."""
    images, masks, _ = drawn
    lesion, rest = (np.append(0, np.bincount(images[m], minlength=256).cumsum()) for m in (masks, ~masks))
    low, high = np.triu_indices(257, 1)
    hits, false_alarms = lesion[high] - lesion[low], rest[high] - rest[low]
    dice = 2 * hits / (hits + false_alarms + lesion[-1])
    assert 0.2 < dice.max() < 0.6


def test_lesions_are_brighter_than_the_lung_around_them(drawn):
    images, masks, lungs = drawn
    healthy = lungs.reshape(len(lungs), 96, 2, 96, 2).all((2, 4)) & ~masks
    ill = masks.any((1, 2))
    layers = zip(images[ill], masks[ill], healthy[ill], strict=True)
    rises = [np.median(image[mask]) - np.median(image[lung]) for image, mask, lung in layers]
    assert min(rises) > 5 and np.median(rises) > 25


def test_labeled_slices_look_more_alike():
    """Measures noise outside the body, one of the properties that `spread` scales."""

    def noise(spread):
        drawn = (slices.draw_slice(np.random.default_rng([5, i]), 64, spread)[0] for i in range(12))
        return [np.log(hu[:6].std()) for hu in drawn]

    assert np.std(noise(slices.SPREAD["train"])) < 0.7 * np.std(noise(slices.SPREAD["test"]))
    assert slices.SPREAD["test"] == slices.SPREAD["unlabeled"]


def test_refuses_a_folder_in_use(written, capsys):
    out, before = written
    with pytest.raises(SystemExit) as stop:
        generate(out, "--seed=9")
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert message.count("\n") == 1
    assert "Train-Image is not empty: remove it or choose another --out" in message
    assert {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")} == before


def test_refuses_a_file_as_folder(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as stop:
        generate(tmp_path / "taken")
    assert stop.value.code == 2 and "taken" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["--labeled=-1", "--unlabeled=x", "--test=-2", "--size=63", "--seed=-1"])
def test_refuses_bad_values(bad, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        generate(tmp_path / "new", bad)
    assert stop.value.code == 2 and bad.split("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
