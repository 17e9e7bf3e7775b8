"""The networks, by name."""

import inspect

import torch
from torch import nn

from models.cares_unet import CAResUNet

MODELS: dict[str, type[nn.Module]] = {"cares_unet": CAResUNet}


def build_model(name: str, **arguments: object) -> nn.Module:
    """The network called ``name`` in ``MODELS``, which maps slices to logits, channels last in memory.

    Its attribute ``config`` holds what this function was given, so that a checkpoint can rebuild it.
    """
    model = MODELS[name](**arguments).to(memory_format=torch.channels_last)
    model.config = {"name": name, **arguments}
    return model


def options_of(name: str) -> set[str]:
    """The arguments that the network called ``name`` takes."""
    return set(inspect.signature(MODELS[name]).parameters)
