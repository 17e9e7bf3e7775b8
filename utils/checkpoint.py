"""Checkpoints: one file to rebuild a network, or to resume a run.

A checkpoint is a dict of tensors and plain types: ``format``, ``model`` (what ``build_model`` takes),
``preprocessing``, ``weights`` (to predict with), ``epoch``, ``best_score`` (validation Dice, or -1),
``run`` (the script and its options) and, only in ``last.pth``, ``training`` (all that ``--resume`` needs).
Nothing here unpickles code.
"""

import copy
import errno
import hashlib
import math
import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from data.errors import InputError, reason_of
from data.io.whole import whole
from data.preprocess.preprocessing import Preprocessing
from models import MODELS, build_model
from models.released import rename_released
from models.state_dicts import bare_weights
from utils.output.console import warn

FORMAT = "cares-unet-1"
WEIGHTS = Path(__file__).parents[1] / "weights"  # networks of this repository
NAMES = ", ".join(sorted(path.stem for path in WEIGHTS.glob("*.pth")))
FIELDS: dict[str, tuple[type, ...]] = {
    "model": (dict,),
    "preprocessing": (dict,),
    "weights": (dict,),
    "epoch": (int,),
    "best_score": (int, float),
    "run": (dict,),
}
HOTTEST = 100  # temperature
MOST_CHANNELS = 8192  # of a network: more is damage
MOST_EXPANDED = 4  # bytes of weights, for one of the file


