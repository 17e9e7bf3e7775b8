"""The networks, by name."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from models.baselines import BASELINES
from models.cares_unet import CAResUNet
from models.inf_net import InfNet

MODELS: dict[str, Callable[..., nn.Module]] = {"cares_unet": CAResUNet, **BASELINES, "inf_net": InfNet}


def build_model(name: str, **arguments: object) -> nn.Module:
    """The network called ``name`` in ``MODELS``, which maps slices to logits, channels last in memory.

    Its attribute ``config`` has the arguments of this function, so that a checkpoint can rebuild it.
    """
    model = MODELS[name](**arguments).to(memory_format=torch.channels_last)
    model.config = {"name": name, **arguments}  # type: ignore[assignment]
    return model


def config_of(model: nn.Module) -> dict[str, Any]:
    """The arguments of ``build_model`` that built this network."""
    return cast(dict[str, Any], model.config)


def loss_of(name: str) -> str | None:
    """The loss that the network called ``name`` needs, as its output in training is not logits; None: any."""
    return getattr(MODELS[name], "loss", None)


def perturbs(name: str) -> bool:
    """Whether the network called ``name`` lets its features be changed, by the argument ``perturb`` of a call."""
    return "perturb" in inspect.signature(getattr(MODELS[name], "forward", MODELS[name])).parameters


def options_of(name: str) -> set[str]:
    """The arguments that the network called ``name`` takes."""
    return set(inspect.signature(MODELS[name]).parameters)
