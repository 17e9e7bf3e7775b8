"""The networks, by name."""

from torch import nn

from models.cares_unet import CAResUNet

MODELS = {"cares_unet": CAResUNet}


def build_model(name: str, **arguments) -> nn.Module:
    """The network called ``name`` in ``MODELS``, which maps slices to logits.

    Its attribute ``config`` holds what this function was given, so that a checkpoint can rebuild it.
    """
    model = MODELS[name](**arguments)
    model.config = {"name": name, **arguments}
    return model
