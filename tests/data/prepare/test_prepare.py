"""From scans and public releases to the folders of the training scripts."""

import csv
import os
import shutil
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DEPTH, SHARED, SIZE, contents, drawn
from PIL import Image

from data.errors import FileError
from data.folders import cases_of, list_slices, pair_by_stem, split_pairs
from data.io.volumes import read_scan, write_like
from data.phantom.volumes import ORIENTATIONS, draw_volume
from data.prepare import __main__, convert, sources
from data.prepare.sources import SourceScan, Split, find_covid_19_20, split_cases
from data.preprocess.lungs import box, find_body, find_lungs
from data.preprocess.window import LUNG, Window
from utils.cli.parser import run

COUNT = len(ORIENTATIONS)


@pytest.fixture
def prepared(monkeypatch, capsys, tmp_path):
    """``prepared("covid-19-20", "--source", ...)`` -> (exit code, stdout, stderr); writes to tmp_path / "out"."""

    def call(*arguments, out="out"):
        command = ["prepare", *map(str, arguments), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", command)
        code = 0
        try:
            run(__main__.main)
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def manifest(out):
    return list(csv.DictReader((out / "manifest.csv").open()))


def test_slices_and_masks_are_those_of_the_scans(scans, prepared, tmp_path):
    """Every voxel of scan and mask is kept, in every orientation, and masks are written back to their scan."""
    code, out, _ = prepared("covid-19-20", "--source", scans, "--keep", "all", "--test_fraction", 0.4)
    assert code == 0 and "train       18 slices of 3 cases" in out and "test        12 slices of 2 cases" in out
    rows = manifest(tmp_path / "out")
    assert len(rows) == COUNT * DEPTH
    for index in range(COUNT):
        hu, lesions = drawn(index)
        own = [row for row in rows if row["case"] == f"volume-covid19-A-{index:04}"]
        assert [int(row["slice"]) for row in own] == list(range(DEPTH))
        images = [np.asarray(Image.open(tmp_path / "out" / row["file"])) for row in own]
        masks = [np.asarray(Image.open(tmp_path / "out" / row["file"].replace("Image", "Mask"))) for row in own]
        assert np.array_equal(images, LUNG.to_gray(hu))
        assert np.abs(LUNG.to_hu(np.stack(images) / 255) - np.clip(hu, -1400, 100)).max() < 2.95  # half a gray level
        assert np.array_equal(masks, 255 * lesions.astype(np.uint8))
        assert [int(row["lesion_pixels"]) for row in own] == [np.count_nonzero(mask) for mask in masks]

        scan = read_scan(Path(own[0]["source"]))
        write_like((np.stack(masks) > 0).astype(np.uint8), scan, tmp_path / "back.nii.gz")
        truth = own[0]["source"].replace("_ct", "_seg")
        back, original = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (tmp_path / "back.nii.gz", truth))
        assert np.array_equal(back, original)


def test_the_three_conventions_give_the_same_slices(scans, prepared, tmp_path):
    flags = ["--keep", "all", "--test_fraction", 0]
    prepared("covid-19-20", "--source", scans / "COVID-19-20", *flags, out="a")
    code, out, _ = prepared("uestc", "--source", scans / "UESTC", "--test_fraction", 0, out="b")
    assert code == 0 and out.count("values in [0, 1], interpreted as a lung window") == COUNT
    prepared("volumes", "--images", scans / "DICOM/*", "--masks", scans / "DICOM-Mask/*", *flags, out="c")
    for folder in ("Train-Image", "Train-Mask"):
        hu, share, dicom = (
            np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / out / folder).iterdir())])
            for out in "abc"
        )
        assert len(hu) == COUNT * DEPTH and np.array_equal(hu, dicom)
        assert np.abs(hu - share.astype(int)).max() <= (folder == "Train-Image")  # half a gray level rounds either way
        assert np.mean(hu == share) > 0.99


def test_no_case_is_on_two_sides_of_a_split():
    cases = [SourceScan(str(i), Path(f"{i}.nii"), None if i % 5 == 0 else Path("mask.nii"), str(i)) for i in range(40)]
    seen = set()
    for seed in range(200):
        how = Split(split=None, seed=seed, test_fraction=0.25, unlabeled_fraction=0.5)
        splits = split_cases(cases, how)
        assert splits.keys() == {case.name for case in cases}
        counts = [list(splits.values()).count(name) for name in ("test", "train", "unlabeled")]
        assert counts == [8, 12, 8 + 12]
        assert all(splits[str(i)] == "unlabeled" for i in range(0, 40, 5))
        assert splits == split_cases(cases, how)
        seen.add(tuple(splits.values()))
    assert len(seen) == 200


