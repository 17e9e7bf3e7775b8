"""The building blocks of CARes-UNet: conv-BN-ReLU, the blocks to choose from, and the stage."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

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


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, for the paper's ablation: ``(N, C, H, W) -> (N, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(channels, channels)
        self.conv2 = Conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.conv1(x))))


class ResidualBlock(PlainBlock):
    """Two 3x3 convolutions with an identity shortcut: ``(N, C, H, W) -> (N, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.conv1(x))).add_(x))


BLOCKS: dict[str, Callable[[int], nn.Module]] = {"residual": ResidualBlock, "plain": PlainBlock}


class Stage(nn.Sequential):
    """conv-BN-ReLU, then one of BLOCKS: one step of the encoder or decoder, or (stride 2) a downsampling."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, block: str = "residual") -> None:
        super().__init__(
            OrderedDict(
                conv=ConvBNReLU(in_channels, out_channels, stride=stride),
                residual=BLOCKS[block](out_channels),  # the name in checkpoints, whatever the block
            )
        )
