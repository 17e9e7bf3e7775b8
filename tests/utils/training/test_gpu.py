"""Tests for a GPU: precisions, kernels, random numbers, loader processes. Some of them also run on a CPU."""

import copy
import csv
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import CONFIG, DEVICE
from PIL import Image

from data.augmentation import Augmentation
from data.datasets import UnlabeledSlices
from data.preprocess.preprocessing import Preprocessing
from models import build_model
from models.carafe import operator
from models.upsampling import CARAFE
from utils.inference.maps import predict
from utils.training.state import Training

# In fp16 the first scale may be too large for the first step, which is then left out, as torch warns.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")]
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA GPU")
PRECISIONS = [pytest.param("off", marks=needs_gpu), "bf16", pytest.param("fp16", marks=needs_gpu)]


def new_network(device=DEVICE):
    torch.manual_seed(0)
    return build_model("cares_unet", base_channels=8).to(device)


def new_training(device=DEVICE, **options):
    return Training(new_network(device), replace(CONFIG, **options), steps_per_epoch=3)


def draw_batch(device=DEVICE):
    images = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    return images.to(device), (images[:, 0] > 0.7).long().to(device)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_step_follows_float32_on_the_cpu(precision):
    """The loss, and the direction of the step: the gradient, as SGD uses it."""
    options = {"optimizer_type": "sgd", "lr": 1e-3, "clip_grad": 0.0}
    before = torch.cat([p.detach().flatten() for p in new_network(CPU).parameters()])
    losses, steps = [], []
    for training, batch in (
        (new_training(CPU, **options), draw_batch(CPU)),
        (new_training(amp=precision, **options), draw_batch()),
    ):
        if precision == "fp16":  # the usual one may overflow, and the step be left out
            training.scaler = torch.amp.GradScaler(training.device.type, init_scale=256.0)
        losses.append(training.step(*batch).item())
        steps.append(torch.cat([p.detach().cpu().flatten() for p in training.model.parameters()]) - before)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.cosine_similarity(*steps, dim=0) > 0.98
    assert steps[1].norm().item() == pytest.approx(steps[0].norm().item(), rel=0.1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_predictions_follow_float32_on_the_cpu(precision, tmp_path):
    """Slices of odd sizes, the last batch smaller than the others."""
    for index, size in enumerate([(50, 41), (33, 71), (64, 64)]):
        pixels = np.random.default_rng(index).integers(0, 256, size, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    slices = UnlabeledSlices(sorted(tmp_path.iterdir()), Preprocessing(image_size=52))
    model = new_network(CPU)
    for _ in range(3):  # running statistics other than the initial ones
        model(draw_batch(CPU)[0])
    model.eval()
    expected = list(predict(copy.deepcopy(model), slices, device=CPU, tta=True))
    found = list(predict(model, slices, device=DEVICE, batchsize=2, precision=precision, tta=True))
    for (ours, agreement), (theirs, other) in zip(found, expected, strict=True):
        assert abs(agreement.dice - other.dice) < 0.05
        assert ours.shape == theirs.shape and ours.dtype == torch.float32 and ours.device == CPU
        assert (ours - theirs).abs().max() < 0.02


@needs_gpu
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_carafe_runs_its_kernels(kind):
    """No fallback, and the same bits each time: the gradients need no atomics."""
    if torch.cuda.get_device_capability() < operator.OLDEST_GPU:
        pytest.skip("older GPUs run the plain implementation")
    torch.manual_seed(0)
    carafe = CARAFE(32, 24).to(DEVICE)
    x = torch.randn(2, 32, 17, 13, device=DEVICE, requires_grad=True)
    with warnings.catch_warnings(), torch.autocast("cuda", kind, enabled=kind != torch.float32):
        warnings.simplefilter("error")
        out = carafe(x)
        features, logits = (torch.randn(2, c, 17, 13, device=DEVICE, dtype=kind, requires_grad=True) for c in (24, 100))
        results = []
        for _ in range(2):
            upsampled = operator.reassemble(features, logits, scale=2)
            grads = torch.autograd.grad(upsampled, (features, logits), torch.ones_like(upsampled))
            results.append([upsampled, *grads])
    assert out.dtype == kind and all(map(torch.equal, *results))
    assert operator._triton_works == {"reassemble": True, "reassemble_backward": True}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_saved_state_goes_on_with_the_same_numbers(precision, tmp_path):
    """Weights, averages, moments, scale and random numbers, from a file that is read to the CPU."""
    first = new_training(amp=precision)
    for _ in range(3):
        first.step(*Augmentation()(*draw_batch()))
    torch.save(first.state_dict(), tmp_path / "state.pth")
    images, masks = Augmentation()(*draw_batch())
    loss = first.step(images, masks).item()

    second = new_training(amp=precision)
    state = torch.load(tmp_path / "state.pth", map_location="cpu", weights_only=True)
    second.load_state_dict(state, lr=CONFIG.lr, weight_decay=0.0)
    again = Augmentation()(*draw_batch())
    assert torch.equal(again[0], images) and torch.equal(again[1], masks)
    assert second.step(*again).item() == pytest.approx(loss, rel=1e-3)
    assert second.steps == 4 and second.lr == first.lr


@needs_gpu
@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ([], ""),
        (["--amp", "off"], "float32"),
        (["--amp", "fp16"], "fp16"),
        (["--num_workers", 2, "--cache_gb", 0], ""),
        (["--accumulate", 2], ""),
        pytest.param(["--compile"], "", marks=pytest.mark.long),
    ],
    ids=["default", "float32", "fp16", "workers", "accumulate", "compile"],
)
def test_a_run_and_its_resumption(flags, precision, phantom, tmp_path, call):
    """Its memory is pinned on a GPU, whether workers read the slices or not."""
    tiny = ["--base_channels", 4, "--image_size", 48, "--val_fraction", 0.2]
    code, out, error = call(
        "supervised_train", "--data_root", phantom, *tiny, *flags, "--epoch", 4, "--save_folder", tmp_path
    )
    assert code == 0, error
    assert torch.cuda.get_device_name() in out and precision in out and "GB of the GPU's at most" in out
    code, _, error = call("supervised_train", "--resume", tmp_path / "last.pth", "--epoch", 6)
    assert code == 0, error
    losses = [float(row["train_loss"]) for row in csv.DictReader((tmp_path / "log.csv").open())]
    assert len(losses) == 6 and all(map(math.isfinite, losses)) and losses[-1] < losses[0]