def test_scans_of_one_patient_stay_together(tmp_path):
    for scan in range(12):
        for name in (f"volume-covid19-A-{scan:04}_ct.nii.gz", f"volume-covid19-A-{scan:04}_1_ct.nii.gz"):
            (tmp_path / name).touch()
            (tmp_path / name.replace("_ct", "_seg")).touch()
    cases = find_covid_19_20(tmp_path)
    assert len(cases) == 24 and all(case.mask.exists() for case in cases)
    for seed in range(100):
        how = Split(split=None, seed=seed, test_fraction=0.3, unlabeled_fraction=0.4)
        splits = split_cases(cases, how)
        for scan in range(12):
            assert splits[f"volume-covid19-A-{scan:04}"] == splits[f"volume-covid19-A-{scan:04}_1"]
        assert set(splits.values()) == {"train", "test", "unlabeled"}
    for scan in range(0, 12, 2):  # whose second scan is now to be learnt from
        (tmp_path / f"volume-covid19-A-{scan:04}_1_seg.nii.gz").unlink()
    cases = find_covid_19_20(tmp_path)
    for seed in range(100):
        how = Split(split=None, seed=seed, test_fraction=0.4, unlabeled_fraction=0)
        splits = split_cases(cases, how)
        tested = {case.patient for case in cases if splits[case.name] == "test"}
        assert len(tested) == 5 and all(splits[case.name] == "test" for case in cases if case.patient in tested)


def test_slices_of_a_case_stay_together(scans, prepared, tmp_path):
    for seed in range(3):
        flags = ["--seed", seed, "--unlabeled_fraction", 0.5, "--size", 16, "--keep", "all"]
        assert prepared("covid-19-20", "--source", scans, *flags, out=f"{seed}")[0] == 0
        rows = manifest(tmp_path / f"{seed}")
        assert len({(row["case"], row["split"]) for row in rows}) == COUNT
        assert {row["file"].split("/")[0] for row in rows} == {"Train-Image", "Test-Image", "Unlabeled"}
        for folder in ("Train", "Test"):
            images, masks = (
                sorted(f.name for f in (tmp_path / f"{seed}" / f"{folder}-{kind}").iterdir())
                for kind in ("Image", "Mask")
            )
            assert images == masks
        assert Image.open(tmp_path / f"{seed}" / rows[0]["file"]).size == (16, 16)


def test_keep_every_and_crop(scans, prepared, tmp_path):
    prepared("covid-19-20", "--source", scans, "--keep", "lesion", "--every", 2, "--crop", "body", "--test_fraction", 0)
    rows = manifest(tmp_path / "out")
    for index in range(COUNT):
        hu, lesions = drawn(index)
        own = [row for row in rows if row["case"].endswith(f"{index:04}")]
        expected = np.flatnonzero(lesions.any(axis=(1, 2)))[::2]
        assert [int(row["slice"]) for row in own] == expected.tolist()
        top, left = box(find_body(hu))
        stored = np.asarray(Image.open(tmp_path / "out" / own[0]["file"]))
        assert np.array_equal(stored, LUNG.to_gray(hu)[expected[0], top, left]) and stored.size < SIZE**2


def test_lungs_and_body_of_the_phantom():
    hu, lesions = draw_volume(np.random.default_rng([0, 3, 1]), 96, 8)
    body = find_body(hu)
    lungs = find_lungs(hu, body)
    assert 0.3 < body.mean() < 0.8 and 0.1 < lungs.mean() < 0.4
    assert (lungs & ~body).sum() == 0
    assert not find_lungs(np.full((3, 20, 20), 40.0), np.ones((3, 20, 20), bool)).any()
    assert lungs[lesions].mean() > 0.5
    rows, columns = box(lungs)
    assert lungs[:, rows, columns].sum() == lungs.sum() and lungs[:, rows, columns].size < lungs.size


def test_an_interrupted_run_resumes(scans, prepared, tmp_path, monkeypatch):
    flags = ["covid-19-20", "--source", scans, "--unlabeled_fraction", 0.3, "--size", 32]
    prepared(*flags, out="whole")
    write = convert.write_manifest
    calls = []

    def stop_at_the_third(out, rows):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(out)
        write(out, rows)

    monkeypatch.setattr(convert, "write_manifest", stop_at_the_third)
    assert prepared(*flags)[0] == 130
    assert len({row["case"] for row in manifest(tmp_path / "out")}) == 2
    monkeypatch.setattr(convert, "write_manifest", write)
    code, out, _ = prepared(*flags)
    assert code == 0 and f"2 of {COUNT} scans are complete" in out
    whole, resumed = (
        {str(Path(name).relative_to(tmp_path / out)): data for name, data in contents(tmp_path / out).items()}
        for out in ("whole", "out")
    )
    assert whole == resumed
    before = contents(tmp_path / "out")
    code, _, error = prepared(*flags, "--every", 2)
    assert code == 2 and "other options" in error and contents(tmp_path / "out") == before


