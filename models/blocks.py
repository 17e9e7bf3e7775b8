"""The two building blocks of CARes-UNet: conv-BN-ReLU and the residual block."""

from collections import OrderedDict

from torch import Tensor, nn


class ConvBNReLU(nn.Sequential):
    """3x3 convolution, batch norm, ReLU: ``(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))``."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            OrderedDict(
                # Batch norm subtracts any bias again, so the convolution has none.
                conv=nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
                bn=nn.BatchNorm2d(out_channels),
                relu=nn.ReLU(inplace=True),
            )
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with an identity shortcut: ``(N, C, H, W) -> (N, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(channels, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.bn2(self.conv2(self.conv1(x))))


class ResidualStage(nn.Sequential):
    """conv-BN-ReLU, then a residual block; one step of the encoder or decoder, or (stride 2) a downsampling."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            OrderedDict(
                conv=ConvBNReLU(in_channels, out_channels, stride=stride),
                residual=ResidualBlock(out_channels),
            )
        )
