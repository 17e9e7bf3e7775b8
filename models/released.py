"""Rename the keys of the released checkpoint to ours."""

import re
from collections.abc import Callable

from torch import Tensor

# The released checkpoint numbers its modules along the data path and spells `classfier`. Applied in this order.
RELEASED_NAMES: list[tuple[str, str | Callable[[re.Match], str]]] = [
    (r"^decoder5\.", "bottleneck."),
    (r"^decoder6\.", "decoder4."),
    (r"^decoder7\.", "decoder3."),
    (r"^decoder8\.", "decoder2."),
    (r"^conv\.", "decoder1."),
    (r"^classfier\.", "head."),
    (r"\.bconv\.", ".conv."),
    (r"\.resnet\.", ".residual."),
    (r"^(down\d)\.0\.", r"\1.conv."),
    (r"^(down\d)\.1\.", r"\1.residual."),
    (r"\.inc\.0\.", ".conv1.conv."),
    (r"\.inc\.1\.", ".conv1.bn."),
    (r"\.inc\.3\.", ".conv2."),
    (r"\.inc\.4\.", ".bn2."),
    (r"^(up\d)\.down\.", r"\1.compressor."),
    (r"^up(\d)\.", lambda match: f"up{5 - int(match[1])}."),
]


def rename_released(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in weights.items():
        if ".conv1x1." in key:  # unused by the network
            continue
        for pattern, name in RELEASED_NAMES:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed
