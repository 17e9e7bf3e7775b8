"""Checkpoints: one file from which a network is rebuilt, or a run resumed.

A checkpoint is a dict of tensors and plain types: ``format``, ``model`` (what ``build_model`` takes),
``preprocessing``, ``weights`` (the ones to predict with), ``epoch``, ``best_score`` (validation Dice, or -1),
``run`` (the script and its options) and, in ``last.pth`` alone, ``training`` (all that ``--resume`` needs).
Nothing here unpickles code.
"""

import copy
import os
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data.errors import InputError
from data.preprocess.preprocessing import Preprocessing
from models import MODELS, build_model
from models.released import _rename_released

FORMAT = "cares-unet-1"
FIELDS = {"format", "model", "preprocessing", "weights", "epoch", "best_score", "run"}


@dataclass
class Start:
    """The checkpoint that a run begins from: with its weights alone or, to ``resume`` it, with all that it holds."""

    path: Path
    content: dict
    resume: bool


def save_checkpoint(path: Path, content: dict) -> None:
    """Write ``content`` under a temporary name, then rename: a kill leaves the old file or the new one, whole."""
    temporary = path.with_name(f"{path.name}.tmp")
    torch.save({"format": FORMAT, **content}, temporary)
    os.replace(temporary, path)


def read_checkpoint(path: Path) -> dict:
    """A checkpoint of ours as it is, or a bare state dict (ours or the released one) put into the same form.

    Raises InputError if the file is missing, damaged, not a CARes-UNet, or holds more than tensors and plain types.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InputError(f"{path}: can't be opened ({error.strerror}); give the path of a .pth file") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign pickles; the error below says more
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not start.startswith((b"PK", b"\x80")):  # neither a zip archive nor a pickle
            raise InputError(f"{path}: not a checkpoint; give the path of a .pth file") from error
        raise InputError(
            f"{path}: holds more than tensors and plain types; pickled code is never run, ask for a state dict"
        ) from error
    except Exception as error:  # a damaged file can make torch.load raise almost anything
        raise InputError(f"{path}: damaged, or not a checkpoint; fetch or copy it again") from error

    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a checkpoint; give a CARes-UNet checkpoint")
    if content.get("format") == FORMAT and content.keys() >= FIELDS:
        if (name := content["model"]["name"]) not in MODELS:
            raise InputError(f"{path}: holds the network {name!r}, not one of {', '.join(MODELS)}; add it to MODELS")
        return content
    if "classfier.weight" in content:
        content = _rename_released(content)
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


def load_model(path: Path | str, *, image_size: int | None = None) -> tuple[nn.Module, Preprocessing]:
    """The network of a checkpoint, rebuilt from the file alone, and its preprocessing.

    The network is in eval mode. Its ``knows_turns`` says whether it was trained on flipped and rotated slices.

    Takes all that ``read_checkpoint`` does. ``image_size``: the side to resize slices to in place of the file's.
    Raises InputError as ``read_checkpoint`` does, and if weights are missing or of another shape.
    """
    content = read_checkpoint(Path(path))
    preprocessing = Preprocessing(**content["preprocessing"] | ({"image_size": image_size} if image_size else {}))
    model = rebuild(content, path).eval()
    model.knows_turns = content.get("run", {}).get("options", {}).get("data_augmentation", False)
    return model, preprocessing


def rebuild(content: dict, path: Path | str) -> nn.Module:
    """The network in what ``read_checkpoint(path)`` returned."""
    try:
        with torch.device("meta"):  # no time for initial weights that the file's replace
            model = build_model(**content["model"])
        # Copies, as a run to be resumed still needs its file's averaged weights after the network has moved on.
        model.load_state_dict(copy.deepcopy(content["weights"]), assign=True)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: its weights do not fit its network ({reason}); fetch or copy it again") from error
    return model.to(memory_format=torch.channels_last)  # as built; files may hold another layout
