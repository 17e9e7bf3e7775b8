"""Networks exported to ONNX give the same probabilities, and the example the same masks."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, call_here, contents, refused
from PIL import Image

from models import build_model
from models.carafe.plain import reassemble, reassemble_to_export
from utils.inference.predictor import Predictor

SMALL = ROOT / "weights" / "small.pth"
onnx = pytest.importorskip("onnx", reason="onnx is an extra")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("scale", "size"), [(2, 5), (3, 3), (1, 7)])
def test_carafe_to_export(scale, size):
    x, logits = torch.randn(2, 3, 6, 4), torch.randn(2, (size * scale) ** 2, 6, 4)
    torch.testing.assert_close(reassemble_to_export(x, logits, scale=scale), reassemble(x, logits, scale=scale))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The small network of weights/, exported, and what the command printed."""
    path = tmp_path_factory.mktemp("export") / "out" / "m.onnx"
    code, printed, error = call_here("models.export", "--pretrained_model", SMALL, "--out", path)
    assert code == 0, error
    return path, printed


def test_any_number_and_size_by_standard_operators(exported):
    path, printed = exported
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""} and model.opset_import[0].version == 18
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["slices", "probabilities"]
    rows = [line.split() for line in printed.splitlines() if line[:1].isdecimal()]
    assert len(rows) == 3 and all(float(row[1]) < 1e-5 for row in rows)


def test_preprocessing_is_beside_it(exported):
    path, _ = exported
    told = json.loads(path.with_suffix(".json").read_text())
    known = Predictor(SMALL).preprocessing
    assert told["classes"] == ["background", "lesion"]
    assert told["preprocessing"].items() >= known.to_dict().items()


def test_the_example_finds_the_same(exported, phantom, tmp_path):
    path, _ = exported
    predictor = Predictor(SMALL, align_frame=False)
    lesions = 0
    for file in sorted((phantom / "Test-Image").iterdir()):
        Image.open(file).resize((190, 170)).save(tmp_path / "slice.png")
        mask = tmp_path / "mask.png"
        command = [sys.executable, ROOT / "examples" / "onnx_predict.py", path, tmp_path / "slice.png", mask]
        subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
        found, expected = np.asarray(Image.open(mask)) > 0, predictor.predict(tmp_path / "slice.png").mask
        lesions += np.count_nonzero(expected)
        assert np.count_nonzero(found != expected) <= 1  # at the threshold, rounding decides
    assert lesions > 100


def test_a_wrong_name_is_refused(call, tmp_path):
    code, _, error = call("models.export", "--pretrained_model", SMALL, "--out", tmp_path / "m.pt")
    assert code == 2 and "ends with .onnx" in error


def test_files_of_others_are_kept(call, tmp_path):
    (tmp_path / "m.json").write_text('{"mine": 1}')
    refused(call, "models.export", "--model", SMALL, "--out", tmp_path / "m.onnx", names=["m.json"], kept=tmp_path)


def test_the_example_refuses_in_a_line(exported, phantom, tmp_path):
    slice_ = tmp_path / "slice.png"
    shutil.copy(next((phantom / "Test-Image").iterdir()), slice_)
    Image.fromarray(np.asarray(Image.open(slice_)).astype(np.uint16) * 257).save(tmp_path / "16.png")
    (tmp_path / "text.png").write_text("text")
    before = contents(tmp_path)
    for network, image, mask, says in (
        (exported[0], "16.png", "mask.png", "not 8 bits"),
        (exported[0], "text.png", "mask.png", "text.png"),
        (exported[0], "none.png", "mask.png", "none.png"),
        (exported[0], "slice.png", "slice.png", "another file"),
        (exported[0], "slice.png", "mask.jpg", "ends with .png"),
        ("none.onnx", "slice.png", "mask.png", "none.json"),
    ):
        command = [sys.executable, ROOT / "examples" / "onnx_predict.py", network, image, mask]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert says in done.stderr
    assert contents(tmp_path) == before


def test_a_missing_package_is_named(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, _, error = call("models.export", "--pretrained_model", SMALL, "--out", tmp_path / "m.onnx")
    assert code == 2 and "onnxscript is missing; pip install" in error and not list(tmp_path.iterdir())


@pytest.mark.long
def test_bilinear_upsampling_is_exported_too(tmp_path):
    from models.export import compare, export

    model = build_model("cares_unet", base_channels=2, upsample="bilinear").eval()
    export(model, tmp_path / "b.onnx")
    assert compare(model, tmp_path / "b.onnx", [(1, 33, 50)])[0].difference < 1e-5
