"""benchmarks.speed compares equal computations: the plain reference and our code."""

import argparse
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import CONFIG

from benchmarks.measure import Timing, interleaved, peak_memory, ratio
from benchmarks.reference import LoopRanger, ReferenceUNet, UnfoldedCARAFE
from benchmarks.speed.estimate import estimate_minutes
from models import build_model
from models.upsampling import CARAFE
from utils.training.losses import ce_dice
from utils.training.methods import SEMI_SUPERVISED
from utils.training.ranger import Ranger
from utils.training.state import Training

CPU = torch.device("cpu")


def networks(base_channels=4):
    torch.manual_seed(0)
    ours, reference = build_model("cares_unet", base_channels=base_channels), ReferenceUNet(base_channels)
    missing, unexpected = reference.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all(".unused." in name for name in missing)
    return ours, reference


def test_reference_carafe_and_its_gradients():
    torch.manual_seed(0)
    ours, reference = CARAFE(12, 7).double(), UnfoldedCARAFE(12, 7).double()
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, 12, 6, 5, dtype=torch.double)
    for module in (ours, reference):
        module(x).square().sum().backward()
    assert torch.allclose(ours(x), reference(x))
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad)


def test_every_way_to_predict_agrees_with_the_reference():
    ours, reference = networks()
    images = torch.rand(2, 1, 64, 64)
    for _ in range(3):  # running statistics other than the initial ones
        ours(images)
    reference.load_state_dict(ours.state_dict(), strict=False)
    expected = reference.eval()(images)
    assert torch.allclose(ours.eval()(images).sigmoid(), expected, atol=1e-5)
    assert torch.allclose(ours(images).sigmoid(), expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(ours(images).float().sigmoid(), expected, atol=0.02)


def test_loop_ranger_takes_the_steps_of_ranger():
    ours, _ = networks()
    theirs, _ = networks()
    optimizers = Ranger(ours.parameters(), lr=0.01), LoopRanger(theirs.parameters(), lr=0.01)
    for _ in range(14):  # unrectified, rectified, and two synchronisations
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"amp": "bf16"}])
def test_a_short_training_follows_the_reference(options):
    """The reference ends in a sigmoid; without it, its losses are those of our step, in other order of operations."""
    ours, reference = networks()
    training = Training(ours, replace(CONFIG, clip_grad=0.0, epoch=100, **options), steps_per_epoch=100)
    optimizer = LoopRanger(reference.parameters(), lr=CONFIG.lr)
    images = torch.rand(4, 1, 32, 32)
    masks = (images[:, 0] > 0.7).long()
    ours_lost, theirs_lost = [], []
    for _ in range(12):
        ours_lost.append(training.step(images, masks).item())
        loss = ce_dice(reference(images).logit(), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        theirs_lost.append(loss.item())
    assert ours_lost[-1] < 0.97 * ours_lost[0]
    assert ours_lost == pytest.approx(theirs_lost, rel=0.03 if "amp" in options else 2e-3)


def test_rounds_are_interleaved_and_ratios_taken_round_by_round():
    done = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}
    timings = interleaved(works, rounds=3, device=CPU, warm_up=1)
    assert done == list("ab") * 4 and len(timings["a"].seconds) == 3
    assert ratio(Timing([2.0, 9.0, 4.0]), Timing([1.0, 3.0, 1.0])) == (3.0, 2.0, 4.0)
    assert Timing([5.0, 1.0, 2.0, 3.0, 100.0]).median == 3 and Timing([5.0, 1.0, 2.0, 3.0, 100.0]).spread == (2, 5)


def hold(megabytes):
    return lambda: torch.ones(megabytes, 250_000)


def test_peak_memory_of_a_known_amount():
    found = peak_memory(hold, 200, device=CPU)
    assert found is None or 0.19 < found < 0.3


TINY = ["--base_channels", 4, "--image_size", 32, "--rounds", 1, "--device", "cpu", "--save_folder"]


def test_a_part_alone(call, tmp_path):
    code, out, err = call("benchmarks.speed.__main__", "--parts", "optimizer", *TINY, tmp_path)
    assert code == 0, err
    capability = torch.backends.cpu.get_cpu_capability()
    result, table = json.loads((tmp_path / "speed.json").read_text()), (tmp_path / "speed.md").read_text()
    assert [row["work"] for row in result["rows"]] == ["optimizer step, Ranger"]
    assert out.index("about 1 min") < out.index("optimizer step")
    assert all(capability in place for place in (out, result["machine"], table))


def test_the_methods(call, tmp_path, phantom, monkeypatch):
    monkeypatch.setattr("benchmarks.speed.methods.phantom_slices", lambda: SimpleNamespace(name=str(phantom)))
    monkeypatch.setattr("benchmarks.speed.methods.peak_memory", lambda *given, **named: given[0](*given[1:])() or 1.0)
    code, _, err = call("benchmarks.speed.__main__", "--parts", "methods", *TINY, tmp_path)
    assert code == 0, err
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["work"].rpartition(" ")[2] for row in rows] == list(SEMI_SUPERVISED)
    assert all(row["ours_s"] > 0 and row["reference_s"] == rows[0]["reference_s"] for row in rows)


def test_an_estimate_grows_with_what_is_asked_for():
    def minutes(*parts, rounds=2, batchsize=2, forward=1.0):
        return estimate_minutes(argparse.Namespace(parts=parts, rounds=rounds, batchsize=batchsize), forward)

    least = minutes("training")
    assert min(minutes("training", rounds=3), minutes("training", batchsize=4), minutes("training", forward=2)) > least
    one, other, both = minutes("loading"), minutes("test"), minutes("loading", "test")
    assert max(one, other) < both < one + other - 0.1  # the slices are drawn once


@pytest.mark.long
def test_the_command(call, tmp_path):
    code, _, err = call("benchmarks.speed.__main__", *TINY, tmp_path)
    assert code == 0, err
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    table = (tmp_path / "speed.md").read_text()
    assert len(rows) > 12 and all(f"| {row['work']} |" in table for row in rows)
