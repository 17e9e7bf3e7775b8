"""The 3x3 convolution and its weight gradient by taps."""

import pytest
import torch
import torch.nn.functional as F

from models import build_model, convolution
from models.convolution import Conv3x3, weight_gradient


@pytest.fixture
def by_taps(monkeypatch):
    """As on a CPU with AVX2 but no AVX-512, and also for small layers."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", 1)
    monkeypatch.setattr(convolution, "LEAST_CHANNELS", 8)


@pytest.mark.parametrize("strip_bytes", [1, 2000, convolution.STRIP_BYTES])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (9, 4)])
def test_weight_gradient_against_autograd(monkeypatch, size, stride, strip_bytes):
    monkeypatch.setattr(convolution, "STRIP_BYTES", strip_bytes)
    x = torch.randn(2, 9, *size, dtype=torch.float64)
    weight = torch.randn(6, 9, 3, 3, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(x, weight, stride=stride, padding=1)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, weight, grad)[0]
    torch.testing.assert_close(weight_gradient(grad, x, stride), expected)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_all_gradients_against_the_plain_convolution(by_taps, stride, bias):
    ours = Conv3x3(16, 8, stride=stride, bias=bias).to(memory_format=torch.channels_last)
    plain = torch.nn.Conv2d(16, 8, 3, stride=stride, padding=1, bias=bias)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 16, 9, 12).contiguous(memory_format=torch.channels_last).requires_grad_()
    out, expected = ours(x), plain(x)
    torch.testing.assert_close(out, expected)
    node = out.grad_fn.next_functions[0][0] if bias else out.grad_fn
    assert ("ByTaps" in node.name()) == (stride <= 2)
    grad = torch.randn_like(expected)
    for got, right in zip(
        torch.autograd.grad(out, (x, *ours.parameters()), grad),
        torch.autograd.grad(expected, (x, *plain.parameters()), grad),
        strict=True,
    ):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-4)


def test_only_where_it_gains(by_taps, monkeypatch):
    last = {"memory_format": torch.channels_last}
    conv, x = Conv3x3(16, 8), torch.randn(2, 16, 9, 12)
    assert "ByTaps" not in conv(x).grad_fn.name()  # in the default layout nothing is slow
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x.contiguous(**last)).dtype == torch.bfloat16
    assert "ByTaps" not in Conv3x3(1, 8)(torch.randn(2, 1, 9, 12).contiguous(**last)).grad_fn.name()
    assert "ByTaps" in conv(x.contiguous(**last)).grad_fn.name()
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", 2 * 9 * 12 * 16 * 8 + 1)
    assert "ByTaps" not in conv(x.contiguous(**last)).grad_fn.name()
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", 2 * 9 * 12 * 16 * 8)
    assert "ByTaps" in conv(x.contiguous(**last)).grad_fn.name()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert "ByTaps" not in conv(x.contiguous(**last)).grad_fn.name()


def test_gradients_of_the_network(by_taps, monkeypatch):
    torch.manual_seed(0)
    model = build_model("cares_unet", base_channels=8)
    images = torch.randn(2, 1, 48, 40)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(images).square().mean().backward()
        return [parameter.grad for parameter in model.parameters()]

    ours = gradients()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for got, right in zip(ours, gradients(), strict=True):
        assert (got - right).norm() <= 1e-4 * right.norm() + 1e-7