def test_bad_scans_are_reported_and_the_rest_is_done(scans, prepared, tmp_path):
    source = shutil.copytree(scans / "COVID-19-20", tmp_path / "source")
    names = [source / f"volume-covid19-A-{index:04}_ct.nii.gz" for index in range(COUNT)]
    names[0].write_bytes(names[0].read_bytes()[:2000])
    shutil.copy(names[2], names[1])  # another scan: its mask has another affine
    small = sitk.ReadImage(str(names[3]))[:, :, : SIZE // 2]
    sitk.WriteImage(small, str(names[3]))
    flags = ["covid-19-20", "--source", source, "--keep", "all", "--test_fraction", 0]
    code, out, error = prepared(*flags)
    lines = error.splitlines()
    assert code == 1 and len(lines) == 4 and "3 of 5 scans could not be processed" in lines[-1]
    for line, (name, says) in zip(
        sorted(lines[:3]),
        [("0000_ct", "not a readable volume"), ("0001_seg", "differs in geometry"), ("0003_seg", "differs in shape")],
        strict=True,
    ):
        assert line.startswith("error: ") and name in line and says in line
    assert f"train       {2 * DEPTH} slices of 2 cases" in out
    for index in (0, 1, 3):
        shutil.copy(scans / "COVID-19-20" / names[index].name, names[index])
    code, out, _ = prepared(*flags)
    assert code == 0 and f"train       {COUNT * DEPTH} slices of 5 cases" in out


def test_a_full_disk_leaves_no_half_of_a_scan(scans, tmp_path, monkeypatch):
    from data.prepare import slicing

    recipe = slicing.Slicing(LUNG, keep="all", every=1, crop="none", size=None)
    source = scans / "COVID-19-20" / "volume-covid19-A-0000_ct.nii.gz"
    saved = []

    def save_until_full(picture, path):
        if len(saved) == 5:
            raise OSError(28, "No space left on device")
        saved.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)

    monkeypatch.setattr(slicing, "save", save_until_full)
    mask = source.with_name(source.name.replace("_ct", "_seg"))
    with pytest.raises(FileError, match=r"0000_ct\.nii\.gz: .*can't be saved.*No space left.*free some space"):
        slicing.write_case("case", source, mask, "train", recipe, tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["covid-19-20", "--source", "nowhere"], ["nowhere", "volume-covid19-A"]),
        (["uestc", "--source", "nowhere"], ["nowhere", "image"]),
        (["covid-semiseg", "--source", "nowhere"], ["nowhere", "TrainingSet"]),
        (["volumes", "--images", "nowhere/*"], ["--images nowhere/*", "no such file"]),
        (["covid-19-20", "--source", "x", "--window", "wide"], ["--window", "wide", "LEVEL,WIDTH"]),
        (["covid-19-20", "--source", "SCANS", "--split", "nowhere.csv"], ["--split nowhere.csv"]),
    ],
)
def test_wrong_flags(scans, prepared, tmp_path, arguments, names):
    code, _, error = prepared(*(scans if part == "SCANS" else part for part in arguments))
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert all(name in error for name in names), error
    assert not (tmp_path / "out").exists()


def test_a_split_from_a_file(scans, prepared, tmp_path):
    split = tmp_path / "split.csv"
    flags = ["covid-19-20", "--source", scans, "--split", split, "--keep", "all", "--size", 16]
    rows = [f"volume-covid19-A-{index:04},{'test' if index == 3 else 'train'}" for index in range(COUNT)]
    for text, says in {
        "\n".join(["case,split", *rows[1:]]): "has no row for volume-covid19-A-0000",
        "\n".join(["case,split", *rows, "x,exam"]): "x (exam)",
        "case,part": "columns case,split",
    }.items():
        split.write_text(text)
        code, _, error = prepared(*flags)
        assert code == 2 and says in error
    split.write_text("\n".join(["case,split", *rows]))
    assert prepared(*flags)[0] == 0
    assert {row["case"][-1] for row in manifest(tmp_path / "out") if row["split"] == "test"} == {"3"}


