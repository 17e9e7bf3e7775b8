"""A setting that is cross-validated: its folders, and the record of what must not change."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.folders import Pair, list_slices
from utils.checkpoint import read_checkpoint

TABLE = "scores.csv"  # of a fold; written last


@dataclass(frozen=True)
class Setting:
    """Named as the options; ``flags`` go to the trainer."""

    name: str
    out: Path
    train_img_path: Path
    train_msk_path: Path
    semi_img_path: Path
    pairs: list[Pair]  # all labeled slices
    parts: list[list[Pair]]  # the folds
    flags: list[str]
    teacher: str | None = None
    new_network: bool = False
    label_flags: str = ""
    trained_by: str | None = None
    ensemble: list[int] | None = None  # seeds of the networks of teacher or trained_by; None: each seed its own
    test_flags: str = ""
    labeled: int | None = None  # training slices of each fold; None: all
    jobs: int = 1

    def folder(self, seed: int, fold: int, name: str | None = None) -> Path:
        """The folder for all files of this setting, or of the one called ``name``, when it holds out a fold."""
        return self.out / (name or self.name) / f"seed_{seed}_fold_{fold}"

    def source_runs(self, seed: int, fold: int) -> list[Path]:
        """The trainings of the networks of another setting that label for this one, or that it scores."""
        return [self.folder(each, fold, self.teacher or self.trained_by) / "run" for each in self.ensemble or [seed]]

    def is_scored(self, seed: int, fold: int) -> bool:
        return (self.folder(seed, fold) / TABLE).exists()

    @property
    def folds(self) -> list[list[str]]:
        """The names of the images of each fold."""
        return [sorted(image.name for image, _ in part) for part in self.parts]

    def record(self) -> None:
        """Write setting.json. A name stands for one setting: with other flags, folds of two would be mixed."""
        names = ("flags", "folds", "teacher", "new_network", "label_flags", "trained_by", "test_flags")
        now = {name: getattr(self, name) for name in names} | {
            "images": str(self.train_img_path.resolve()),
            "masks": str(self.train_msk_path.resolve()),
            "unlabeled": str(self.semi_img_path.resolve()) if self.teacher else None,
            **{name: value for name in ("labeled", "ensemble") if (value := getattr(self, name))},
            "contents": self._contents(),
        }
        path = self.out / self.name / "setting.json"
        kept = [*path.parent.glob("seed_*/run/last.pth"), *path.parent.glob(f"seed_*/{TABLE}")]
        before = json.loads(path.read_text(encoding="utf-8")) if kept and path.exists() else now
        before = {"contents": now["contents"], **before}  # those of earlier versions have none
        if before != now:
            changed = [key for key in now.keys() | before.keys() if before.get(key) != now.get(key)]
            long = {"folds": "other folds", "contents": "other contents of slices or masks"}
            listed = ", ".join(long.get(key, f"{key} {before.get(key)!r}") for key in changed)
            raise InputError(f"{path.parent}: was started with {listed}; give this setting another name or --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")

    def _contents(self) -> str:
        """Equal for equal files of slices and masks only."""
        digest = hashlib.blake2b(digest_size=16)
        unlabeled = list_slices(self.semi_img_path) if self.teacher else []
        labeled = {path for part in [self.pairs, *self.parts] for pair in part for path in pair}
        for path in [*sorted(labeled), *unlabeled]:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def training_pairs(self, fold: int) -> list[Pair]:
        """The pairs to train on without a fold; of ``labeled`` of them, always the same."""
        pairs = [pair for pair in self.pairs if pair not in self.parts[fold]]
        if self.labeled is None:
            return pairs
        if self.labeled > len(pairs):
            raise InputError(f"--labeled {self.labeled}: without fold {fold} there are {len(pairs)} slices; give fewer")
        chosen = np.random.default_rng(fold).permutation(len(pairs))[: self.labeled]
        return [pairs[index] for index in sorted(chosen)]

    def stop_if_other_folds(self, name: str) -> None:
        """The models of that setting may have been trained on slices held out here, and its scores do not compare."""
        path = self.out / name / "setting.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8"))["folds"] != self.folds:
            folds = len(self.parts)
            raise InputError(
                f"{path.parent}: has other folds than these {folds}; give its --folds and --alike, or name a setting "
                "with these"
            )

    def stop_if_other_labels(self, name: str) -> None:
        """A teacher that has seen more labels would give them away."""
        path = self.out / name / "setting.json"
        if path.exists() and (theirs := json.loads(path.read_text(encoding="utf-8")).get("labeled")) != self.labeled:
            seen = theirs or "all"
            raise InputError(
                f"--teacher {name}: was trained on {seen} slices, not {self.labeled or 'all'}; name another"
            )


def trained_folds(setting: Path) -> Iterator[tuple[Path, list[str]]]:
    """The checkpoint of each finished training of a setting, ``OUT/NAME``, and the names of the images held out."""
    try:
        folds = json.loads((setting / "setting.json").read_text(encoding="utf-8"))["folds"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{setting}: no setting.json of benchmarks.crossval; give the folder of a setting") from error
    for run in sorted(setting.glob("seed_*_fold_*/run")):
        if is_finished(run):
            yield run / "best.pth", folds[int(run.parent.name.rpartition("_")[2])]


def held_out(model: Path, pairs: Sequence[Pair]) -> list[tuple[Path, list[Pair]]]:
    """Each network of a setting, ``OUT/NAME``, with the pairs that it was not trained on; a checkpoint, with all pairs.

    Raises InputError if no network of the setting is trained.
    """
    if not model.is_dir():
        return [(model, list(pairs))]
    networks = [
        (checkpoint, [pair for pair in pairs if pair[0].name in names]) for checkpoint, names in trained_folds(model)
    ]
    if not networks:
        raise InputError(f"{model}: no fold is trained; run benchmarks.crossval first")
    return networks


def stop_if_untrained(runs: list[Path], name: str) -> None:
    """Raise InputError if one of the runs of a setting is not done; it may have a best.pth already."""
    if missing := [run for run in runs if not is_finished(run)]:
        raise InputError(f"{missing[0]}: training is not finished; run the setting {name} with these folds first")


def is_finished(run: Path) -> bool:
    """Whether a training has done all of its epochs."""
    if not (last := run / "last.pth").exists():
        return False
    checkpoint = read_checkpoint(last)
    return checkpoint["epoch"] == checkpoint["run"]["options"]["epoch"]
