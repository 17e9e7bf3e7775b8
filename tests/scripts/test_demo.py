"""The page of demo.py in a real browser, and what it shows."""

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import ROOT
from PIL import Image

from data.errors import InputError
from utils.inference.predictor import Predictor
from utils.viewer.drawing import LAYERS, Look, draw, draw_burden, slice_at
from utils.viewer.files import write_files
from utils.viewer.study import read_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def predictor():
    return Predictor("small", device="cpu", tta=False)


@pytest.fixture(scope="module")
def study(predictor, scans):
    return read_study([scans / "COVID-19-20/volume-covid19-A-0000_ct.nii.gz"], predictor,
                      [scans / "COVID-19-20/volume-covid19-A-0000_seg.nii.gz"])  # fmt: skip


def test_a_study_measures_what_test_py_does(study, scans, call, tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    for kind in ("ct", "seg"):
        shutil.copy(scans / f"COVID-19-20/volume-covid19-A-0000_{kind}.nii.gz", folder)
    flags = ["--images", folder, "--masks", folder, "--no-tta", "--device", "cpu", "--out", tmp_path / "out"]
    assert call("test", "--model", "small", *flags)[0] == 0
    [row] = csv.DictReader((tmp_path / "out" / "scores.csv").open())
    found = study.measures(0.5)
    for name in ("lesion_ml", "lesions", "dice"):
        assert found[name] == pytest.approx(float(row[name]))
    assert found["dice"] == pytest.approx(float(row["dice"])) and 0 <= found["share_of_lungs"] <= 1
    assert study.measures(0.1)["lesion_ml"] >= found["lesion_ml"] >= study.measures(0.9)["lesion_ml"]


def test_files_have_the_geometry_of_the_scan(study, scans, tmp_path):
    files = write_files(study, Look(threshold=0.3), tmp_path / "files")
    assert [path.name.rpartition("_")[2] for path in files[:2]] == ["mask.nii.gz", "map.nii.gz"]
    mask, scan = (sitk.ReadImage(str(p)) for p in (files[0], scans / "COVID-19-20/volume-covid19-A-0000_ct.nii.gz"))
    assert mask.GetSize() == scan.GetSize() and np.allclose(mask.GetDirection(), scan.GetDirection())
    found = sum(study.mask(index, 0.3).sum() for index in range(len(study.maps)))
    assert sitk.GetArrayFromImage(mask).sum() == found
    rows = list(csv.reader(files[2].open()))
    assert ["threshold", "0.3"] in rows and sum(int(row[1]) for row in rows[1 : len(study.maps) + 1]) == found
    assert Image.open(files[3]).width > 300


def test_slices_and_archives(predictor, phantom, scans, tmp_path):
    slices = sorted((phantom / "Test-Image").iterdir())
    several = read_study(slices, predictor, sorted((phantom / "Test-Mask").iterdir()))
    assert several.names == [path.name for path in slices] and len(several.reliability) == 4 and several.truths
    assert {path.suffix for path in write_files(several, Look(), tmp_path / "several")} == {".zip", ".csv", ".png"}
    dotted = shutil.copy(slices[0], tmp_path / "1.2.840.png")
    one = read_study([Path(dotted)], predictor, [sorted((phantom / "Test-Mask").iterdir())[0]])
    assert one.name == "1.2.840" and np.array_equal(one.maps[0], several.maps[0])
    mask, soft, table, report = write_files(one, Look(), tmp_path / "one")
    assert [path.name for path in (mask, soft)] == ["1.2.840_mask.png", "1.2.840_map.png"]
    assert np.array_equal(np.asarray(Image.open(mask)) > 0, one.mask(0, 0.5))
    assert np.array_equal(np.asarray(Image.open(soft)), one.maps[0]) and Image.open(report).width > 600
    assert {"reliability", "note"} <= set(
        next(csv.reader(table.open()))
    ) and "truth,phantom_0000.png" in table.read_text()
    with zipfile.ZipFile(tmp_path / "slices.zip", "w") as archive:
        for file in slices:
            archive.write(file, f"export/{file.name}")
    unpacked = read_study([tmp_path / "slices.zip"], predictor)
    assert np.array_equal(unpacked.maps, several.maps) and unpacked.names == several.names
    with zipfile.ZipFile(tmp_path / "dicom.zip", "w") as archive:
        for file in (scans / "DICOM/0000").iterdir():
            archive.write(file, f"patient/series/{file.name}")
    packed = read_study([tmp_path / "dicom.zip"], predictor)
    loose = read_study(sorted((scans / "DICOM/0000").iterdir()), predictor)
    assert np.array_equal(packed.maps, loose.maps) and packed.volume
    assert (packed.name, loose.name) == ("dicom", "dicom_series")


def test_what_is_dropped_is_used_or_refused_by_name(predictor, phantom, scans, tmp_path):
    slices, masks = (sorted((phantom / name).iterdir()) for name in ("Test-Image", "Test-Mask"))
    scan = scans / "COVID-19-20/volume-covid19-A-0000_ct.nii.gz"
    (tmp_path / "other").mkdir()
    twin = shutil.copy(slices[1], tmp_path / "other" / slices[0].name)
    large = tmp_path / "large.png"
    Image.open(masks[0]).resize((70, 80), Image.Resampling.NEAREST).save(large)
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with zipfile.ZipFile(tmp_path / "crc.zip", "w") as archive:
        archive.write(slices[0], "a.png")
    content = bytearray((tmp_path / "crc.zip").read_bytes())
    content[200] ^= 255
    (tmp_path / "crc.zip").write_bytes(content)
    (tmp_path / "cut.zip").write_bytes(content[:300])
    for paths, truths, says in (
        ([], [], "^no file"),
        ([ROOT / "README.md"], [], "^README.md: no slice and no scan"),
        (list((scans / "UESTC/image").iterdir()), [], "scans"),
        ([slices[0], Path(twin)], [], "two files named"),
        ([tmp_path / "empty.zip"], [], "^empty.zip: no file in it"),
        ([tmp_path / "crc.zip"], [], "^crc.zip: can't be unpacked"),
        ([tmp_path / "cut.zip"], [], "^cut.zip: can't be unpacked"),
        (slices[:1], [tmp_path / "empty.zip"], "^empty.zip: no file in it"),
        (slices[:1], [large], "^large.png: .*size"),
        (slices[:1], masks[:2], "2 masks of the slice"),
        ([scan], masks[:1], "not the mask of a scan"),
        ([scan], sorted((scans / "UESTC/label").iterdir())[:2], "2 masks of the scan"),
        (slices[:2], masks[1:3], "no mask"),
    ):
        with pytest.raises(InputError, match=says) as refused:
            read_study(paths, predictor, truths)
        assert "/tmp" not in str(refused.value)
    both = read_study([scan, slices[0]], predictor)
    assert both.volume and "slices beside the scans, such as phantom_0000.png" in both.notes[0]
    assert "notes.txt left out" in read_study([slices[0], written(tmp_path / "notes.txt")], predictor).notes[0]


def test_slices_of_one_name_in_two_folders(predictor, phantom, tmp_path):
    slices, masks = (sorted((phantom / name).iterdir())[:2] for name in ("Test-Image", "Test-Mask"))
    for kind, files in (("slices", slices), ("masks", masks)):
        with zipfile.ZipFile(tmp_path / f"{kind}.zip", "w") as archive:
            for number, file in enumerate(files):
                archive.write(file, f"p{number}/1.png")
    study = read_study([tmp_path / "slices.zip"], predictor, [tmp_path / "masks.zip"])
    assert study.names == ["p0/1.png", "p1/1.png"]
    assert all(
        np.array_equal(np.asarray(Image.open(file)) > 0, truth) for file, truth in zip(masks, study.truths, strict=True)
    )
    packed = write_files(study, Look(), tmp_path / "files")[0]
    assert zipfile.ZipFile(packed).namelist() == ["p0/1.png", "p1/1.png"]


def written(path):
    path.write_text("x")
    return path


def test_layers_and_the_burden(study):
    plain = draw(study, 3, Look(layer="none"))
    assert plain.shape[2] == 3 and min(plain.shape[:2]) >= 512 and (plain[..., 0] == plain[..., 2]).all()
    assert np.array_equal(
        draw(study, 3, Look(layer="right and wrong")), draw(study, 3, Look(layer="right and wrong", outline=False))
    )
    study.maps[3][10:20, 10:20] = 200
    pictures = [draw(study, 3, Look(layer=layer)) for layer in LAYERS]
    pictures += [draw(study, 3, Look(outline=False)), draw(study, 3, Look(window="bone"))]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    curve = draw_burden(study, 3, 0.5)
    assert [slice_at(column, 4) for column in (0, 159, 160, 639, 700)] == [0, 0, 1, 3, 3]
    assert curve.shape == (160, 640, 3)


def test_without_gradio_the_error_says_how_to_install_it(tmp_path):
    code = "import sys; sys.modules['gradio'] = None; import demo; from utils.cli.parser import run; run(demo.main)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: gradio is missing; pip install gradio\n"


@pytest.fixture
def page():
    pytest.importorskip("gradio", reason="gradio is an extra")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "demo.py", "--port", port, "--no-tta", "--device", "cpu"]
    server = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 1400})
            page.set_default_timeout(60_000)
            page.goto(re.search(r"http://127\.0\.0\.1:\d+", line)[0], wait_until="domcontentloaded")
            page.wait_for_selector("#find")
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait()


