"""Trained weights for the encoder of a network, from a file that the user has."""

from pathlib import Path

from torch import Tensor, nn

from data.errors import InputError
from models import config_of
from utils.checkpoint import read_state_dict


def load_encoder(model: nn.Module, path: Path) -> None:
    """Load a state dict, such as one of torchvision or timm, into the encoder of a network (``weights_for``)."""
    weights = weights_for(model, path)
    nn.Module.load_state_dict(model.encoder, weights, strict=False)  # type: ignore[arg-type]  # smp's own rename some
    print(f"{'encoder':<11} {len(weights)} weights from {path}")


def weights_for(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The weights in a file that are those of the encoder of a network.

    Entries may have a prefix, such as ``encoder.``, and dots for underscores, as timm's have; those of a classifier are
    left out. A first convolution for colours becomes one for gray levels: its weights are summed. Raises InputError if
    the network has no encoder of a library, or the file not all of its weights.
    """
    encoder, name = getattr(model, "encoder", None), config_of(model)["name"]
    if encoder is None:
        raise InputError(f"--encoder_weights {path}: --model {name} has no encoder of a library; leave it out")
    wanted = encoder.state_dict()
    names = {key: key.removeprefix("model.").replace(".", "_") for key in wanted}
    try:
        given = {key.replace(".", "_"): weight for key, weight in read_state_dict(path).items()}
    except InputError as error:
        raise InputError(f"--encoder_weights {error}") from error
    prefix = _prefix(given, next(iter(names.values())))
    places = {key: prefix + name for key, name in names.items() if prefix + name in given}
    found = {key: _fitted(given[place], wanted[key]) for key, place in places.items()}
    counts = {key for key in wanted if key.endswith("num_batches_tracked")}
    if missing := [key for key in wanted if key not in found and key not in counts]:
        raise InputError(f"--encoder_weights {path}: lacks {missing[0]} of the encoder of {name}; give weights for it")
    if other := [key for key, weight in found.items() if weight.shape != wanted[key].shape]:
        shapes = " and ".join("x".join(map(str, w.shape)) for w in (found[other[0]], wanted[other[0]]))
        raise InputError(f"--encoder_weights {path}: {other[0]} has another shape ({shapes}); give weights for {name}")
    return found


def _prefix(given: dict[str, Tensor], first: str) -> str:
    """What precedes the names of the encoder's weights in the file, by the name of the first one."""
    return next((key.removesuffix(first) for key in given if key == first or key.endswith(f"_{first}")), "")


def _fitted(weight: Tensor, wanted: Tensor) -> Tensor:
    is_first = weight.dim() == 4 and weight.shape[1] == 3 and wanted.shape[1] == 1
    return weight.sum(dim=1, keepdim=True) if is_first else weight
