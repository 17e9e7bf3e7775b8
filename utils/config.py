"""The settings of training, prediction, labeling and evaluation: defaults, recipes and cross-checks."""

import math
import os
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path

from data.errors import InputError
from data.folders import FOLDERS, PSEUDO_MASKS
from data.preprocess.window import LUNG, Window
from models import options_of
from utils.training.losses import options_of_loss

DEFAULT_FOLDERS = {
    "train_img_path": FOLDERS["train"][0],
    "train_msk_path": FOLDERS["train"][1],
    "semi_img_path": FOLDERS["unlabeled"][0],
    "semi_msk_path": PSEUDO_MASKS,
}
COMPILERS = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of a run, named as the trainers' flags, whose ``--help`` describes them.

    The defaults are the best recipe that cross-validation has found; ``RECIPES`` holds the others. To change a
    setting, use ``dataclasses.replace(config, lr=1e-3)``.
    """

    recipe: str = "default"

    # Folders; None is the one of DEFAULT_FOLDERS under data_root, or no such folder.
    data_root: Path = Path(".")
    train_img_path: Path | None = None
    train_msk_path: Path | None = None
    val_img_path: Path | None = None
    val_msk_path: Path | None = None
    semi_img_path: Path | None = None
    semi_msk_path: Path | None = None
    semi_truth_path: Path | None = None
    val_fraction: float = 0.0

    # Preprocessing and augmentation.
    image_size: int = 256
    align_grays: bool = True
    align_turns: bool = True
    data_augmentation: bool = True

    # The network.
    model: str = "cares_unet"
    base_channels: int = 64
    block: str = "residual"
    upsample: str = "carafe"

    # Training.
    epoch: int = 400
    batchsize: int = 4
    optimizer_type: str = "ranger"
    lr: float | None = None  # see learning_rate
    weight_decay: float = 0.0
    lr_schedule: str = "flat_cosine"
    decay_rate: float = 0.1
    decay_epoch: int = 30
    decay_start_epoch: int = 800
    loss: str = "ce_dice"
    lesion_margin: float = 1.5
    dice_over: str = "slice"
    clip_grad: float = 1.0
    ema_decay: float = 0.99
    seed: int = 0

    # Semi-supervised training.
    method: str | None = None  # None: teacher if a run starts from trained weights, else pseudo
    favor_lesions: bool = True
    labeled_finish: float = 0.45
    confidence: float = 0.0

    # The machine.
    device: str = "auto"
    amp: str = "auto"
    num_workers: int | None = None
    cache_gb: float = 4.0
    compile: bool = False
    accumulate: int = 1

    # Results.
    save_folder: Path = Path("runs/supervised")
    save_start_epoch: int = 0
    snapshots: int = 0

    def __post_init__(self) -> None:
        for name in [f.name for f in fields(self) if "Path" in str(f.type)]:
            if isinstance(value := getattr(self, name), str):  # as in a notebook
                object.__setattr__(self, name, Path(value))

    @property
    def learning_rate(self) -> float:
        """``lr``; by default 5e-3 up to width 16, and inversely proportional to the width above it.

        Yang et al. (2021) derive this for optimizers like Adam, and cross-validation confirms it.
        """
        return 5e-3 * min(1.0, 16 / self.base_channels) if self.lr is None else self.lr

    @property
    def network(self) -> dict:
        """The arguments of ``build_model``: the name, and those of NETWORK_FIELDS that this network takes."""
        return {"name": self.model, **{name: getattr(self, name) for name in NETWORK_FIELDS if self._has(name)}}

    def _has(self, name: str) -> bool:
        return name in options_of(self.model)

    def folder(self, name: str) -> Path:
        """One of DEFAULT_FOLDERS."""
        return getattr(self, name) or self.data_root / DEFAULT_FOLDERS[name]

    def to_dict(self) -> dict:
        """The settings as plain types, for a checkpoint, without those of one machine or one call."""
        here = ("device", "save_folder")
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in here}
        kept["lr"] = self.learning_rate
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in kept.items() if value is not None
        }

    def validate(self) -> "TrainingConfig":
        """Return the config. Raises InputError if its settings conflict."""
        if self.batchsize % self.accumulate:
            raise InputError(
                f"--accumulate {self.accumulate}: does not divide --batchsize {self.batchsize}; change either"
            )
        if self.batchsize // self.accumulate * math.ceil(self.image_size / 16) ** 2 == 1:
            flags = f"--batchsize {self.batchsize}" + (
                f" --accumulate {self.accumulate}" if self.accumulate > 1 else ""
            )
            raise InputError(
                f"{flags}: leaves one value to normalize at this --image_size; raise --image_size or --batchsize"
            )
        if self.compile and not any(map(shutil.which, COMPILERS)):
            raise InputError(f"--compile: needs a C++ compiler ({', '.join(COMPILERS)}), none was found; leave it out")
        if (self.val_img_path is None) != (self.val_msk_path is None):
            raise InputError("--val_img_path and --val_msk_path: give both or neither")
        for name in NETWORK_FIELDS:
            if not self._has(name) and getattr(self, name) != getattr(TrainingConfig, name):
                raise InputError(
                    f"--{name} {getattr(self, name)}: --model {self.model} has no such option; leave it out"
                )
        if "dice_over" not in options_of_loss(self.loss) and self.dice_over != RECIPES[self.recipe].dice_over:
            raise InputError(f"--dice_over {self.dice_over}: --loss {self.loss} has no such option; leave it out")
        self._validate_method()
        return self

    def _validate_method(self) -> None:
        if self.method == "teacher" and not self.data_augmentation:
            raise InputError(
                "--method teacher: learns nothing with --no-data_augmentation (or --recipe paper); use --method pseudo"
            )
        if self.method == "pseudo" and self.confidence:
            raise InputError(
                f"--confidence {self.confidence:g}: applies to --method teacher; for the masks of --method pseudo, "
                "use it with fake_labels_generator.py"
            )
        if self.method == "pseudo" and self.semi_truth_path:
            raise InputError(
                "--semi_truth_path: applies to --method teacher; to score the masks of --method pseudo, use "
                "fake_labels_generator.py --truth_path"
            )


@dataclass(frozen=True, kw_only=True)
class PredictionConfig:
    """The settings of a prediction, named as the flags of test.py and fake_labels_generator.py.

    None: as the checkpoint says (image_size, tta), or as suits the device (batchsize).
    """

    image_size: int | None = None
    batchsize: int | None = None
    tta: bool | None = None
    device: str = "auto"
    amp: str = "auto"
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What test.py predicts and scores, and where its results go; named as its flags."""

    pretrained_model: list[Path] = field(default_factory=list)  # checkpoints to predict with, or
    predictions: list[Path] = field(default_factory=list)  # folders of saved predictions
    test_img_path: Path | None = None  # None: no images, or no true masks
    test_msk_path: Path | None = None
    lung_mask_path: Path | None = None
    resize: bool = True
    window: Window = LUNG
    cache_gb: float = 4.0

    threshold: float = 0.5
    empty: str = "one"

    img_save_folder: Path = Path("CARes_Unet")
    save_prob: bool = False
    save_type: str = "solo"
    sort: str = "dice"
    table: str | None = None

    @property
    def reads(self) -> list[Path]:
        """The paths that are read, which no result may overwrite."""
        inputs = [self.test_img_path, self.test_msk_path, self.lung_mask_path, *self.predictions]
        return [path for path in inputs if path]


