"""The networks to compare as settings of benchmarks.crossval, and the choice of their learning rates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from benchmarks.crossval.run import run_folds
from benchmarks.crossval.setting import Setting
from data.folders import Pair
from models import MODELS, options_of

SEMI = "semi_"


@dataclass(frozen=True)
class Protocol:
    """What all networks have in common. ``shared``: the setting but for name and flags."""

    shared: Setting
    epoch: int
    widths: dict[str, int]
    sweep: Sequence[str]  # learning rates, as given
    sweep_epoch: int
    sweep_parts: list[list[Pair]]  # of the labeled slices; the first is held out
    seeds: Sequence[int]

    @property
    def work(self) -> list[tuple[int, int]]:
        return [(seed, fold) for seed in self.seeds for fold in range(len(self.shared.parts))]

    def setting(self, model: str, *, lr: str | None, name: str = "", epoch: int | None = None) -> Setting:
        """The setting of a network."""
        width = self.widths.get(model) if "base_channels" in options_of(model) else None
        flags = [*self.shared.flags, "--model", model]
        flags += [] if width is None else ["--base_channels", str(width)]
        flags += ["--epoch", str(epoch or self.epoch)] + ([] if lr is None else ["--lr", lr])
        return replace(self.shared, name=name or model, flags=flags)

    def semi(self, supervised: Setting, *, epoch: int, method: str | None = None) -> Setting:
        """The semi-supervised form of a setting: from its networks or, by a ``method``, new ones from their masks."""
        rate = supervised.flags[supervised.flags.index("--lr") :] if "--lr" in supervised.flags else []
        flags = [*self.shared.flags, "--epoch", str(epoch), *rate]
        if method:
            flags = [*supervised.flags, "--epoch", str(epoch), "--method", method]
        name = SEMI + supervised.name + (f"_{method}" if method else "")
        return replace(supervised, name=name, flags=flags, teacher=supervised.name, new_network=bool(method))


def trained(setting: Setting, work: Sequence[tuple[int, int]]) -> list[Path]:
    """Train a setting as far as it is not done. Returns its runs, which have no ``last.pth``."""
    print(f"\n{'network':<11} {setting.name}: {' '.join(setting.flags)}")
    setting.record()
    run_folds(setting, work)
    runs = [setting.folder(*job) / "run" for job in work]
    remove(runs, "last.pth")
    return runs


def chosen_rate(protocol: Protocol, model: str) -> str | None:
    """The learning rate with the best Dice on some training slices, of a short training with each; None: the default.

    These are the first fold or, without folds, a quarter of the training slices, never test slices.
    """
    if not protocol.sweep:
        return None
    dice = {}
    for lr in protocol.sweep:
        setting = protocol.setting(model, lr=lr, name=f"{model}_lr{lr}", epoch=protocol.sweep_epoch)
        setting = replace(setting, parts=protocol.sweep_parts)
        setting.record()
        [found] = run_folds(setting, [(protocol.seeds[0], 0)])
        remove([setting.folder(protocol.seeds[0], 0) / "run"], "last.pth", "best.pth")
        dice[lr] = fmean(found.values())
    best = max(dice, key=lambda lr: dice[lr])
    tried = ", ".join(f"{lr}: {value:.3f}" for lr, value in dice.items())
    print(f"{'rate':<11} {model}: {best} ({tried} on held-out slices after {protocol.sweep_epoch} epochs)")
    return best


def remove(runs: Sequence[Path], *names: str) -> None:
    """Remove checkpoints that are no longer needed: all networks have several GB of them."""
    for run in runs:
        for name in names:
            (run / name).unlink(missing_ok=True)


def in_order(models: Sequence[str]) -> list[str]:
    """CARes-UNet first, with which the others are compared, then as given; by default, all."""
    names = list(models or MODELS)
    return sorted(names, key=lambda name: name != "cares_unet")
