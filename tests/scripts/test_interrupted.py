"""Scripts that are interrupted go on where they were, and damaged records are named."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, TINY, contents, refused

from utils.output.folder import ResultFolder


@pytest.fixture
def model(phantom, call, tmp_path):
    run = tmp_path / "run"
    assert call("supervised_train", "--data_root", phantom, *TINY, "--save_folder", run)[0] == 0
    return run / "best.pth"


def interrupt(folder, rows):
    """Leave what a run leaves that was killed after some slices."""
    table = folder / "pseudo_labels.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[: rows + 1]))
    for line in lines[rows + 1 :]:
        (folder / line.split(",")[0]).unlink()
    summary = json.loads((folder / "summary.json").read_text())
    kept = ("inputs", "checkpoint", "sha256", "confidence", "truth_path", "tta", "within_lungs")
    kept += ("image_size", "align_grays", "align_frame", "align_turns")
    (folder / "summary.json").write_text(json.dumps({name: summary[name] for name in kept}))


def test_labels_go_on_after_an_interruption(phantom, call, tmp_path, model):
    masks = tmp_path / "masks"
    command = ["--data_root", phantom, "--model_path", model, "--Mask-dir", masks]
    assert call("fake_labels_generator", *command)[0] == 0
    whole = contents(masks)
    interrupt(masks, 4)
    first = sorted(masks.glob("*.png"))[0]
    os.utime(first, (0, 0))
    code, printed, _ = call("fake_labels_generator", *command)
    assert code == 0 and "goes on after an earlier run" in printed and "3 are done" in printed
    assert contents(masks) == whole and first.stat().st_mtime == 0
    interrupt(masks, 4)
    code, printed, _ = call("fake_labels_generator", *command, "--no-tta")  # other labels, so all of them
    assert code == 0 and "replacing those" in printed
    code, printed, _ = call("fake_labels_generator", *command)  # a finished run is replaced
    assert code == 0 and "replacing those" in printed and contents(masks) == whole


def test_labels_go_on_after_each_of_two_interruptions(phantom, call, tmp_path, model, monkeypatch):
    command = ["--data_root", phantom, "--model_path", model, "--Mask-dir", tmp_path / "masks"]
    add = ResultFolder.add_row

    def interrupted(after):
        def stop(self, row):
            if len(self.rows) == after:
                raise KeyboardInterrupt
            add(self, row)

        monkeypatch.setattr(ResultFolder, "add_row", stop)
        return call("fake_labels_generator", *command)

    assert interrupted(3)[0] == 130
    code, printed, _ = interrupted(5)
    assert code == 130 and "2 are done" in printed
    code, printed, _ = interrupted(99)
    assert code == 0 and "4 are done" in printed and len(list((tmp_path / "masks").glob("*.png"))) == 8


def test_damaged_records_of_a_preparation_are_named(scans, call, tmp_path):
    out = tmp_path / "out"
    flags = ["volumes", "--images", scans / "UESTC/image/*.nii.gz", "--out", out, "--keep", "all", "--workers", 1]
    assert call("data.prepare.__main__", *flags)[0] == 0
    whole = {name: (out / name).read_bytes() for name in ("prepare.json", "manifest.csv")}
    for damage in (b"", b"{", b"[]", b'{"options": 1}', b"\xff\xfe"):
        for name, text in (("prepare.json", damage), ("manifest.csv", damage + b"\nx,y\n1,2,3\n")):
            (out / name).write_bytes(text)
            code, _, error = call("data.prepare.__main__", *flags)
            assert code == 2 and error.count("\n") == 1 and error.startswith(f"error: {out / name}: damaged")
            (out / name).write_bytes(whole[name])


def test_damaged_summaries_are_told(phantom, call, tmp_path, model):
    command = ["--data_root", phantom, "--pretrained_model", model, "--img_save_folder", tmp_path / "out"]
    assert call("test", *command)[0] == 0
    for damage in (b"", b"{", b"[]", b"\xff"):
        (tmp_path / "out" / "summary.json").write_bytes(damage)
        refused(call, "test", *command, names=["did not write"], kept=tmp_path / "out")


def test_workers_end_with_a_preparation_that_is_killed(scans, tmp_path):
    command = [sys.executable, "-m", "data.prepare", "volumes", "--images", str(scans / "COVID-19-20/*_ct.nii.gz")]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out"), "--workers", "2"], cwd=ROOT)
    while not children(process.pid):
        assert process.poll() is None
        time.sleep(0.01)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(500):
        if not any(alive(worker) for worker in workers):
            return
        time.sleep(0.02)
    raise AssertionError("workers go on without their parent")


def children(pid):
    tasks = f"/proc/{pid}/task/{pid}/children"
    return [int(child) for child in open(tasks).read().split()] if os.path.exists(tasks) else []


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
