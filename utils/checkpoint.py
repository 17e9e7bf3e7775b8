"""Checkpoints: one file to rebuild a network, or to resume a run.

A checkpoint is a dict of tensors and plain types: ``format``, ``model`` (what ``build_model`` takes),
``preprocessing``, ``weights`` (to predict with), ``epoch``, ``best_score`` (validation Dice, or -1),
``run`` (the script and its options) and, only in ``last.pth``, ``training`` (all that ``--resume`` needs).
Nothing here unpickles code.
"""

import copy
import os
import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from data.errors import InputError
from data.preprocess.preprocessing import Preprocessing
from models import MODELS, build_model
from models.released import rename_released

FORMAT = "cares-unet-1"
FIELDS = {"format", "model", "preprocessing", "weights", "epoch", "best_score", "run"}


def save_checkpoint(path: Path, content: dict) -> None:
    """Write ``content`` under a temporary name, then rename: if killed, it leaves the old file or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    torch.save({"format": FORMAT, **content}, temporary)
    os.replace(temporary, path)


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint. A bare state dict (ours or the released one) is converted to the same form.

    Raises InputError if the file is missing, damaged, not a CARes-UNet, or contains more than tensors and plain types.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InputError(f"{path}: can't be opened ({error.strerror}); give the path of a .pth file") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about other pickles; the error below says more
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not start.startswith((b"PK", b"\x80")):  # neither a zip archive nor a pickle
            raise InputError(f"{path}: not a checkpoint; give the path of a .pth file") from error
        raise InputError(
            f"{path}: contains more than tensors and plain types; pickled code is never run, ask for a state dict"
        ) from error
    except Exception as error:  # a damaged file can make torch.load raise almost anything
        raise InputError(f"{path}: damaged, or not a checkpoint; download or copy it again") from error

    if not isinstance(content, dict):
        raise InputError(f"{path}: contains a {type(content).__name__}, not a checkpoint; give a CARes-UNet checkpoint")
    if content.get("format") == FORMAT and content.keys() >= FIELDS:
        if (name := content["model"]["name"]) not in MODELS:
            raise InputError(f"{path}: contains the network {name!r}, not one of {', '.join(MODELS)}; add it to MODELS")
        return content
    if "classfier.weight" in content:
        content = rename_released(content)
    if not {"encoder1.conv.conv.weight", "head.weight"} <= content.keys():
        raise InputError(f"{path}: not a CARes-UNet checkpoint; give one that these scripts saved, or the released one")
    base_channels, in_channels = content["encoder1.conv.conv.weight"].shape[:2]
    num_classes = content["head.weight"].shape[0]
    return {
        "model": {
            "name": "cares_unet",
            "in_channels": in_channels,
            "num_classes": num_classes,
            "base_channels": base_channels,
        },
        "preprocessing": Preprocessing().to_dict(),
        "weights": content,
        "epoch": 0,
    }


def load_model(path: Path | str) -> tuple[nn.Module, Preprocessing]:
    """The network of a checkpoint, rebuilt from the file only, and its preprocessing.

    The network is in eval mode. Its ``knows_turns`` says whether it was trained on flipped and rotated slices.

    Accepts the same files as ``read_checkpoint``. Raises InputError as it does, and if weights are missing or of
    another shape.
    """
    content = read_checkpoint(Path(path))
    preprocessing = Preprocessing(**content["preprocessing"])
    model = rebuild(content, path).eval()
    model.knows_turns = content.get("run", {}).get("options", {}).get("data_augmentation", False)
    return model, preprocessing


def rebuild(content: dict, path: Path | str) -> nn.Module:
    """Rebuild the network from what ``read_checkpoint(path)`` returned."""
    try:
        with torch.device("meta"):  # skips initial weights, which the file's replace
            model = build_model(**content["model"])
        # Copies, as a resumed run still needs the averaged weights of the file after the network has changed.
        weights = {name: _in_float32(tensor) for name, tensor in copy.deepcopy(content["weights"]).items()}
        model.load_state_dict(weights, assign=True)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: its weights do not fit its network ({reason}); download or copy it again") from error
    return model.to(memory_format=torch.channels_last)  # as when built; files may have another layout


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
