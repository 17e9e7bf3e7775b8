"""The other networks of the paper's tables, and stronger ones, from the libraries that keep them.

Each maps slices ``(N, 1, H, W)`` of any height and width to logits ``(N, num_classes, H, W)``, at its usual width. By
hand is only what no kept library has: the plain UNet and SegNet.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import ConvBNReLU

PACKAGE = "segmentation_models_pytorch"


class AnySize(nn.Module):
    """A network for multiples of ``multiple`` only: pads slices by their border, and crops the logits."""

    def __init__(self, network: nn.Module, multiple: int = 32) -> None:
        super().__init__()
        self.network, self.multiple = network, multiple

    @property
    def encoder(self) -> nn.Module:
        """The part that weights from elsewhere are for (encoder_weights.py)."""
        return self.network.encoder  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        return self.network(x)[..., :height, :width]


def of_smp(architecture: str, encoder: str, *, in_channels: int = 1, num_classes: int = 2) -> nn.Module:
    """A network of segmentation_models_pytorch, without trained weights. Raises ModuleNotFoundError without it."""
    smp = import_module(PACKAGE)
    options: dict[str, Any] = {"encoder_weights": None, "in_channels": in_channels, "classes": num_classes}
    return AnySize(getattr(smp, architecture)(encoder, **options))


class UNet(nn.Module):
    """The usual UNet (Ronneberger et al., 2015) with batch norm: two conv-BN-ReLU a level, max pooling, transposed
    convolutions; 31.0 M parameters at its usual width, ``base_channels`` 64."""

    def __init__(self, in_channels: int = 1, num_classes: int = 2, base_channels: int = 64) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(5)]
        self.encoders = nn.ModuleList(map(_convolutions, [in_channels, *widths[:-1]], widths, [2] * 5))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in reversed(widths[:-1]))
        self.decoders = nn.ModuleList(_convolutions(2 * c, c, 2) for c in reversed(widths[:-1]))
        self.head = nn.Conv2d(base_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
        skips = []
        for level, encoder in enumerate(self.encoders):
            x = encoder(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)[..., :height, :width]


class SegNet(nn.Module):
    """SegNet (Badrinarayanan et al., 2017): the 13 convolutions of VGG16 with batch norm, and their mirror image, which
    puts values back where max pooling took them from; 29.4 M parameters."""

    WIDTHS, DEPTHS = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)

    def __init__(self, in_channels: int = 1, num_classes: int = 2) -> None:
        super().__init__()
        above = (in_channels, *self.WIDTHS[:-1])
        levels = list(zip(above, self.WIDTHS, self.DEPTHS, strict=True))
        self.encoders = nn.ModuleList(_convolutions(outer, inner, depth) for outer, inner, depth in levels)
        self.decoders = nn.ModuleList(
            nn.Sequential(_convolutions(inner, inner, depth - 1), _convolutions(inner, outer, 1))
            for outer, inner, depth in reversed(levels[1:])
        )
        self.last = ConvBNReLU(self.WIDTHS[0], self.WIDTHS[0])
        self.head = nn.Conv2d(self.WIDTHS[0], num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
        places = []
        for encoder in self.encoders:
            x, place = F.max_pool2d(encoder(x), 2, return_indices=True)
            places.append(place)
        for decoder in (*self.decoders, self.last):
            x = decoder(F.max_unpool2d(x, places.pop(), [2, 2]))
        return self.head(x)[..., :height, :width]


def _convolutions(in_channels: int, out_channels: int, depth: int) -> nn.Sequential:
    """``depth`` conv-BN-ReLU, of which the first changes the width."""
    return nn.Sequential(*(ConvBNReLU(out_channels if i else in_channels, out_channels) for i in range(depth)))


class FCN(nn.Module):
    """FCN (Long et al., 2015) as torchvision has it: on ResNet-50 with dilation; 32.9 M parameters."""

    def __init__(self, in_channels: int = 1, num_classes: int = 2) -> None:
        from torchvision.models.segmentation import fcn_resnet50

        super().__init__()
        self.network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=num_classes)
        first = self.network.backbone.conv1
        self.network.backbone.conv1 = nn.Conv2d(in_channels, first.out_channels, 7, stride=2, padding=3, bias=False)

    @property
    def encoder(self) -> nn.Module:
        return self.network.backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)["out"]


BASELINES: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "fcn": FCN,
    "segnet": SegNet,
    "linknet_xception": partial(of_smp, "Linknet", "xception"),
    "fpn_efficientnet_b1": partial(of_smp, "FPN", "efficientnet-b1"),
    "pspnet_vgg13": partial(of_smp, "PSPNet", "vgg13_bn"),
    "unet_resnet34": partial(of_smp, "Unet", "resnet34"),
    # Beyond the paper
    "unetplusplus": partial(of_smp, "UnetPlusPlus", "resnet34"),
    "deeplabv3plus_resnet34": partial(of_smp, "DeepLabV3Plus", "resnet34"),
    "unet_convnext_tiny": partial(of_smp, "Unet", "tu-convnext_tiny"),
}