@dataclass(frozen=True, kw_only=True)
class LabelingConfig:
    """What fake_labels_generator.py labels, and where its masks go; named as its flags."""

    model_path: Path
    image_dir: Path
    mask_dir: Path
    confidence: float = 0.0
    truth_path: Path | None = None
    window: Window = LUNG
    cache_gb: float = 4.0


NETWORK_FIELDS = ("base_channels", "block", "upsample")
RECIPES = {
    "default": TrainingConfig(),
    "paper": TrainingConfig(
        recipe="paper",
        epoch=1200,
        lr=5e-4,
        lr_schedule="step",
        method="pseudo",
        favor_lesions=False,
        labeled_finish=0.0,
        align_grays=False,
        align_turns=False,
        data_augmentation=False,
        lesion_margin=0.0,
        dice_over="batch",
        ema_decay=0.0,
        clip_grad=0.0,
        amp="off",
    ),
    "cpu": TrainingConfig(recipe="cpu", base_channels=8, image_size=192),
}


def overrides(recipe: str) -> dict:
    """The settings in which a recipe differs from the default one, as ``{name: value}``."""
    names = [f.name for f in fields(TrainingConfig)]
    chosen, default = RECIPES[recipe], RECIPES["default"]
    return {name: getattr(chosen, name) for name in names if getattr(chosen, name) != getattr(default, name)}
