"""The two building blocks of CARes-UNet: conv-BN-ReLU and the residual block."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from models.convolution import Conv3x3


class ConvBNReLU(nn.Sequential):
    """3x3 convolution, batch norm, ReLU: ``(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))``."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            OrderedDict(
                # Batch norm subtracts any bias again, so the convolution has none.
                conv=Conv3x3(in_channels, out_channels, stride=stride),
                bn=nn.BatchNorm2d(out_channels),
                relu=nn.ReLU(inplace=True),
            )
        )

    def fold(self) -> None:
        self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with an identity shortcut: ``(N, C, H, W) -> (N, C, H, W)``.

    Without the ``shortcut`` it is the plain block of the paper's ablation.
    """

    def __init__(self, channels: int, *, shortcut: bool = True) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.conv1 = ConvBNReLU(channels, channels)
        self.conv2 = Conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        change = self.bn2(self.conv2(self.conv1(x)))
        return self.relu(change.add_(x) if self.shortcut else change)

    def fold(self) -> None:
        self.conv2, self.bn2 = fuse_conv_bn_eval(self.conv2, self.bn2), nn.Identity()


class ResidualStage(nn.Sequential):
    """conv-BN-ReLU, then a residual block; one step of the encoder or decoder, or (stride 2) a downsampling.

    While it is ``checkpointed``, training keeps its input alone and computes the rest again for the backward pass.
    """

    checkpointed = False

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, shortcut: bool = True) -> None:
        super().__init__(
            OrderedDict(
                conv=ConvBNReLU(in_channels, out_channels, stride=stride),
                residual=ResidualBlock(out_channels, shortcut=shortcut),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        if not (self.checkpointed and torch.is_grad_enabled()):
            return super().forward(x)
        contexts = lambda: (nullcontext(), self._statistics_at_rest())  # noqa: E731
        return checkpoint(super().forward, x, use_reentrant=False, context_fn=contexts)

    @contextmanager
    def _statistics_at_rest(self) -> Iterator[None]:
        """The second forward pass of a step must not move the running statistics once more."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, batches) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, batches


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Put the batch norms of a network in eval mode into the convolutions before them; it can't train afterwards."""
    for module in model.modules():
        if isinstance(module, ConvBNReLU | ResidualBlock):
            module.fold()
    return model
