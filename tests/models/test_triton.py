"""The Triton kernels against the definition in float64: on a GPU if there is one, else in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes only with PyTorch for CUDA")

from models.carafe import plain
from models.carafe.triton import reassemble, reassemble_backward

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
BFLOAT16 = pytest.param(
    torch.bfloat16,
    5e-2,
    marks=pytest.mark.skipif(
        DEVICE == "cpu", reason="Triton's interpreter multiplies the bits of bfloat16 matrices as integers"
    ),
)


def draw(shape: tuple, kernel_size: int, scale: int, dtype=torch.double, memory_format=CONTIGUOUS) -> list[Tensor]:
    """Features, logits and the gradient of the result."""
    n, c, h, w = shape
    generator = torch.Generator().manual_seed(0)
    shapes = shape, (n, (kernel_size * scale) ** 2, h, w), (n, c, scale * h, scale * w)
    drawn = (torch.randn(shape, generator=generator, dtype=torch.double) for shape in shapes)
    return [tensor.to(DEVICE, dtype).to(memory_format=memory_format) for tensor in drawn]


def check(x: Tensor, logits: Tensor, grad: Tensor, scale: int, tolerance: float = 1e-10) -> Tensor:
    """Compare all results of the kernels with the definition; return the upsampled features."""
    exact = [tensor.double().requires_grad_() for tensor in (x, logits)]
    expected = plain.reassemble(*exact, scale=scale)
    expected = [expected.detach(), *torch.autograd.grad(expected, exact, grad.double())]
    expected_log_sum = exact[1].detach().unflatten(1, (-1, scale**2)).logsumexp(dim=1)

    out, log_sum = reassemble(x, logits, scale)
    grad_x, grad_logits = reassemble_backward(grad, x, logits, log_sum, scale)
    for ours, theirs in zip((out, grad_x, grad_logits), expected, strict=True):
        assert ours.dtype == x.dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)
    assert log_sum.dtype == (torch.double if x.dtype == torch.double else torch.float)
    torch.testing.assert_close(log_sum.double(), expected_log_sum, rtol=0, atol=min(tolerance, 1e-5))
    assert grad_x.stride() == torch.empty_like(x).stride()
    assert grad_logits.stride() == torch.empty_like(logits).stride()
    return out


@pytest.mark.parametrize("memory_format", [CONTIGUOUS, CHANNELS_LAST])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.double, 1e-10), (torch.float, 1e-5), (torch.half, 1e-2), BFLOAT16]
)
def test_types_and_memory_formats(dtype, tolerance, memory_format):
    out = check(*draw((1, 20, 5, 3), 5, 2, dtype, memory_format), 2, tolerance)
    assert out.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    ("shape", "kernel_size", "scale"),
    [
        ((2, 8, 1, 7), 5, 2),  # several images; tiles of one row
        ((1, 17, 4, 5), 3, 2),  # one channel in the second block
        ((1, 3, 3, 5), 5, 3),  # nine sub-pixels, padded to sixteen
        ((1, 3, 2, 1), 3, 3),
    ],
)
def test_sizes(shape, kernel_size, scale):
    check(*draw(shape, kernel_size, scale), scale)


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter would take minutes; on a GPU these are the real sizes")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float, 1e-4), (torch.half, 1e-2), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("shape", [(2, 512, 16, 16), (1, 64, 128, 128), (3, 96, 61, 43)])
def test_sizes_of_the_network(shape, dtype, tolerance):
    check(*draw(shape, 5, 2, dtype, CHANNELS_LAST), 2, tolerance)


def test_more_channels_than_a_block_of_half_precision_holds():
    check(*draw((1, 130, 2, 3), 5, 2, torch.half, CHANNELS_LAST), 2, tolerance=1e-2)


def test_any_strides():
    x, _, grad = draw((2, 8, 6, 10), 5, 2)
    _, logits, _ = draw((2, 8, 5, 6), 5, 2)
    # Every other column, an image on its side and, as of a sum, one gradient for all.
    check(x[..., ::2], logits.transpose(2, 3), grad[:1, :1, :1, :1].expand(2, 8, 12, 10), 2)
