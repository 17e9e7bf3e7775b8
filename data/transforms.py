"""Joint augmentation of slice and mask: one draw of random numbers moves both."""

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2


class RandomQuarterTurn(v2.Transform):
    """Turn by 0, 90, 180 or 270 degrees; scans are stored in any of these orientations."""

    def make_params(self, flat_inputs: list) -> dict:
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt, params: dict):
        return tv_tensors.wrap(torch.rot90(inpt, params["turns"], dims=(-2, -1)), like=inpt)


class RandomGamma(v2.Transform):
    """Raise the gray levels of the image, in [0, 1], to a power from ``1 / most`` to ``most``."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list) -> dict:
        return {"gamma": self.most ** (2 * torch.rand(()).item() - 1)}

    def transform(self, inpt, params: dict):
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return tv_tensors.wrap(inpt.clamp(0, 1) ** params["gamma"], like=inpt)


class RandomNoise(v2.Transform):
    """Add Gaussian noise to the image, its standard deviation drawn from 0 to ``most``."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list) -> dict:
        return {"sigma": self.most * torch.rand(()).item()}

    def transform(self, inpt, params: dict):
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        noisy = inpt + params["sigma"] * torch.randn_like(inpt)
        return tv_tensors.wrap(noisy.clamp(0, 1), like=inpt)


def augmentation() -> v2.Transform:
    """The default augmentation, for an ``Image`` in [0, 1] and its ``Mask``.

    Positions first (both; masks by nearest neighbour), then gray levels (the image alone). What comes in from
    beyond the border is air: black, and no lesion.
    """
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            RandomQuarterTurn(),
            v2.RandomAffine(
                degrees=15, translate=(0.08, 0.08), scale=(0.8, 1.25), interpolation=v2.InterpolationMode.BILINEAR
            ),
            RandomGamma(1.3),
            v2.ColorJitter(brightness=0.1, contrast=0.2),
            RandomNoise(0.04),
        ]
    )
