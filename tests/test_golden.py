"""Our network, CARAFE and Ranger give the answers of the published ones on fixed numbers."""

import importlib.util

import numpy as np
import pytest
import torch

from data.preprocess.preprocessing import Preprocessing
from models.upsampling import CARAFE
from utils.checkpoint import load_model
from utils.training.ranger import Ranger

RANGER_RUNS = {
    "default": {},
    "decay": {"lr": 3e-3, "weight_decay": 0.02},
    "k4": {"lr": 2e-3, "k": 4, "alpha": 0.8, "betas": (0.9, 0.99)},
}


@pytest.fixture(scope="module")
def released(golden, tmp_path_factory):
    """The network that ``load_model`` makes of a file in the form of the released checkpoint."""
    spec = importlib.util.spec_from_file_location("fill", golden / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    path = tmp_path_factory.mktemp("released") / "released.pth"
    torch.save(fill.released_state_dict(), path)
    model, preprocessing = load_model(path)
    assert preprocessing == Preprocessing()
    return model


def relative_to_spread(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return np.abs(ours.numpy() - theirs).max() / theirs.std()


@torch.inference_mode()
def test_logits_of_the_released_network(golden, released):
    answers = np.load(golden / "forward.npz")
    logits = released(torch.from_numpy(answers["x_64x96"]))
    assert relative_to_spread(logits, answers["logits_64x96"]) < 1e-3


@torch.inference_mode()
def test_mask_of_the_released_network(golden, released):
    answers = np.load(golden / "forward.npz")
    logits = released(torch.from_numpy(answers["x_256"]).float())
    assert relative_to_spread(logits[..., ::8, ::8], answers["logits_256_every8"]) < 1e-3
    # The published network ends in a sigmoid, which rounds to 1 for logits above 17: such ties went to class 0, and in
    # their neighbourhood the last bit decides. Logits as large come from the random weights here, not from training.
    sigmoid = logits[0].sigmoid()
    wrong = (sigmoid.argmax(dim=0).numpy() == 1) != answers["mask_256"]
    tied_logits = logits[0].diff(dim=0)[0].abs() < 1e-4 * logits.std()  # as far apart as float32 on two machines
    nearly_tied = ((sigmoid.amin(dim=0) > 1 - 1e-6) | tied_logits).numpy()
    assert wrong.sum() <= 3 and not wrong[~nearly_tied].any()
    assert np.array_equal((logits[0].argmax(dim=0).numpy() == 1)[~nearly_tied], answers["mask_256"][~nearly_tied])


def test_carafe_and_its_gradients(golden):
    answers = {name: torch.from_numpy(array) for name, array in np.load(golden / "carafe.npz").items()}
    carafe = CARAFE(12, 7).double()
    names = {name: name.replace("compressor", "down") for name in carafe.state_dict()}
    carafe.load_state_dict({name: answers[f"param_{theirs}"] for name, theirs in names.items()})
    x = answers["x"].requires_grad_()
    y = carafe(x)
    y.backward(answers["upstream"])
    assert (y - answers["y"]).abs().max() < 1e-9
    assert (x.grad - answers["grad_x"]).abs().max() < 1e-9
    for name, parameter in carafe.named_parameters():
        assert (parameter.grad - answers[f"grad_{names[name]}"]).abs().max() < 1e-9, name


@pytest.mark.parametrize("name", RANGER_RUNS)
def test_ranger_trajectory(golden, name):
    answers = np.load(golden / "ranger.npz")
    parameters = [torch.nn.Parameter(torch.from_numpy(answers[f"{name}_p{i}_init"])) for i in range(3)]
    optimizer = Ranger(parameters, **RANGER_RUNS[name])
    for step in range(25):
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.from_numpy(answers[f"{name}_p{i}_grads"][step])
        optimizer.step()
        for i, parameter in enumerate(parameters):
            difference = parameter.detach().numpy() - answers[f"{name}_p{i}_traj"][step]
            assert np.abs(difference).max() < 1e-5, f"step {step}, parameter {i}"
