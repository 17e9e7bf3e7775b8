"""benchmarks.gpu: every step writes its result; a step that fails or takes too long does not affect the others."""

import csv
import json
import time
import zipfile

import pytest
import torch

from benchmarks.gpu.process import OutOfTime, StepError, run_until
from benchmarks.gpu.steps import STEPS, TOY, Job, gpu_test_files

SCRIPT = "benchmarks.gpu.__main__"
ABSENT = ("SimpleITK", "monai", "segmentation_models_pytorch")  # on a GPU machine, perhaps


def test_tests_for_a_gpu_are_found():
    assert {"test_gpu.py", "test_triton.py", "test_state.py"} <= {file.name for file in gpu_test_files()}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """The command and its children run without the optional packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def rehearse(call, folder, *options):
    places = ["--save_folder", folder / "out", "--scratch", folder / "scratch"]
    code, out, error = call(SCRIPT, "--rehearse", *places, *options)
    return code, out + error, json.loads((folder / "out" / "gpu.json").read_text())


def test_a_failed_step_is_reported_and_the_next_one_run(call, tmp_path, bare):
    """Without the step that labels, there are no pseudo masks to train on."""
    code, printed, result = rehearse(call, tmp_path, "--steps", "supervised", "semi_supervised", "masks")
    out = tmp_path / "out"
    assert code == f"failed: semi_supervised; see {out / 'log.txt'}"
    steps = result["steps"]
    assert [(name, row["state"]) for name, row in steps.items()] == [
        ("supervised", "done"),
        ("semi_supervised", "failed"),
        ("masks", "done"),
    ]
    for report in (printed, (out / "report.md").read_text(), (out / "log.txt").read_text()):
        assert f"error: {tmp_path / 'scratch' / 'Pos-Mask'}" in report
    assert steps["supervised"]["found"]["epochs"] == 2 and steps["masks"]["found"] == {"masks of CARes-UNet": 2}
    assert len(list(csv.DictReader((out / "supervised.csv").open()))) == 2
    with zipfile.ZipFile(out / "masks.zip") as masks:
        masks_of_test_slices = [f"CARes-UNet/phantom_{index:04}.png" for index in range(2)]
        assert masks.namelist() == [*masks_of_test_slices, "CARes-UNet/summary.json"]
    assert {f.name for f in out.iterdir()} == {"gpu.json", "report.md", "log.txt", "supervised.csv", "masks.zip"}


@pytest.mark.long
def test_the_rehearsal(call, tmp_path, bare):
    code, _, result = rehearse(call, tmp_path, "--minutes", 60)
    assert code == 0 and list(result["steps"]) == list(STEPS)
    assert {row["state"] for row in result["steps"].values()} == {"done"}
    files = list((tmp_path / "out").iterdir())
    assert {"masks.zip", "supervised.csv", "semi_supervised.csv", "speed.json", "crossval.json"} <= {
        f.name for f in files
    }
    assert len(files) == 8 and all(f.stat().st_size for f in files)
    scored = json.loads((tmp_path / "out" / "crossval.json").read_text())
    assert {name: row["slices"] for name, row in scored.items()} == {"width_2": 6, "width_2_semi": 6}
    assert " passed" in result["steps"]["tests"]["found"]["result"]


def test_what_takes_too_long_is_stopped_with_what_it_started(tmp_path):
    child = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    parent = f"import subprocess, sys; print('begun'); subprocess.run([sys.executable, '-c', {child!r}])"
    started = time.monotonic()
    with pytest.raises(OutOfTime, match=r"stopped after \d+ s; give more --minutes"):
        run_until(started + 1, ["-c", parent], tmp_path / "log.txt")
    assert "begun" in (tmp_path / "log.txt").read_text()
    time.sleep(max(0.0, started + 4 - time.monotonic()))
    assert not (tmp_path / "late").exists()
    with pytest.raises(OutOfTime, match="no time"):
        run_until(started, ["-c", ""], tmp_path / "log.txt")


def test_a_failed_command_is_reported_by_its_last_line(tmp_path):
    with pytest.raises(StepError, match="-c failed: ValueError: no slices") as caught:
        run_until(time.monotonic() + 60, ["-c", "raise ValueError('no slices')"], tmp_path / "log.txt")
    assert not isinstance(caught.value, OutOfTime)
    assert "Traceback" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("step", ["labels", "semi_supervised", "masks"])
def test_a_step_says_what_it_needs(tmp_path, step):
    job = Job(tmp_path, tmp_path, tmp_path, TOY)
    with pytest.raises(StepError, match="needs the model of step supervised; run that step first"):
        STEPS[step].run(job)


def test_results_of_another_machine_are_kept(call, tmp_path):
    (tmp_path / "out").mkdir()
    earlier = {"machine": "another", "steps": {"tests": {}}}
    (tmp_path / "out" / "gpu.json").write_text(json.dumps(earlier))
    code, printed, result = rehearse(call, tmp_path, "--steps", "masks")
    assert code == 2 and "contains results of machine 'another'" in printed and result == earlier


@pytest.mark.parametrize("place", ["out", "scratch"])
def test_files_of_the_user_are_not_touched(call, tmp_path, place):
    (tmp_path / place / "supervised").mkdir(parents=True)
    (tmp_path / place / "supervised" / "best.pth").write_text("mine")
    places = ["--save_folder", tmp_path / "out", "--scratch", tmp_path / "scratch"]
    code, _, error = call(SCRIPT, "--rehearse", *places, "--steps", "supervised")
    assert code == 2 and "contains files that this command did not write; name another --" in error
    assert (tmp_path / place / "supervised" / "best.pth").read_text() == "mine"


@pytest.mark.parametrize(
    ("gpu", "options", "named"),
    [
        (False, [], "no CUDA GPU found; --rehearse"),
        (True, [], "--data_root is missing"),
        (True, ["--data_root", "nowhere"], "nowhere"),
        (False, ["--rehearse", "--data_root", "any"], "leave one of them out"),
        (False, ["--rehearse", "--scratch", "runs/gpu_rehearsal"], "are the same folder"),
    ],
)
def test_a_wrong_call_ends_in_one_line(call, monkeypatch, gpu, options, named):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    code, _, error = call(SCRIPT, *options)
    assert code == 2 and named in error and error.count("\n") == 1
