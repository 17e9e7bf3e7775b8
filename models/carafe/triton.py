"""CARAFE's reassembly on a GPU: Triton kernels that include the softmax over the taps, forward and backward.

Strip by strip, as in ``models.carafe.cpu``, a GPU would mostly wait for its memory and for the next launch.
Here the features are read about once and the softmax is never stored. The sums over
taps and over channels are matrix products, as in attention: a tile's output pixels (the queries) draw on one small
window of source pixels (the keys), and the matrix of weights between them, zero where a source pixel is none of an
output pixel's taps, times the window's features is the result. Most of that matrix is zeros, but tensor cores get
through them sooner than memory delivers the rest.

As in flash attention, the forward pass keeps the log-sum-exp over the taps, from which the backward pass recomputes
the weights. Both gradients are gathered, without atomics: the same input gives the same bits. Any strides will do.
A NaN or an infinity among the features or gradients spreads to whole tiles, a few pixels further than by definition.

An output pixel is written (h, w, s): sub-pixel s, counted row by row, of the source pixel (h, w) that it is a part of.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = tl.constexpr(4)  # source pixels a side of a tile: at S = 2 and K = 5, 64 output pixels on 64 source pixels


@triton.jit
def _tile(shape, blocks):
    """Image, top, left and block of channels of this program's tile.

    The blocks of one tile come one after the other, so all but the first find its logits in the cache.
    """
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    rows, columns = tl.cdiv(shape[1], TILE), tl.cdiv(shape[2], TILE)
    return tile // columns // rows, tile // columns % rows * TILE, tile % columns * TILE, block


@triton.jit
def _pixels(index, top, left, WIDTH: tl.constexpr):
    """Rows and columns of pixels counted row by row, WIDTH to a row, from (top, left) on."""
    return top + index // WIDTH, left + index % WIDTH


@triton.jit
def _inside(y, x, height, width):
    return (y >= 0) & (y < height) & (x >= 0) & (x < width)


@triton.jit
def _exist(h, w, s, shape, SCALE: tl.constexpr):
    """Mask of output pixels: tiles cross the border, and sub-pixels are padded to a power of 2."""
    return _inside(h, w, shape[1], shape[2]) & (s < SCALE * SCALE)


@triton.jit
def _at(image, n, channel, y, x):
    """Pointers into an image, (pointer, four strides); 64 bits wide, as offsets may pass 2**31."""
    n, channel, y, x = tl.cast(n, tl.int64), tl.cast(channel, tl.int64), tl.cast(y, tl.int64), tl.cast(x, tl.int64)
    return image[0] + (n * image[1] + channel * image[2] + y * image[3] + x * image[4])


@triton.jit
def _sources(image, n, channel, y, x, shape):
    """Pointers and mask (source pixels, channels)."""
    mask = _inside(y, x, shape[1], shape[2])[:, None] & (channel < shape[0])[None, :]
    return _at(image, n, channel[None, :], y[:, None], x[:, None]), mask


@triton.jit
def _outputs(image, n, channel, h, w, s, shape, SCALE: tl.constexpr):
    """Pointers and mask (output pixels, channels)."""
    mask = _exist(h, w, s, shape, SCALE)[:, None] & (channel < shape[0])[None, :]
    return _at(image, n, channel[None, :], (h * SCALE + s // SCALE)[:, None], (w * SCALE + s % SCALE)[:, None]), mask


@triton.jit
def _taps(image, n, y, x, h, w, s, shape, KERNEL: tl.constexpr, SCALE: tl.constexpr):
    """Pointers and mask (source pixels, output pixels) of logits: those whose source is a tap, in the image or not."""
    top, left = h - KERNEL // 2, w - KERNEL // 2
    mask = _inside(y[:, None] - top[None, :], x[:, None] - left[None, :], KERNEL, KERNEL)
    # The channel of tap (y - top, x - left) as a sum: only an addition is left to do for each pair of pixels.
    of_source, of_output = (y * KERNEL + x) * SCALE * SCALE, s - (top * KERNEL + left) * SCALE * SCALE
    pointers = _at(image, n, of_output, h, w)[None, :] + (tl.cast(of_source, tl.int64) * image[2])[:, None]
    return pointers, mask & _exist(h, w, s, shape, SCALE)[None, :]


@triton.jit
def _weights(logits, log_sum, n, y, x, h, w, s, shape, KERNEL: tl.constexpr, SCALE: tl.constexpr):
    """Softmax (source pixels, output pixels), by the forward pass's log-sum-exp; zero where there is no tap."""
    log_sums = tl.load(_at(log_sum, n, s, h, w), mask=_exist(h, w, s, shape, SCALE), other=0)
    pointers, mask = _taps(logits, n, y, x, h, w, s, shape, KERNEL, SCALE)
    return tl.exp(tl.load(pointers, mask=mask, other=float("-inf")).to(log_sums.dtype) - log_sums[None, :])


