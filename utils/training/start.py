"""How a run starts: with a new network, with a trained one, or where an interrupted run stopped."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data.errors import InputError
from data.preprocess.preprocessing import Preprocessing
from models import build_model, options_of
from utils.checkpoint import read_checkpoint, rebuild
from utils.config import NETWORK_FIELDS, TrainingConfig
from utils.device import choose_device
from utils.output.console import warn
from utils.output.folder import holds_something
from utils.training.encoder import load_encoder, weights_for

# What a run writes before its first last.pth.
FIRST = {"log.csv", "curves.png", "training.png", "validation.png", "labels_at_start.png", "labels.png", "best.pth"}


@dataclass
class Start:
    """The checkpoint that a run starts from: its weights only or, to ``resume`` it, everything."""

    path: Path
    content: dict
    resume: bool

    @classmethod
    def read(cls, path: Path | str, *, resume: bool = False) -> "Start":
        """Read a checkpoint, ``last.pth`` to resume its run. Raises InputError as ``read_checkpoint`` does."""
        start = cls(Path(path), read_checkpoint(Path(path)), resume)
        if resume and not isinstance(start.content.get("training"), dict):
            raise InputError(f"--resume {path}: not the last.pth of a run; give that file")
        options = start.content.get("run", {}).get("options", {})
        if resume and (missing := [name for name in ("recipe", "epoch", "optimizer_type") if name not in options]):
            raise InputError(f"--resume {path}: damaged, has no {missing[0]}; use an earlier checkpoint of the run")
        return start

    @property
    def network(self) -> dict[str, object]:
        """The settings of ``TrainingConfig`` that say which network it is."""
        kept = self.content["model"]
        taken = [name for name in NETWORK_FIELDS if name in options_of(kept["name"])]
        return {"model": kept["name"]} | {name: kept.get(name, getattr(TrainingConfig, name)) for name in taken}

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(**self.content["preprocessing"])


def initial_model(config: TrainingConfig, start: Start | None) -> nn.Module:
    """A new network, or the one of the checkpoint, on the device of the config."""
    model = rebuild(start.content, start.path) if start else build_model(**config.network)
    if config.encoder_weights and not start:
        load_encoder(model, config.encoder_weights)
    return model.to(choose_device(config.device))


def check_start(config: TrainingConfig, start: Start | None) -> None:
    """Raise InputError if the config conflicts with the checkpoint, or if ``save_folder`` has files of another run."""
    check_network(config, start)
    if start and start.resume:
        if config.optimizer_type != (used := start.content["run"]["options"]["optimizer_type"]):
            raise InputError(
                f"--optimizer_type {config.optimizer_type}: the run in {start.path} uses {used}; leave it out"
            )
        if config.epoch <= (done := start.content["epoch"]):
            raise InputError(
                f"--resume {start.path}: is finished after {done} epochs; give a larger --epoch to continue"
            )
    folder, last = config.save_folder, config.save_folder / "last.pth"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--save_folder {folder}: is a file; name a folder")
    is_its_own = start and start.resume and last.exists() and last.samefile(start.path)
    if not is_its_own and holds_something(folder) and not _was_aborted(folder):
        hint = f"--resume {last} to continue its run, or " if last.exists() else ""
        raise InputError(f"--save_folder {folder}: is not empty; {hint}name another folder")


def check_network(config: TrainingConfig, start: Start | None) -> None:
    """Raise InputError if the network is not that of the checkpoint or, without one, if it needs a package that is not
    installed, or other weights for its encoder."""
    if start:
        for name, used in start.network.items():
            if (asked := getattr(config, name)) != used:
                raise InputError(f"--{name} {asked}: the network in {start.path} has {used}; leave it out")
        if config.encoder_weights and not start.resume:
            raise InputError(f"--encoder_weights: the network in {start.path} is trained already; leave it out")
        return
    try:
        with torch.device("meta"):
            model = build_model(**config.network)
        if config.encoder_weights:
            weights_for(model, config.encoder_weights)
    except ModuleNotFoundError as error:
        raise InputError(f"--model {config.model}: needs {error.name}; pip install {error.name}") from error


def _was_aborted(folder: Path) -> bool:
    """Whether a run was killed there before its first ``last.pth``: it has nothing but its first epoch, if that."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith((".", "events.out.tfevents."))}
    log = folder / "log.csv"
    return names <= FIRST and log.exists() and log.read_bytes().count(b"\n") <= 2


def check_slices(start: Start | None, slices: dict[str, list[str]]) -> None:
    """Raise InputError if a resumed run would train or validate on other slices than before; warn if validation slices
    were trained on. ``slices``: the stems of both, by the names of their entries in ``run``."""
    before = start.content.get("run") if start else None
    if start is None or not before:
        return
    if start.resume:
        other = {kind: set(slices[kind]) ^ set(before[kind]) for kind in slices.keys() & before.keys()}
        if listed := [f"{kind}: {_listed(stems)}" for kind, stems in sorted(other.items()) if stems]:
            raise InputError(
                f"--resume {start.path}: the slices differ from before ({'; '.join(listed)}); "
                "restore the slices and --seed, or start a new run with --pretrained_model"
            )
    known = "validation" in before  # not of the networks in weights/
    if seen := set(slices["validation"]) - set(before.get("validation", ())):
        warn(
            f"{start.path} may have been trained on validation slices ({_listed(seen)}), whose Dice is then too high"
            + ("; give both runs the same --seed and --val_fraction" if known else "")
        )


def _listed(stems: set[str]) -> str:
    return ", ".join(sorted(stems)[:10]) + (f" and {len(stems) - 10} more" if len(stems) > 10 else "")
