"""The reference of benchmarks.speed: the published computation, written plainly.

Unfold-based CARAFE with its 1x1 convolution after the upsampling, unused convolutions and a sigmoid in the network, an
optimizer that loops over the parameters, slices decoded and resized at every access, all in float32 and one
slice at a time when predicting. It computes what the published code does; it is not that code.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from data.folders import Pair
from models.blocks import ResidualBlock
from models.cares_unet import CAResUNet


class UnfoldedCARAFE(nn.Module):
    """CARAFE by its definition: unfold features and kernels, multiply, shuffle, 1x1 convolution of every new pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.compressor = nn.Conv2d(in_channels, 64, 1)
        self.encoder = nn.Conv2d(64, 100, 3, padding=1)
        self.out = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        kernels = F.pixel_shuffle(self.encoder(self.compressor(x)), 2).softmax(dim=1)
        kernels = kernels.unfold(2, 2, 2).unfold(3, 2, 2).reshape(n, 25, height, width, 4).permute(0, 2, 3, 1, 4)
        windows = F.pad(x, (2, 2, 2, 2)).unfold(2, 5, 1).unfold(3, 5, 1)
        windows = windows.reshape(n, channels, height, width, 25).permute(0, 2, 3, 1, 4)
        summed = windows @ kernels  # (N, H, W, C, 4)
        return self.out(F.pixel_shuffle(summed.reshape(n, height, width, -1).permute(0, 3, 1, 2), 2))


class ReferenceUNet(CAResUNet):
    """CARes-UNet with ``UnfoldedCARAFE``, unused convolutions, and a sigmoid; loads the weights of CAResUNet."""

    def __init__(self, base_channels: int = 64) -> None:
        super().__init__(base_channels=base_channels)
        for level in (4, 3, 2, 1):
            channels = base_channels * 2**level
            setattr(self, f"up{level}", UnfoldedCARAFE(channels, channels // 2))
        for block in [module for module in self.modules() if isinstance(module, ResidualBlock)]:
            channels = block.bn2.num_features
            block.unused = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, *args: Any) -> Tensor:
        return super().forward(*args).sigmoid()


class LoopRanger(torch.optim.Optimizer):
    """Ranger, one parameter and one operation after the other; the same steps as ``utils.training.ranger.Ranger``."""

    def __init__(self, params: Iterable, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        beta1, beta2, eps, k, alpha = 0.95, 0.999, 1e-5, 6, 0.5
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad
                if grad.dim() > 1:
                    grad = grad - grad.mean(dim=tuple(range(1, grad.dim())), keepdim=True)
                state = self.state[p]
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p), "slow": p.clone()}
                state["step"] += 1
                step, mean, square, slow = state.values()
                square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                mean.mul_(beta1).add_(grad, alpha=1 - beta1)
                longest = 2 / (1 - beta2) - 1
                length = longest - 2 * step * beta2**step / (1 - beta2**step)
                corrected = mean / (1 - beta1**step)
                if length > 5:
                    shrink = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                    root = (square / (1 - beta2**step)).sqrt().add(eps / math.sqrt(1 - beta2**step))
                    p.add_(corrected / root, alpha=-group["lr"] * math.sqrt(shrink))
                else:
                    p.add_(corrected, alpha=-group["lr"])
                if step % k == 0:
                    slow.add_(p - slow, alpha=alpha)
                    p.copy_(slow)


class DecodedAtEveryAccess(Dataset):
    """Pairs of image and mask files: opened, decoded, resized (Lanczos both) and scaled at every access."""

    def __init__(self, files: list[Pair], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = (read_resized(path, self.size) for path in self.files[index])
        return image, (mask[0] > 0.5).long()


def read_resized(path: Path, size: int) -> Tensor:
    """A gray image, float32 ``(1, size, size)`` in [0, 1]."""
    image = Image.open(path).convert("L").resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, np.float32) / 255)[None]


def predict_folder(checkpoint: Path, images: Path, results: Path, device: str) -> None:
    """Slice by slice: decode, resize, predict, save the argmax as a mask of the network's input size."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = ReferenceUNet(content["model"]["base_channels"]).to(device).eval()
    model.load_state_dict(content["weights"], strict=False)
    for path in sorted(images.iterdir()):
        image = read_resized(path, content["preprocessing"]["image_size"])[None]
        with torch.no_grad():
            mask = model(image.to(device)).argmax(dim=1)[0]
        Image.fromarray((mask * 255).byte().cpu().numpy()).save(results / f"{path.stem}.png")


if __name__ == "__main__":
    checkpoint, images, results = map(Path, sys.argv[1:4])
    predict_folder(checkpoint, images, results, sys.argv[4])