def test_scans_without_masks_are_unlabeled(scans, prepared, tmp_path):
    code, out, _ = prepared("volumes", "--images", scans / "DICOM/*")
    assert code == 0 and f"of {COUNT} cases in Unlabeled" in out and "train       0 slices" in out
    assert {row["lesion_pixels"] for row in manifest(tmp_path / "out")} == {""}
    code, _, error = prepared("volumes", "--images", scans / "DICOM/*", "--masks", scans / "DICOM-Mask/0001*", out="b")
    assert code == 2 and "not one for each of --images" in error and "0002" in error


def test_the_public_release(prepared, tmp_path):
    source = SHARED / "datasets" / "COVID-SemiSeg"
    if not source.is_dir():
        pytest.skip("the public data in ../shared/datasets are not part of the repository")
    assert prepared("covid-semiseg", "--source", source)[0] == 0
    counts = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "out").iterdir() if folder.is_dir()}
    assert counts == {"Train-Image": 50, "Train-Mask": 50, "Unlabeled": 1600, "Test-Image": 48}
    assert len(manifest(tmp_path / "out")) == 50 + 1600 + 48
    for row in manifest(tmp_path / "out")[::97]:
        stored = np.asarray(Image.open(tmp_path / "out" / row["file"]))
        assert np.array_equal(stored, np.asarray(Image.open(source / row["source"]).convert("L")))
    for folder in [part for parts in sources.SEMI_SEG.values() for part in parts if part]:
        for file in list_slices(source / folder)[:4] if (source / folder).exists() else []:
            (tmp_path / "few" / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / "few" / folder)
    for _ in range(2):
        assert prepared("covid-semiseg", "--source", tmp_path / "few", out="of_few")[0] == 0
        assert len(manifest(tmp_path / "of_few")) == 4 + 4 + 4
        (tmp_path / "of_few" / "manifest.csv").unlink()  # as if interrupted
    (tmp_path / "other" / "Unlabeled").mkdir(parents=True)
    (tmp_path / "other" / "Unlabeled" / "1.png").touch()
    assert prepared("covid-semiseg", "--source", source, out="other")[0] == 2


LAYOUTS = {  # of patients' sub-folders: an image, its mask, and the patterns of both
    "two trees": ("images/{}/{}.png", "masks/{}/{}.png", "images/*/*", "masks/*/*"),
    "folders in a patient's": ("all/{}/images/{}.png", "all/{}/masks/{}.png", "all/*/images/*", "all/*/masks/*"),
    "one folder a patient": ("all/{}/ct_{}.png", "all/{}/seg_{}.png", "all/*/ct_*", "all/*/seg_*"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_slices_of_patients_in_sub_folders(phantom, prepared, tmp_path, layout):
    """They become slices of other names with the same pixels; a patient is on one side of the split."""
    image, mask, images, masks = LAYOUTS[layout]
    files = [path.name for path in list_slices(phantom / "Train-Image")[:9]]
    place = {name: (f"P{index // 3}", index % 3) for index, name in enumerate(files)}
    for name in files:
        for source, pattern in (("Train-Image", image), ("Train-Mask", mask)):
            path = tmp_path / pattern.format(*place[name])
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(phantom / source / name, path)
    flags = ["slices", "--images", tmp_path / images, "--test_fraction", 0.34]
    code, out, error = prepared(*flags, "--masks", tmp_path / masks)
    assert code == 0, error
    assert "train       6 slices of 2 cases" in out and "test        3 slices of 1 cases" in out
    for split in ("Train", "Test"):
        for written, truth in pair_by_stem(tmp_path / f"out/{split}-Image", tmp_path / f"out/{split}-Mask"):
            patient, _, number = written.stem.replace("ct_", "").partition("_")
            name = next(name for name in files if place[name] == (patient, int(number)))
            for made, source in ((written, "Train-Image"), (truth, "Train-Mask")):
                assert np.array_equal(Image.open(made), Image.open(phantom / source / name))
    rows = manifest(tmp_path / "out")
    assert [row["slice"] for row in rows] == 3 * ["0", "1", "2"]
    assert set(cases_of(pair_by_stem(tmp_path / "out/Train-Image", tmp_path / "out/Train-Mask"))) <= {"P0", "P1", "P2"}
    (tmp_path / mask.format("P1", 1)).unlink()
    code, _, error = prepared(*flags, "--masks", tmp_path / masks, out="b")
    assert code == 2 and "no mask in" in error and "P1/" in error and Path(image.format("P1", 1)).name in error


def test_links_do_not_lead_out_of_the_folder(scans, prepared, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "Unlabeled").symlink_to(tmp_path / "elsewhere")
    code, _, error = prepared("volumes", "--images", scans / "DICOM/*")
    assert code == 2 and "Unlabeled: is a link" in error and not list((tmp_path / "elsewhere").iterdir())


def test_slices_in_hounsfield_units_are_windowed(prepared, tmp_path):
    (tmp_path / "hu").mkdir()
    hu = drawn(0)[0]
    for index, values in enumerate(hu):
        Image.fromarray((values + 1024).clip(0).astype(np.uint16)).save(tmp_path / f"hu/{index}.png")
    code, out, _ = prepared("slices", "--images", tmp_path / "hu/*", "--window", "40,400")
    assert code == 0 and "read as HU + 1024, in a window of width 400 at 40" in out
    written = np.stack([Image.open(tmp_path / f"out/Unlabeled/{index}.png") for index in range(len(hu))])
    assert np.array_equal(written, Window(40, 400).to_gray(hu.clip(-1024)))


def test_masks_are_matched_by_name(scans, prepared, tmp_path):
    """Sorted, case10_ct comes before case1_ct, but case1 before case10."""
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
    for index, name in ((0, "case1"), (2, "case10")):
        source = scans / "COVID-19-20" / f"volume-covid19-A-{index:04}_ct.nii.gz"
        shutil.copy(source, tmp_path / "scans" / f"{name}_ct.nii.gz")
        shutil.copy(str(source).replace("_ct", "_seg"), tmp_path / "masks" / f"{name}.nii.gz")
    flags = ["volumes", "--images", tmp_path / "scans/*", "--masks", tmp_path / "masks/*", "--keep", "all"]
    code, _, error = prepared(*flags)
    assert code == 0, error
    for index, name in ((0, "case1_ct"), (2, "case10_ct")):
        pixels = [int(row["lesion_pixels"]) for row in manifest(tmp_path / "out") if row["case"] == name]
        assert sum(pixels) == drawn(index)[1].sum()


def test_scans_of_one_name_and_from_elsewhere(scans, prepared, tmp_path):
    for folder in ("a", "b"):
        shutil.copytree(scans / "COVID-19-20", tmp_path / "source" / folder)
    code, _, error = prepared("covid-19-20", "--source", tmp_path / "source")
    assert code == 2 and "scans with the same name" in error and not (tmp_path / "out").exists()
    assert prepared("covid-19-20", "--source", tmp_path / "source" / "a", "--size", 16)[0] == 0
    before = contents(tmp_path / "out")
    code, _, error = prepared("covid-19-20", "--source", tmp_path / "source" / "b", "--size", 16)
    assert code == 2 and "another scan of that name" in error and contents(tmp_path / "out") == before
    for file in (tmp_path / "source" / "a").glob("*0003*"):  # a scan that went is no hindrance
        file.unlink()
    assert prepared("covid-19-20", "--source", tmp_path / "source" / "a", "--size", 16)[0] == 0


def test_a_window_may_start_with_a_minus(scans, prepared, tmp_path):
    flags = ["covid-19-20", "--source", scans, "--keep", "all", "--test_fraction", 0]
    assert prepared(*flags, "--window", "-600,1200")[0] == 0
    stored = np.asarray(Image.open(tmp_path / "out" / manifest(tmp_path / "out")[0]["file"]))
    assert np.array_equal(stored, Window(-600, 1200).to_gray(drawn(0)[0][0]))


def test_a_killed_worker_is_reported(scans, prepared, monkeypatch):
    monkeypatch.setattr(convert, "write_case", os.abort)  # takes no arguments, but the name goes by pickle
    monkeypatch.setattr(convert, "as_completed", broken)
    code, _, error = prepared("covid-19-20", "--source", scans, "--size", 16)
    assert code == 2 and "fewer --workers" in error


def broken(jobs):
    for job in jobs:
        job.cancel()
    future = Future()
    future.set_exception(BrokenProcessPool())
    yield future


def test_validation_keeps_scans_whole(scans, prepared, tmp_path):
    assert prepared("covid-19-20", "--source", scans, "--keep", "all", "--test_fraction", 0, "--size", 16)[0] == 0
    pairs = pair_by_stem(tmp_path / "out" / "Train-Image", tmp_path / "out" / "Train-Mask")
    cases = cases_of(pairs)
    assert len(set(cases)) == COUNT
    for seed in range(20):
        train, validation = split_pairs(pairs, 0.4, seed, cases)
        assert len(validation) == 2 * DEPTH and len(train) == 3 * DEPTH
        assert not set(cases_of(train)) & set(cases_of(validation))
    (tmp_path / "out" / "manifest.csv").write_text("something else")
    assert cases_of(pairs) == [image.stem for image, _ in pairs]
