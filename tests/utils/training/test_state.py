"""The training step: options that save memory or time change only rounding, and no step waits for the GPU."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import CONFIG, DEVICE
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data.augmentation import Augmentation
from data.errors import InputError
from models import build_model
from utils.device import choose_precision
from utils.training.losses import ce_dice
from utils.training.state import Training

pytestmark = pytest.mark.gpu


@pytest.fixture
def batch():
    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32, device=DEVICE)
    return images, (images[:, 0] > 0.7).long()


@pytest.fixture
def start():
    """A training of a small network, from the same weights whenever it is called."""
    torch.manual_seed(0)
    model = build_model("cares_unet", base_channels=4).to(DEVICE)

    def training(**options):
        return Training(copy.deepcopy(model), replace(CONFIG, **options), steps_per_epoch=3)

    return training


def difference(ours, theirs):
    """Largest difference of two networks' weights and statistics, over the largest weight."""
    pairs = [(a, theirs.state_dict()[name]) for name, a in ours.state_dict().items()]
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).item() for a, b in pairs)


@pytest.mark.parametrize("dice_over", ["batch", "slice"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("pseudo_margin", [None, 0.5])
def test_true_and_pseudo_masks_have_their_margins(start, batch, accumulate, dice_over, pseudo_margin):
    images, masks = batch
    options = {} if pseudo_margin is None else {"pseudo_margin": pseudo_margin}
    training = start(lesion_margin=2.0, accumulate=accumulate, dice_over=dice_over, **options)
    parts = [slice(None)] if accumulate == 1 else [slice(0, None, 2), slice(1, None, 2)]
    pseudo = pseudo_margin or 0.0
    margins = torch.tensor([2.0, 2.0, pseudo, pseudo], device=images.device).view(4, 1, 1, 1)
    network = copy.deepcopy(training.model)
    expected = [ce_dice(network(images[p]), masks[p], margin=margins[p], dice_over=dice_over).item() for p in parts]
    loss = training.step(images, masks, (margins == 2.0).float()).item()
    assert loss == pytest.approx(sum(expected) / accumulate, rel=1e-5)


@pytest.mark.parametrize("pseudo_weight", [1.0, 0.5])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_pseudo_masks_count_as_much_as_asked_however_many(start, batch, pseudo_weight, accumulate):
    """As many pseudo-labeled slices again change nothing."""
    images, masks = batch
    labeled = torch.tensor([1.0, 1.0, 0.0, 0.0], device=images.device).view(4, 1, 1, 1)
    options = {"pseudo_weight": pseudo_weight, "optimizer_type": "sgd", "lr": 1.0, "dice_over": "slice"}
    models = []
    for order in ([0, 1, 2, 3], [0, 1, 2, 3, 2, 3]):
        training = start(accumulate=accumulate, **options)
        training.model.apply(lambda part: setattr(part, "momentum", 0.0) if hasattr(part, "momentum") else None)
        training.forward = training.model.eval()  # batch norm would see other statistics
        loss = training.step(images[order], masks[order], labeled[order]).item()
        models.append((loss, copy.deepcopy(training.model)))
    (loss, ours), (repeated, theirs) = models
    assert loss == pytest.approx(repeated, rel=1e-5) and difference(ours, theirs) < 1e-4
    share = pseudo_weight / (1 + pseudo_weight)
    network = start().model.eval()
    margins = start(**options).lesion_margin * labeled
    of_halves = [
        ce_dice(network(images[half]), masks[half], margin=margins[half], dice_over="slice").item()
        for half in (slice(0, 2), slice(2, 4))
    ]
    assert loss == pytest.approx((1 - share) * of_halves[0] + share * of_halves[1], rel=1e-4)


def test_averaged_weights_of_a_trained_network_are_its_own_at_first(start, batch):
    model = start().model
    training = Training(copy.deepcopy(model), CONFIG, steps_per_epoch=3, trained=True)
    training.step(*batch)
    halfway = [w.lerp(new, 0.1) for w, new in zip(model.parameters(), training.model.parameters(), strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(training.average.parameters(), halfway, strict=True))


def test_a_batch_in_parts_gives_the_same_gradient(start, batch):
    """The parts are every second slice; if these are equal, batch norm sees the same statistics in each."""
    images, masks = (tensor[[0, 0, 1, 1]] for tensor in batch)
    whole, parts = (start(accumulate=n, optimizer_type="sgd", lr=1.0) for n in (1, 2))
    assert whole.step(images, masks).item() == pytest.approx(parts.step(images, masks).item(), rel=1e-4)
    for ours, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_averaged_weights(start, batch):
    """With memory .9, warmed up: 0 at the first step, then 2/11, 3/12."""
    training, seen = start(), []
    for _ in range(3):
        training.step(*batch)
        seen.append({name: tensor.clone() for name, tensor in training.model.state_dict().items()})
    for name, found in training.average.state_dict().items():
        first, second, third = (state[name] for state in seen)
        if found.is_floating_point():
            expected = 3 / 12 * (2 / 11 * first + 9 / 11 * second) + 9 / 12 * third
            assert torch.allclose(found, expected, atol=1e-6), name
        else:
            assert torch.equal(found, third), name


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_step(start, batch):
    plain, compiled = start(), start(compile=True)
    for _ in range(3):
        assert compiled.step(*batch).item() == pytest.approx(plain.step(*batch).item(), rel=1e-3)
    assert difference(compiled.average, plain.average) < 0.01


class Waits(TorchDispatchMode):
    """Records the operations that make the host wait for a GPU.

    host_numbers: tensors that stay on the CPU, so that what is computed of them alone costs no waiting.
    """

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")

    def __init__(self, host_numbers):
        super().__init__()
        self.on_host, self.seen = list(host_numbers), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if tensors and all(any(t.data_ptr() == number.data_ptr() for number in self.on_host) for t in tensors):
            self.on_host += [result] if isinstance(result, torch.Tensor) else []
            return result
        by_mask = func.overloadpacket == torch.ops.aten.index and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or func.overloadpacket.__name__ in self.WAITING:
            self.seen.append(str(func))
        return result


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_step_never_waits_for_the_gpu(start, batch, amp):
    training = start(amp=amp)
    training.step(*batch)
    host_numbers = [state["step"] for state in training.optimizer.state.values()]  # kept on the CPU
    with Waits(host_numbers) as waits:
        images, masks = Augmentation()(*batch)
        training.step(images, masks)
    assert not waits.seen
    with Waits([]) as waits:
        training.step(*batch).item()
    assert "aten._local_scalar_dense.default" in waits.seen


class Doubles(TorchDispatchMode):
    """Notes the operations that make float64 tensors, which a Mac's GPU lacks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(isinstance(t, torch.Tensor) and t.dtype == torch.float64 for t in tree_leaves(result)):
            self.seen.append(str(func))
        return result


def test_a_step_and_a_prediction_need_no_float64(start, batch):
    training = start(lesion_margin=1.0)
    with Doubles() as doubles:
        training.step(*Augmentation()(*batch))
        training.average_logits(batch[0])
    assert not doubles.seen
    with doubles:
        torch.zeros(1, dtype=torch.float64)
    assert doubles.seen


@pytest.mark.parametrize(
    ("amp", "expected"), [("auto", "off"), ("off", "off"), ("bf16", "--amp bf16"), ("fp16", "--amp fp16")]
)
def test_a_macs_gpu_computes_in_float32(amp, expected):
    if expected == "off":
        assert choose_precision(amp, torch.device("mps")) == "off"
    else:
        with pytest.raises(InputError, match=expected):
            choose_precision(amp, torch.device("mps"))
