"""The networks to compare as settings of benchmarks.crossval, and the choice of their learning rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import semi_supervised_train
import supervised_train
from benchmarks.compare.published import TABLES
from benchmarks.crossval.run import run_folds, words
from benchmarks.crossval.setting import Setting
from data.folders import Pair, list_slices
from models import MODELS, options_of
from utils.output.console import warn

LEARNED = 0.2  # Dice of a network that has begun to find lesion
SEMI, PSEUDO_FIRST = "semi_", "pseudo_first"


@dataclass(frozen=True)
class Protocol:
    """What all networks have in common. ``shared``: the setting but for name and flags."""

    shared: Setting
    models: list[str]
    epoch: int
    widths: Mapping[str, int]
    semi: bool  # each network semi-supervised, too
    semi_epoch: int
    table: int | None
    rates: Sequence[str]  # learning rates to choose from, as given; none: the trainers'
    sweep_epoch: int
    sweep_parts: list[list[Pair]]  # of the labeled slices; the first is held out
    seeds: Sequence[int]

    @property
    def work(self) -> list[tuple[int, int]]:
        return [(seed, fold) for seed in self.seeds for fold in range(len(self.shared.parts))]

    def settings(self, model: str, lr: str | None) -> list[Setting]:
        """The settings of a network: supervised and, as far as it was asked for, semi-supervised."""
        supervised = self.setting(model, lr=lr)
        published = TABLES.get(self.table or 0, {})
        first = [PSEUDO_FIRST] if model == "inf_net" else []  # as its authors train it
        semi = [self.semi_setting(supervised, method) for method in (None, *first)]
        return [supervised, *semi] if self.semi or any(each.name in published for each in semi) else [supervised]

    def setting(self, model: str, *, lr: str | None, name: str = "", epoch: int | None = None) -> Setting:
        """The supervised setting of a network."""
        flags = [*self.shared.flags, "--model", model]
        flags += ["--base_channels", str(self.widths[model])] if model in self.widths else []
        flags += ["--epoch", str(epoch or self.epoch)] + ([] if lr is None else ["--lr", lr])
        return replace(self.shared, name=name or model, flags=flags)

    def semi_setting(self, supervised: Setting, method: str | None) -> Setting:
        """The semi-supervised form of a setting: from its networks or, by a ``method``, new ones from their masks."""
        rate = supervised.flags[supervised.flags.index("--lr") :] if "--lr" in supervised.flags else []
        flags = [*self.shared.flags, "--epoch", str(self.semi_epoch), *rate]
        if method:
            flags = [*supervised.flags, "--method", method]
        name = SEMI + supervised.name + (f"_{method}" if method else "")
        return replace(supervised, name=name, flags=flags, teacher=supervised.name, new_network=bool(method))


def check(protocol: Protocol) -> None:
    """Raise InputError for what the trainers would refuse, before the first of many trainings."""
    for model in protocol.models:
        supervised, *semi = protocol.settings(model, lr=None)
        new = ["--save_folder", protocol.shared.out / model / "run", "--seed", 0]
        supervised_train.parse(words([*supervised.flags, *new]))
        for setting in semi:
            method = [] if setting.new_network else ["--method", "teacher"]
            semi_supervised_train.parse(words([*supervised.flags, *setting.flags, *method, *new]))
            list_slices(setting.semi_img_path)


def trained(setting: Setting, work: Sequence[tuple[int, int]]) -> list[Path]:
    """Train a setting as far as it is not done. Returns its runs, which have no ``last.pth``."""
    print(f"\n{'network':<11} {setting.name}: {described(setting)}")
    setting.record()
    run_folds(setting, work)
    runs = [setting.folder(*job) / "run" for job in work]
    remove(runs, "last.pth")
    return runs


def described(setting: Setting) -> str:
    """The flags of a setting, and where it starts from."""
    source = [f"masks of {setting.teacher}" if setting.new_network else f"from {setting.teacher}"]
    return " ".join([*(source if setting.teacher else []), *setting.flags])


def chosen_rate(protocol: Protocol, model: str) -> str | None:
    """The learning rate with the best Dice on some training slices, of a short training with each; None: the default.

    These are the first fold or, without folds, a quarter of the training slices, never test slices.
    """
    if len(protocol.rates) < 2:
        return protocol.rates[0] if protocol.rates else None
    dice = {}
    for lr in protocol.rates:
        setting = protocol.setting(model, lr=lr, name=f"{model}_lr{lr}", epoch=protocol.sweep_epoch)
        setting = replace(setting, parts=protocol.sweep_parts)
        setting.record()
        [found] = run_folds(setting, [(protocol.seeds[0], 0)])
        remove([setting.folder(protocol.seeds[0], 0) / "run"], "last.pth", "best.pth")
        dice[lr] = fmean(found.values())
    best = max(dice, key=lambda lr: dice[lr])
    tried = ", ".join(f"{lr}: {value:.3f}" for lr, value in dice.items())
    print(f"{'rate':<11} {model}: {best} ({tried} on held-out slices after {protocol.sweep_epoch} epochs)")
    if dice[best] < LEARNED:
        warn(f"{model} has learned too little for a choice between learning rates; raise --sweep_epoch")
    return best


def remove(runs: Sequence[Path], *names: str) -> None:
    """Remove checkpoints that are no longer needed: all networks have several GB of them."""
    for run in runs:
        for name in names:
            (run / name).unlink(missing_ok=True)


def in_order(models: Sequence[str] | None) -> list[str]:
    """CARes-UNet first, with which the others are compared, then as given, each once; by default, all."""
    return sorted(dict.fromkeys(models or MODELS), key=lambda name: name != "cares_unet")


def takes_width(model: str) -> bool:
    return "base_channels" in options_of(model)
