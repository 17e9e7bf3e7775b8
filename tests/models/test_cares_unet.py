from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import build_model
from models.carafe import cpu, operator, plain, reassemble
from models.upsampling import CARAFE


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 50), (70, 17)])
def test_any_size_is_kept(size):
    model = build_model("cares_unet", in_channels=3, num_classes=4, base_channels=2)
    assert model(torch.rand(2, 3, *size)).shape == (2, 4, *size)


def test_padding_does_not_move_the_image():
    model = build_model("cares_unet", base_channels=2).eval()
    image = torch.rand(1, 1, 64, 64)
    image[..., 48:] = image[..., 47:48]  # what padding a width of 48 to 64 would repeat, were it needed
    with torch.inference_mode():
        padded = model(image[..., :40])
        by_hand = model(F.pad(image[..., :40], (0, 8, 0, 0), mode="replicate"))[..., :40]
    assert torch.equal(padded, by_hand)


@pytest.mark.parametrize("block", ["residual", "plain"])
@pytest.mark.parametrize("upsample", ["carafe", "bilinear"])
def test_ablations_change_what_they_name(block, upsample):
    torch.manual_seed(0)
    model = build_model("cares_unet", base_channels=2, block=block, upsample=upsample).eval()
    kinds = {type(module).__name__ for module in model.modules()}
    assert ("CARAFE" in kinds) == (upsample == "carafe") and ("BilinearUpsampling" in kinds) == (upsample == "bilinear")
    nn.init.zeros_(model.encoder1.residual.bn2.weight)  # nothing but the shortcut is left of this block
    x = torch.rand(1, 1, 32, 32)
    assert model.encoder1(x).any().item() == (block == "residual")
    assert model(torch.rand(2, 1, 33, 50)).shape == (2, 2, 33, 50)


def test_published_size():
    parameters = sum(p.numel() for p in build_model("cares_unet").parameters())
    assert round(parameters / 1e6, 1) == 54.4  # 56.5 M published, of which 2.1 M are on no path


@pytest.mark.parametrize(("kernel_size", "scale"), [(5, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("strip_bytes", [1, 200, 1 << 20])  # a row, two rows, all rows at a time
def test_reassembly_against_its_definition(kernel_size, scale, strip_bytes, monkeypatch):
    monkeypatch.setattr(cpu, "STRIP_BYTES", strip_bytes * kernel_size**2)
    x = torch.randn(2, 3, 5, 4, dtype=torch.double, requires_grad=True)
    logits = torch.randn(2, kernel_size**2 * scale**2, 5, 4, dtype=torch.double, requires_grad=True)
    ours, definition = reassemble(x, logits, scale=scale), plain.reassemble(x, logits, scale=scale)
    assert torch.allclose(ours, definition)
    grad = torch.randn_like(ours)
    gradients = (torch.autograd.grad(out, (x, logits), grad) for out in (ours, definition))
    assert all(torch.allclose(found, expected) for found, expected in zip(*gradients, strict=True))
    corner = [tensor[:1, :, :3].detach().requires_grad_() for tensor in (x, logits)]  # two calls for each number
    assert torch.autograd.gradcheck(partial(reassemble, scale=scale), corner)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_reassembly_as_an_operation(layout):
    """Schema, shapes and strides without data, gradients: ``torch.compile`` relies on them."""
    x = torch.randn(2, 3, 5, 4).contiguous(memory_format=layout).requires_grad_()
    logits = torch.randn(2, 100, 5, 4).contiguous(memory_format=layout).requires_grad_()
    torch.library.opcheck(torch.ops.cares_unet.reassemble.default, (x, logits, 2))


def test_compiled_in_one_graph():
    torch.manual_seed(0)
    model = build_model("cares_unet", base_channels=2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    image = torch.rand(2, 1, 32, 32)
    answers = []
    for network in (model, compiled):
        model.zero_grad()
        logits = network(image)
        logits.square().mean().backward()
        answers.append([logits.detach(), *(p.grad for p in model.parameters())])
    for eager, fast in zip(*answers, strict=True):
        assert torch.allclose(eager, fast, rtol=1e-4, atol=1e-6)


def test_carafe_keeps_no_unfolded_copy():
    carafe, kept = CARAFE(32, 16), {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    x = torch.rand(1, 32, 24, 24, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        carafe(x)
    # Unfolding would keep 25 x 32 channels; the largest tensor of ours holds the 100 logits of a pixel.
    assert max(kept.values()) < 101 * 24 * 24


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_carafe_under_autocast(precision):
    carafe, x = CARAFE(8, 4), torch.rand(1, 8, 10, 12)
    with torch.autocast("cpu", precision):
        half = carafe(x)
    assert half.dtype == precision
    half.sum().backward()
    exact = CARAFE(8, 4)
    exact.load_state_dict(carafe.state_dict())
    exact(x).sum().backward()
    assert torch.allclose(half.float(), carafe(x), atol=0.02)
    for ours, theirs in zip(carafe.parameters(), exact.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=0.02 * theirs.grad.abs().max() + 0.02)


def test_kernels_that_do_not_fit_are_refused():
    x = torch.rand(2, 3, 8, 6)
    for shape in [(3, 100, 8, 6), (2, 99, 8, 6), (2, 100, 16, 6), (2, 64, 8, 6)]:
        with pytest.raises(ValueError, match="do not fit features"):
            reassemble(x, torch.rand(shape), scale=2)


def test_without_triton_the_cpu_code_runs_with_a_warning(monkeypatch):
    monkeypatch.setattr(operator, "_triton_works", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    calls = []

    def broken(name):
        calls.append(name)
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(operator, "import_module", broken)
    x, logits = torch.rand(1, 4, 6, 5), torch.rand(1, 100, 6, 5)
    with pytest.warns(UserWarning, match="without its Triton kernels.*C compiler"):
        first = operator._on_gpu(x, logits, 2)[0]
    assert torch.equal(first, operator._on_gpu(x, logits, 2)[0]) and len(calls) == 1
    assert torch.allclose(first, plain.reassemble(x, logits, scale=2), atol=1e-5)


def test_the_backward_kernel_is_not_used_after_the_plain_forward_pass(monkeypatch):
    """It needs the log-sum-exp over the taps, which that pass does not make."""
    pytest.importorskip("triton", reason="Triton comes only with PyTorch for CUDA")
    monkeypatch.setattr(operator, "_triton_works", {"reassemble": False})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    x, logits, grad = torch.rand(1, 4, 6, 5), torch.rand(1, 100, 6, 5), torch.rand(1, 4, 12, 10)
    log_sum = torch.full((1, 4, 6, 5), torch.nan)
    found = operator._backward_on_gpu(grad, x, logits, log_sum, 2)
    expected = torch.autograd.grad(
        plain.reassemble(x.requires_grad_(), logits.requires_grad_(), scale=2), (x, logits), grad
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_error_of_a_kernel_that_has_worked_is_raised(monkeypatch):
    pytest.importorskip("triton", reason="Triton comes only with PyTorch for CUDA")
    monkeypatch.setattr(operator, "_triton_works", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    x, logits = torch.rand(1, 4, 6, 5), torch.rand(1, 100, 6, 5)
    assert torch.allclose(operator._on_gpu(x, logits, 2)[0], plain.reassemble(x, logits, scale=2), atol=1e-5)
    monkeypatch.setattr(operator, "import_module", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        operator._on_gpu(x, logits, 2)