@triton.jit
def _forward(
    x, logits, out, log_sum, shape,
    KERNEL: tl.constexpr, SCALE: tl.constexpr, SUBPIXELS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile and block of channels: weights (output pixels, window) @ features (window, channels)."""
    PRECISION: tl.constexpr = log_sum[0].dtype.element_ty
    n, top, left, block = _tile(shape, tl.cdiv(shape[0], BLOCK))
    output, channel = tl.arange(0, TILE * TILE * SUBPIXELS), block * BLOCK + tl.arange(0, BLOCK)
    h, w = _pixels(output // SUBPIXELS, top, left, TILE)
    s = output % SUBPIXELS
    source_y, source_x = _pixels(tl.arange(0, WINDOW * WINDOW), top - KERNEL // 2, left - KERNEL // 2, WINDOW)

    exist = _exist(h, w, s, shape, SCALE)
    pointers, mask = _taps(logits, n, source_y, source_x, h, w, s, shape, KERNEL, SCALE)
    no_tap = tl.where(exist, float("-inf"), 0)  # 0 so that an output pixel without taps has a finite sum too
    scores = tl.load(pointers, mask=mask, other=no_tap[None, :]).to(PRECISION)
    largest = tl.max(scores, axis=0)
    weights = tl.exp(scores - largest[None, :])
    total = tl.sum(weights, axis=0)
    weights *= (1 / total)[None, :]
    if block == 0:
        tl.store(_at(log_sum, n, s, h, w), largest + tl.log(total), mask=exist)

    pointers, mask = _sources(x, n, channel, source_y, source_x, shape)
    features = tl.load(pointers, mask=mask, other=0)
    result = tl.dot(tl.trans(weights).to(features.dtype), features, input_precision="tf32x3", out_dtype=PRECISION)
    pointers, mask = _outputs(out, n, channel, h, w, s, shape, SCALE)
    tl.store(pointers, result, mask=mask)


@triton.jit
def _backward_x(
    grad, logits, log_sum, grad_x, shape,
    KERNEL: tl.constexpr, SCALE: tl.constexpr, SUBPIXELS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile and block of channels: gradients (channels, output pixels) @ weights (output pixels, tile).

    The output pixels that draw on the tile are those of the window that the tile's own output pixels draw on.
    """
    PRECISION: tl.constexpr = log_sum[0].dtype.element_ty
    n, top, left, block = _tile(shape, tl.cdiv(shape[0], BLOCK))
    channel = block * BLOCK + tl.arange(0, BLOCK)
    y, x = _pixels(tl.arange(0, TILE * TILE), top, left, TILE)
    result = tl.zeros((BLOCK, TILE * TILE), PRECISION)
    # As many output pixels at a time as registers hold: of 16-bit numbers, all of them if S = 2 and K = 5.
    STRIP: tl.constexpr = 256 if grad[0].dtype.element_ty.primitive_bitwidth == 16 else 64
    for first in range(0, WINDOW * WINDOW * SUBPIXELS, STRIP):
        output = first + tl.arange(0, STRIP)
        h, w = _pixels(output // SUBPIXELS, top - KERNEL // 2, left - KERNEL // 2, WINDOW)
        s = output % SUBPIXELS
        pointers, mask = _outputs(grad, n, channel, h, w, s, shape, SCALE)
        grads = tl.load(pointers, mask=mask, other=0)
        weights = _weights(logits, log_sum, n, y, x, h, w, s, shape, KERNEL, SCALE).to(grads.dtype)
        result = tl.dot(tl.trans(grads), tl.trans(weights), result, input_precision="tf32x3", out_dtype=PRECISION)
    pointers, mask = _sources(grad_x, n, channel, y, x, shape)
    tl.store(pointers, tl.trans(result), mask=mask)


@triton.jit
def _backward_logits(
    grad, x, logits, log_sum, grad_logits, shape,
    KERNEL: tl.constexpr, SCALE: tl.constexpr, SUBPIXELS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile: gradients (output pixels, channels) @ features (channels, window), then the softmax's own gradient."""
    PRECISION: tl.constexpr = log_sum[0].dtype.element_ty
    n, top, left, _ = _tile(shape, 1)
    output = tl.arange(0, TILE * TILE * SUBPIXELS)
    h, w = _pixels(output // SUBPIXELS, top, left, TILE)
    s = output % SUBPIXELS
    source_y, source_x = _pixels(tl.arange(0, WINDOW * WINDOW), top - KERNEL // 2, left - KERNEL // 2, WINDOW)

    products = tl.zeros((TILE * TILE * SUBPIXELS, WINDOW * WINDOW), PRECISION)
    for first in range(0, shape[0], BLOCK):
        channel = first + tl.arange(0, BLOCK)
        pointers, mask = _outputs(grad, n, channel, h, w, s, shape, SCALE)
        grads = tl.load(pointers, mask=mask, other=0)
        pointers, mask = _sources(x, n, channel, source_y, source_x, shape)
        features = tl.load(pointers, mask=mask, other=0)
        products = tl.dot(grads, tl.trans(features), products, input_precision="tf32x3", out_dtype=PRECISION)
    grad_weights = tl.trans(products)
    weights = _weights(logits, log_sum, n, source_y, source_x, h, w, s, shape, KERNEL, SCALE)
    mean = tl.sum(weights * grad_weights, axis=0)
    pointers, mask = _taps(grad_logits, n, source_y, source_x, h, w, s, shape, KERNEL, SCALE)
    tl.store(pointers, weights * (grad_weights - mean[None, :]), mask=mask)


def reassemble(x: Tensor, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Upsample features with one kernel for each output pixel, the softmax of its logits over the taps.

    x: ``(N, C, H, W)``. logits: ``(N, K*K*S*S, H, W)``, the taps row by row over the K x K window (zeros outside the
    image) and for each of them the sub-pixels row by row. Returns ``(N, C, S*H, S*W)``, of x's type and in
    channels_last if x is, else contiguous; and for the backward pass the log-sum-exp over the taps
    ``(N, S*S, H, W)``, channels_last, float32 or, if x is double, float64.
    """
    n, channels, height, width = x.shape
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    shape = n, channels, scale * height, scale * width
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
    precision = torch.promote_types(x.dtype, torch.float32)
    shape = n, scale**2, height, width
    log_sum = torch.empty(shape, dtype=precision, device=x.device, memory_format=torch.channels_last)
    _launch(_forward, (x, logits, out, log_sum), x, logits, scale)
    return out, log_sum


def reassemble_backward(grad: Tensor, x: Tensor, logits: Tensor, log_sum: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Gradients of x and of logits, of their types and layouts, from the gradient of ``reassemble``'s result."""
    grad_x, grad_logits = torch.empty_like(x), torch.empty_like(logits)
    _launch(_backward_x, (grad, logits, log_sum, grad_x), x, logits, scale)
    _launch(_backward_logits, (grad, x, logits, log_sum, grad_logits), x, logits, scale, split=False)
    return grad_x, grad_logits


def _launch(
    kernel: triton.JITFunction, images: tuple[Tensor, ...], x: Tensor, logits: Tensor, scale: int, split: bool = True
) -> None:
    """Run a program for each tile and, if ``split``, for each block of channels."""
    n, channels, height, width = x.shape
    # By the bytes of a number, as many channels as registers hold; a matrix product takes no fewer than 16.
    most = {2: 128 if split else 64, 4: 32, 8: 16}[x.element_size()]
    block = max(16, min(most, triton.next_power_of_2(channels)))
    tiles = n * triton.cdiv(height, TILE.value) * triton.cdiv(width, TILE.value)
    kernel_size = math.isqrt(logits.shape[1] // scale**2)
    subpixels = triton.next_power_of_2(scale**2)
    with torch.cuda.device_of(x):
        kernel[(tiles * triton.cdiv(channels, block) if split else tiles,)](
            # Steps along a row are constants, so that the compiler sees which addresses are adjacent.
            *((image, *image.stride()[:3], tl.constexpr(image.stride(3))) for image in images),
            (tl.constexpr(channels), height, width),
            KERNEL=kernel_size,
            SCALE=scale,
            SUBPIXELS=subpixels,
            WINDOW=triton.next_power_of_2(TILE.value + kernel_size - 1),
            BLOCK=block,
            num_warps=max(4, subpixels),
        )