def save_checkpoint(path: Path, content: dict) -> None:
    """Write ``content`` under a temporary name, then rename: if killed, it leaves the old file or the new one."""
    try:
        with whole(path) as temporary:
            torch.save({"format": FORMAT, **content}, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        if isinstance(error, OSError):
            raise
        raise OSError(errno.ENOSPC, f"can't be written ({reason_of(error)})", str(path)) from error


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint, by its path or the name of one in weights/.

    A bare state dict (ours or the released one) is converted to the same form.

    Raises InputError if the file is missing, damaged, not a CARes-UNet, contains more than tensors and plain types, or
    entries of other types and ranges than they should have, or weights that are not finite.
    """
    path = located(path)
    content = _load(path)
    if content.get("format") != FORMAT or not content.keys() >= FIELDS.keys():
        content = _from_state_dict(path, content)
    elif (reason := _why_refused(content)) is not None:
        raise InputError(f"{path}: {reason}; download or copy it again")
    if (weights := bare_weights(content["weights"])) is None:
        raise InputError(f"{path}: its weights are no tensors; save the state dict of the network")
    content["weights"] = weights
    _check_weights(path, content["weights"])
    return content


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a file, by name. Raises InputError as ``read_checkpoint`` does, whatever network they are of."""
    if not (weights := bare_weights(_load(path))):
        raise InputError(f"{path}: no state dict of a network; save one by torch.save")
    _check_weights(path, weights)
    return weights


def _load(path: Path) -> dict:
    if path.exists() and not path.is_file():  # a named pipe would make it wait for ever
        raise InputError(f"{path}: can't be opened (not a file); give the path of a .pth file")
    try:
        with path.open("rb") as file:
            start = file.read(64)
        damaged = zipfile.ZipFile(path).testzip() if start.startswith(b"PK") else None
    except OSError as error:
        raise InputError(
            f"{path}: can't be opened ({error.strerror}); give the path of a .pth file, or {NAMES}"
        ) from error
    except Exception as error:  # a damaged archive can make zipfile raise almost anything
        raise InputError(f"{path}: damaged, or not a state dict by torch.save; copy it again, or save one") from error
    if start.startswith((b"version https://git-lfs", b"<")):
        kind = "a web page" if start.startswith(b"<") else "a pointer of Git LFS"
        raise InputError(f"{path}: is {kind}, not the file itself; download it again")
    if damaged:
        raise InputError(f"{path}: damaged ({damaged} has another checksum); download or copy it again")
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
        raise InputError(f"{path}: damaged, or not a state dict by torch.save; copy it again, or save one") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: contains a {type(content).__name__}, not a checkpoint; give a CARes-UNet checkpoint")
    return content


def _from_state_dict(path: Path, content: dict) -> dict:
    weights = bare_weights(content) or {}
    if "classfier.weight" in weights:
        weights = rename_released(weights)
    if not {"encoder1.conv.conv.weight", "head.weight"} <= weights.keys():
        raise InputError(f"{path}: not a CARes-UNet checkpoint; give one that these scripts saved, or the released one")
    first, head = weights["encoder1.conv.conv.weight"].shape, weights["head.weight"].shape
    if len(first) != 4 or not head:
        raise InputError(f"{path}: its weights do not fit its network; download or copy it again")
    if first[1] != 1:
        raise InputError(f"{path}: takes images of {first[1]} channels, slices have one; train on gray levels")
    model = {"name": "cares_unet", "in_channels": 1, "num_classes": head[0], "base_channels": first[0]}
    return {"model": model, "preprocessing": Preprocessing().to_dict(), "weights": weights, "epoch": 0}


def _why_refused(content: dict) -> str | None:
    """What is wrong with an entry of a checkpoint: its type, or its range."""
    for name, kind in FIELDS.items():
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            return f"its {name} is of type {type(content[name]).__name__}"
    if content["epoch"] < 0 or not math.isfinite(content["best_score"]):
        return f"its epoch or best_score can't be ({content['epoch']}, {content['best_score']})"
    temperature = content.get("temperature", 1.0)
    if not (isinstance(temperature, float) and 0 < temperature < HOTTEST):
        return f"its temperature is {str(temperature)[:50]!r}"
    if reason := Preprocessing.why_refused(content["preprocessing"]):
        return f"its preprocessing has {reason}"
    return _why_no_network(content["model"]) or _why_no_run(content["run"])


def _why_no_network(model: dict) -> str | None:
    if (name := model.get("name")) not in list(MODELS):
        return f"contains the network {name!r}, not one of {', '.join(MODELS)}"
    for name, value in model.items():
        if not isinstance(value, str) and not (type(value) is int and 1 <= value <= MOST_CHANNELS):
            return f"its network has {name} {str(value)[:50]!r}"
    if model.get("in_channels", 1) != 1:
        return f"takes images of {model['in_channels']} channels, slices have one"
    return None


def _why_no_run(run: dict) -> str | None:
    kinds = {"script": (str, type(None)), "options": (dict,), "training": (list,), "validation": (list,)}
    if wrong := [name for name, kind in kinds.items() if name in run and not isinstance(run[name], kind)]:
        return f"its record of the run has another type of {wrong[0]}"
    if any(not isinstance(stem, str) for name in ("training", "validation") for stem in run.get(name, [])):
        return "its record of the run has slices without names"
    return None


def _check_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Raise InputError if weights are larger than the file, as an expanded tensor can be, or can't be weights."""
    if sparse := [name for name, weight in weights.items() if weight.layout != torch.strided]:
        raise InputError(f"{path}: its weights are sparse ({sparse[0]}); save them dense")
    stored = sum(weight.numel() * weight.element_size() for weight in weights.values())
    if stored > MOST_EXPANDED * path.stat().st_size:
        raise InputError(f"{path}: damaged, its weights are larger than the file; download or copy it again")
    if bad := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise InputError(f"{path}: its weights are NaN or infinite ({bad[0]}); use an earlier checkpoint of that run")
    if bad := [name for name, weight in weights.items() if name.endswith("running_var") and weight.min() < 0]:
        raise InputError(f"{path}: damaged, a variance is negative ({bad[0]}); use an earlier checkpoint of that run")
    if weights and not any(weight.any() for weight in weights.values() if weight.dim() == 4):
        raise InputError(f"{path}: its weights are all 0; use an earlier checkpoint of that run")


def located(path: Path | str) -> Path:
    """The file of a network that is part of this repository, by its name, such as "small"; any other path as it is.

    A file that has such a name is known by its folder.
    """
    stored = WEIGHTS / f"{path}.pth"
    return stored if str(path) == stored.stem and stored.exists() else Path(path)


def fingerprint(path: Path | str) -> str:
    """Equal for equal files only; records which checkpoint results are from, whatever its name."""
    return hashlib.sha256(located(path).read_bytes()).hexdigest()[:16]


def load_model(path: Path | str) -> tuple[nn.Module, Preprocessing]:
    """The network of a checkpoint, rebuilt from the file only, and its preprocessing.

    The network is in eval mode. Its ``knows_turns`` says whether it was trained on flipped and rotated slices, its
    ``temperature`` by what its logits are divided to make chances of them.

    Accepts the same files as ``read_checkpoint``. Raises InputError as it does, and if weights are missing or of
    another shape.
    """
    content = read_checkpoint(Path(path))
    if "run" not in content:
        size = content["preprocessing"]["image_size"]
        warn(f"{path}: weights only: slices are resized to {size} pixels, but not cropped, rotated or scaled in gray")
    preprocessing = Preprocessing(**content["preprocessing"])
    model = rebuild(content, path).eval()
    model.temperature = content.get("temperature", 1.0)
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
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: its weights do not fit its network ({reason}); download or copy it again") from error
    except ModuleNotFoundError as error:
        name = content["model"]["name"]
        raise InputError(f"{path}: its network, {name}, needs {error.name}; pip install {error.name}") from error
    return model.to(memory_format=torch.channels_last)  # as when built; files may have another layout


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
