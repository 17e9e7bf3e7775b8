"""CARes-UNet (Xu et al., Medical Physics 48(11), 2021); the code follows its Figure 1 from top to bottom."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import Stage
from models.upsampling import UPSAMPLINGS


class CAResUNet(nn.Module):
    """UNet with residual blocks and content-aware upsampling.

    Maps slices ``(N, in_channels, H, W)`` of any height and width to logits ``(N, num_classes, H, W)``.
    ``base_channels`` is the width of the first of the five levels; each level below doubles it. ``block`` is one of
    BLOCKS, ``upsample`` one of UPSAMPLINGS; "plain" and "bilinear" are for the paper's ablation.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        base_channels: int = 64,
        *,
        block: str = "residual",
        upsample: str = "carafe",
    ) -> None:
        super().__init__()
        stage, upsampling = partial(Stage, block=block), UPSAMPLINGS[upsample]
        c1, c2, c3, c4, c5 = (base_channels * 2**level for level in range(5))

        self.encoder1 = stage(in_channels, c1)
        self.down1 = stage(c1, c1, stride=2)
        self.encoder2 = stage(c1, c2)
        self.down2 = stage(c2, c2, stride=2)
        self.encoder3 = stage(c2, c3)
        self.down3 = stage(c3, c3, stride=2)
        self.encoder4 = stage(c3, c4)
        self.down4 = stage(c4, c4, stride=2)

        self.bottleneck = stage(c4, c5)

        self.up4 = upsampling(c5, c4)
        self.decoder4 = stage(c4 + c4, c4)
        self.up3 = upsampling(c4, c3)
        self.decoder3 = stage(c3 + c3, c3)
        self.up2 = upsampling(c3, c2)
        self.decoder2 = stage(c2 + c2, c2)
        self.up1 = upsampling(c2, c1)
        self.decoder1 = stage(c1 + c1, c1)

        self.head = nn.Conv2d(c1, num_classes, 1)

    def forward(self, x: Tensor, perturb: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None) -> Tensor:
        """perturb: changes the features of the five levels, finest first, before the decoder has them."""
        height, width = x.shape[-2:]
        # Four halvings need multiples of 16; unlike zeros, a repeated border adds no edge.
        x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")

        skip1 = self.encoder1(x)
        skip2 = self.encoder2(self.down1(skip1))
        skip3 = self.encoder3(self.down2(skip2))
        skip4 = self.encoder4(self.down3(skip3))
        x = self.bottleneck(self.down4(skip4))
        if perturb:
            skip1, skip2, skip3, skip4, x = perturb([skip1, skip2, skip3, skip4, x])

        x = self.decoder4(torch.cat([skip4, self.up4(x)], dim=1))
        x = self.decoder3(torch.cat([skip3, self.up3(x)], dim=1))
        x = self.decoder2(torch.cat([skip2, self.up2(x)], dim=1))
        x = self.decoder1(torch.cat([skip1, self.up1(x)], dim=1))
        return self.head(x)[..., :height, :width]
