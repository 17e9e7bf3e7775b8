"""Inf-Net (Fan et al., IEEE TMI 2020): a coarse map from deep features, refined where it is not sure of itself.

The code follows the paper's Figure 2 from left to right, on the Res2Net-50 of timm. Names are those of the paper: f1 to
f5 are the features, S_g the map of the partial decoder, S_5 to S_3 the refined ones, e the edge.
"""

from importlib import import_module
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 32  # of the features in the partial decoder
EDGE = 64  # of the edge features


class Maps(NamedTuple):
    """What Inf-Net gives in training: logits of lesion ``(N, 1, H, W)`` each, four maps, the last best, and edge."""

    maps: tuple[Tensor, ...]
    edge: Tensor


class InfNet(nn.Module):
    """Maps slices ``(N, 1, H, W)`` to logits ``(N, 2, H, W)``, background first; in training, to ``Maps``."""

    loss = "structure"  # in utils/training/losses.py

    def __init__(self, in_channels: int = 1, num_classes: int = 2) -> None:
        if num_classes != 2:
            raise ValueError(f"inf_net tells lesion from background, not {num_classes} classes")
        super().__init__()
        create = import_module("timm").create_model
        self.encoder = create("res2net50_26w_4s", pretrained=False, features_only=True, in_chans=in_channels)
        c2, c3, c4, c5 = (level["num_chs"] for level in self.encoder.feature_info.info[1:])
        self.edge_features = nn.Sequential(_conv(c2, EDGE, 1), _conv(EDGE, EDGE, 3), _conv(EDGE, EDGE, 3))
        self.edge_head = nn.Conv2d(EDGE, 1, 3, padding=1)
        self.reduce = nn.ModuleList(ReceptiveFields(width, WIDTH) for width in (c3, c4, c5))
        self.decoder = PartialDecoder(WIDTH)
        self.refine5 = ReverseAttention(c5 + EDGE, 256, kernel=5, depth=4)
        self.refine4 = ReverseAttention(c4 + EDGE, 64, kernel=3, depth=3)
        self.refine3 = ReverseAttention(c3 + EDGE, 64, kernel=3, depth=3)

    def forward(self, x: Tensor) -> Tensor | Maps:
        size = x.shape[-2:]
        _, f2, f3, f4, f5 = self.encoder(x)
        edge = self.edge_features(f2)
        coarse = self.decoder(*(reduce(f) for reduce, f in zip(self.reduce, (f3, f4, f5), strict=True)))
        maps = [coarse]
        for refine, features in ((self.refine5, f5), (self.refine4, f4), (self.refine3, f3)):
            maps.append(refine(features, edge, maps[-1]))
        if self.training:
            return Maps(tuple(_resized(each, size) for each in maps), _resized(self.edge_head(edge), size))
        lesion = _resized(maps[-1], size)
        return torch.cat([torch.zeros_like(lesion), lesion], dim=1)


class ReverseAttention(nn.Module):
    """Adds to a map what features show outside of it, guided by the edge: ``R`` of the paper, Section III-D.

    Maps features ``(N, C, h, w)``, edge features of any size and a coarser map to a map ``(N, 1, h, w)``.
    """

    def __init__(self, in_channels: int, width: int, *, kernel: int, depth: int) -> None:
        super().__init__()
        layers = [_conv(in_channels, width, 1), *(_conv(width, width, kernel) for _ in range(depth - 1))]
        self.convolutions = nn.Sequential(*layers, nn.Conv2d(width, 1, kernel, padding=kernel // 2))

    def forward(self, features: Tensor, edge: Tensor, coarser: Tensor) -> Tensor:
        size = features.shape[-2:]
        coarser = _resized(coarser, size)
        outside = 1 - coarser.sigmoid()
        guided = torch.cat([features * outside, _resized(edge, size)], dim=1)
        return self.convolutions(guided) + coarser


class ReceptiveFields(nn.Module):
    """Features ``(N, C, h, w)`` to ``(N, width, h, w)``, seen at four scales by dilation (Wu et al., 2019)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_norm(in_channels, width, 1)])
        for reach in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    _norm(in_channels, width, 1),
                    _norm(width, width, (1, reach)),
                    _norm(width, width, (reach, 1)),
                    _norm(width, width, 3, dilation=reach),
                )
            )
        self.merge, self.shortcut = _norm(4 * width, width, 3), _norm(in_channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([branch(x) for branch in self.branches], dim=1)
        return F.relu(self.merge(seen) + self.shortcut(x))


class PartialDecoder(nn.Module):
    """The three deep features, each times the deeper ones, then joined: the map S_g (Wu et al., 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to4, self.to3, self.through3, self.join5 = (_norm(width, width, 3) for _ in range(4))
        self.join4 = _norm(2 * width, 2 * width, 3)
        self.up = _norm(2 * width, 2 * width, 3)
        self.last = nn.Sequential(_norm(3 * width, 3 * width, 3), nn.Conv2d(3 * width, 1, 1))

    def forward(self, f3: Tensor, f4: Tensor, f5: Tensor) -> Tensor:
        up5 = _resized(f5, f4.shape[-2:])
        f4_seen = self.to4(up5) * f4
        f3_seen = self.to3(_resized(f5, f3.shape[-2:])) * self.through3(_resized(f4, f3.shape[-2:])) * f3
        joined = self.join4(torch.cat([f4_seen, self.join5(up5)], dim=1))
        return self.last(torch.cat([f3_seen, self.up(_resized(joined, f3.shape[-2:]))], dim=1))


def _norm(in_channels: int, out_channels: int, kernel: int | tuple[int, int], *, dilation: int = 1) -> nn.Sequential:
    """Convolution and batch norm that keep height and width."""
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (dilation * (sides[0] // 2), dilation * (sides[1] // 2))
    convolution = nn.Conv2d(in_channels, out_channels, sides, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*_norm(in_channels, out_channels, kernel), nn.ReLU())


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