def told(page, says):
    """What the page tells of the study, once it has ``says``."""
    page.wait_for_function("says => document.querySelector('#about').innerText.includes(says)", arg=says)
    return page.inner_text("#about")


def test_the_page_in_a_browser(page, scans, tmp_path):
    scan = scans / "COVID-19-20/volume-covid19-A-0001_ct.nii.gz"
    page.wait_for_timeout(1000)
    page.locator("#files input[type=file]").set_input_files(scan)
    page.wait_for_timeout(500)
    page.click("#find")
    first = told(page, "reliability")
    shown = int(re.search(r"slice (\d+):", first)[1])
    assert "volume-covid19-A-0001" in first and re.search(r"\d m?L in \d+ lesions", first)
    page.keyboard.press("Escape")
    page.locator("#about").click()
    page.keyboard.press("ArrowDown" if shown > 1 else "ArrowUp")
    told(page, f"slice {shown - 1 if shown > 1 else 2}:")
    before = page.inner_text("#about").partition(" lesions")[0]
    page.locator("#threshold input[type=number]").fill("0.06")
    page.locator("#threshold input[type=number]").press("Enter")
    page.wait_for_function(
        "before => document.querySelector('#about').innerText.split(' lesions')[0] != before", arg=before
    )
    page.get_by_label("uncertainty").click()
    page.click("#save")
    with page.expect_download() as download:
        page.locator("#saved a").first.click()
    download.value.save_as(tmp_path / "mask.nii.gz")
    mask, original = (sitk.ReadImage(str(path)) for path in (tmp_path / "mask.nii.gz", scan))
    assert mask.GetSize() == original.GetSize() and sitk.GetArrayFromImage(mask).any()

    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(Path(scan).read_bytes()[:500])
    page.get_by_label("Clear").first.click()
    told(page, "Drop a file")  # the result of the scan is gone with it
    page.locator("#files input[type=file]").set_input_files(broken)
    page.wait_for_timeout(500)
    page.click("#find")
    page.get_by_text("broken.nii.gz: not a readable volume").first.wait_for()
    assert "Drop a file" in page.inner_text("#about")


