import copy
import os
import pickle
import re

import pytest
import torch
from torch import nn

from data.errors import InputError
from data.preprocess.preprocessing import Preprocessing
from models import build_model
from utils.checkpoint import load_model, save_checkpoint
from utils.weights import save_half


def content(model):
    return {
        "model": model.config,
        "preprocessing": {"image_size": 96},
        "weights": model.state_dict(),
        "epoch": 3,
        "best_score": 0.5,
        "run": {},
    }


@pytest.fixture
def model():
    model = build_model("cares_unet", in_channels=1, num_classes=3, base_channels=2)
    for _ in range(3):
        model(torch.rand(2, 1, 32, 32))  # running statistics other than the initial ones
    return model.eval()


def test_a_model_is_rebuilt_from_its_file_alone(tmp_path, model):
    save_checkpoint(tmp_path / "model.pth", content(model))
    rebuilt, preprocessing = load_model(tmp_path / "model.pth")
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(rebuilt(x), model(x))
    assert preprocessing == Preprocessing(image_size=96) and not rebuilt.training
    assert os.listdir(tmp_path) == ["model.pth"]


def test_a_bare_state_dict_is_enough(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    rebuilt, preprocessing = load_model(tmp_path / "bare.pth")
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(rebuilt(x), model(x)) and not rebuilt.knows_turns
    assert preprocessing == Preprocessing()


def test_half_precision_predicts_the_same_and_knows_no_path(tmp_path, model):
    options = {"data_augmentation": True, "data_root": "/home/someone/data", "lr": 0.1}
    run = {"script": "supervised_train.py", "options": options, "training": ["1"], "validation": []}
    save_checkpoint(tmp_path / "model.pth", content(model) | {"run": run})
    save_half(tmp_path / "model.pth", tmp_path / "half.pth")
    rebuilt, preprocessing = load_model(tmp_path / "half.pth")
    x = torch.rand(1, 1, 32, 32)
    assert (rebuilt(x) - model(x)).abs().max() < 0.01 * model(x).std() and rebuilt.knows_turns
    assert {weight.dtype for weight in rebuilt.parameters()} == {torch.float32}
    assert preprocessing == Preprocessing(image_size=96)
    assert b"someone" not in (tmp_path / "half.pth").read_bytes()
    assert (tmp_path / "half.pth").stat().st_size < 0.7 * (tmp_path / "model.pth").stat().st_size


def test_a_failed_save_leaves_the_old_file(tmp_path, model):
    path = tmp_path / "model.pth"
    save_checkpoint(path, content(model))
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"weights": lambda: None})
    assert path.read_bytes() == before


class Payload:
    """Pickled code that would create a file when unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickled_code_does_not_run(tmp_path, dump):
    dump({"weights": Payload(tmp_path / "victim")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth: .* pickled code is never run"):
        load_model(tmp_path / "evil.pth")
    assert not (tmp_path / "victim").exists()


def test_unusable_files(tmp_path, model):
    path = tmp_path / "model.pth"
    save_checkpoint(path, content(model))
    whole = path.read_bytes()
    mixed = content(model)
    mixed["model"] = {**mixed["model"], "base_channels": 4}
    cases = {
        "missing.pth": (lambda p: None, "can't be opened"),
        "folder.pth": (lambda p: p.mkdir(), "can't be opened"),
        "empty.pth": (lambda p: p.touch(), "damaged"),
        "truncated.pth": (lambda p: p.write_bytes(whole[: len(whole) // 2]), "damaged"),
        "text.pth": (lambda p: p.write_text("hello, I am no checkpoint"), "damaged"),
        "tensor.pth": (lambda p: torch.save(torch.zeros(3), p), "contains a Tensor"),
        "foreign.pth": (lambda p: torch.save(nn.Linear(2, 2).state_dict(), p), "not a CARes-UNet checkpoint"),
        "part.pth": (lambda p: torch.save({**model.state_dict(), "x": torch.zeros(1)}, p), "do not fit"),
        "mixed.pth": (lambda p: save_checkpoint(p, mixed), "do not fit"),
    }
    for name, (make, message) in cases.items():
        make(tmp_path / name)
        with pytest.raises(InputError, match=f"{re.escape(name)}: .*{message}") as caught:
            load_model(tmp_path / name)
        assert "\n" not in str(caught.value)


def wrapped(model):
    weights = model.state_dict()
    return {
        "data_parallel": {f"module.{name}": value for name, value in weights.items()},
        "compiled": {f"_orig_mod.{name}": value for name, value in weights.items()},
        "both": {f"module._orig_mod.{name}": value for name, value in weights.items()},
        "state_dict": {"state_dict": weights, "epoch": 3, "optimizer": {"lr": 0.1}},
        "model": {"model": weights},
        "lightning": {"state_dict": {f"model.{name}": value for name, value in weights.items()}, "callbacks": {}},
        "profiled": {**weights, "total_ops": torch.zeros(1), "encoder1.total_params": torch.zeros(1)},
        "half": {name: w.half() if w.is_floating_point() else w for name, w in weights.items()},
    }


@pytest.mark.parametrize(
    "kind", ["data_parallel", "compiled", "both", "state_dict", "model", "lightning", "profiled", "half"]
)
def test_state_dicts_as_others_save_them(tmp_path, model, kind):
    torch.save(wrapped(model)[kind], tmp_path / "other.pth")
    x = torch.rand(1, 1, 32, 32)
    found = load_model(tmp_path / "other.pth")[0](x)
    assert torch.equal(found, model(x)) if kind != "half" else torch.allclose(found, model(x), atol=0.05)


def test_weights_that_can_not_be_are_refused(tmp_path, model):
    weights = model.state_dict()
    variance = next(name for name in weights if name.endswith("running_var"))
    kinds = {
        "a variance is negative": {**weights, variance: -weights[variance]},
        "its weights are all 0": {name: torch.zeros_like(weight) for name, weight in weights.items()},
        "its weights are sparse": {name: weight.to_sparse() for name, weight in weights.items()},
    }
    for says, changed in kinds.items():
        torch.save(changed, tmp_path / "m.pth")
        with pytest.raises(InputError, match=says):
            load_model(tmp_path / "m.pth")
    save_checkpoint(tmp_path / "m.pth", content(model) | {"weights": dict.fromkeys(weights, "text")})
    with pytest.raises(InputError, match="its weights are no tensors"):
        load_model(tmp_path / "m.pth")
    for start, says in (
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html>", "a web page"),
    ):
        (tmp_path / "m.pth").write_bytes(start)
        with pytest.raises(InputError, match=f"{says}, not the file itself"):
            load_model(tmp_path / "m.pth")


def test_networks_of_three_channels_are_told(tmp_path):
    torch.save(build_model("cares_unet", in_channels=3, base_channels=2).state_dict(), tmp_path / "rgb.pth")
    with pytest.raises(InputError, match=r"rgb\.pth: takes images of 3 channels, slices have one"):
        load_model(tmp_path / "rgb.pth")


def test_weights_that_are_not_finite(tmp_path, model):
    for value in (float("nan"), float("inf")):
        broken = content(model)
        broken["weights"] = {**model.state_dict(), "head.weight": torch.full_like(model.head.weight, value)}
        save_checkpoint(tmp_path / "nan.pth", broken)
        with pytest.raises(InputError, match=r"nan\.pth: its weights are NaN or infinite \(head\.weight\)"):
            load_model(tmp_path / "nan.pth")


def test_every_flipped_bit_is_found(tmp_path, model):
    path = tmp_path / "model.pth"
    save_checkpoint(path, content(model))
    whole = path.read_bytes()
    for place in torch.linspace(200, len(whole) - 2000, 24).long().tolist():
        if not any(whole[place : place + 1]) and not any(whole[place - 8 : place + 8]):
            continue  # between the files of the archive
        flipped = bytearray(whole)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        with pytest.raises(InputError, match="damaged"):
            load_model(path)


VALUES = (None, -1, 0, 10**9, 1.5, float("nan"), True, "x", "", [], [1, "a"], {}, {"a": 1}, torch.zeros(2))


def mutants(node, path=()):
    """All paths to values of nested dicts, but for tensors."""
    for key, value in node.items():
        yield (*path, key)
        if isinstance(value, dict) and key != "weights":
            yield from mutants(value, (*path, key))


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
def test_mutants_are_read_or_refused_in_one_line(tmp_path, model, every):
    """Every entry missing, or of another type or range, before anything of that size is made; one in ``every``."""
    run = {"script": "supervised_train.py", "options": {"data_augmentation": True}, "training": ["1"], "validation": []}
    typical = [[0.0] * 16] * 16
    whole = content(model) | {"run": run}
    whole["preprocessing"] |= {"align_grays": True, "typical_slice": typical, "least_likeness": 0.5}
    path, refused = tmp_path / "mutant.pth", 0
    for index, place in enumerate([*mutants(whole), ("weights", "head.weight")]):
        for value in (*VALUES, KeyError)[index % every :: every]:
            mutant = copy.deepcopy(whole)
            node = mutant
            for key in place[:-1]:
                node = node[key]
            if value is KeyError:
                del node[place[-1]]
            else:
                node[place[-1]] = value
            save_checkpoint(path, mutant)
            try:
                load_model(path)
            except InputError as error:
                refused += 1
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error) and len(str(error)) < 600
    assert refused > 150 / every