def test_a_truth_is_not_kept_for_other_files(page, phantom):
    slices, masks = (sorted((phantom / name).iterdir()) for name in ("Test-Image", "Test-Mask"))
    page.wait_for_timeout(1000)
    page.locator("#files input[type=file]").set_input_files(slices[0])
    page.wait_for_timeout(2000)  # until the page has cleared what was of other files
    page.get_by_text("true lesions, if known").click()
    page.locator("#truths input[type=file]").set_input_files(masks[0])
    page.wait_for_timeout(2000)
    page.click("#find")
    assert f"with {masks[0].name}" in told(page, "Dice")
    page.get_by_label("right and wrong").wait_for()
    page.get_by_label("Clear").first.click()
    page.locator("#files input[type=file]").set_input_files(slices[1])
    page.wait_for_timeout(2000)
    page.click("#find")
    assert "Dice" not in told(page, slices[1].name)


def test_files_are_deleted_when_the_program_ends_and_a_port_in_use_is_named(tmp_path):
    pytest.importorskip("gradio", reason="gradio is an extra")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        command = [sys.executable, "demo.py", "--device", "cpu", "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.returncode == 2 and done.stderr.splitlines()[-1] == (
            f"error: --port {port}: is in use; give another one, or leave it out"
        )
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    assert "page" in server.stdout.readline() and any(tmp_path.glob("cares_unet_*/examples"))
    server.terminate()
    assert server.wait(timeout=60) == 0 and not any(tmp_path.glob("cares_unet_*"))
