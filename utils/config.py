"""The settings of training, prediction, labeling and evaluation: defaults, recipes and cross-checks."""

import math
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.folders import FOLDERS, PSEUDO_MASKS
from data.io.reading import Reading
from data.preprocess.preprocessing import LEAST_SIZE, MOST_SIZE
from data.preprocess.window import LUNG, Window
from models import loss_of, options_of
from utils.fields import admits, check, number, one_of
from utils.training.losses import options_of_loss

DEFAULT_FOLDERS = {
    "train_img_path": FOLDERS["train"][0],
    "train_msk_path": FOLDERS["train"][1],
    "semi_img_path": FOLDERS["unlabeled"][0],
    "semi_msk_path": PSEUDO_MASKS,
}
KEEP_MASKS = ("pseudo", "pseudo_first")  # methods that learn the pseudo masks as they are
PRECISIONS = ("auto", "off", "bf16", "fp16")
OF_THE_MACHINE = ("num_workers", "cache_gb")  # settings that change no result
COMPILERS = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of a run, named as the trainers' flags, whose ``--help`` describes them.

    The defaults are the best recipe that cross-validation has found; ``RECIPES`` holds the others. To change a
    setting, use ``dataclasses.replace(config, lr=1e-3)``.
    """

    recipe: str = one_of("default", "utils.config:RECIPES")

    # Folders; None is the one of DEFAULT_FOLDERS under data_root, or no such folder.
    data_root: Path = Path(".")
    train_img_path: Path | None = None
    train_msk_path: Path | None = None
    val_img_path: Path | None = None
    val_msk_path: Path | None = None
    semi_img_path: Path | None = None
    semi_msk_path: Path | None = None
    semi_truth_path: Path | None = None
    val_fraction: float = number(0.0, 0, 0.9)

    # What the values of their files mean: see data/io/reading.py.
    window: Window = LUNG
    hu_offset: float | None = number(None, -(2**16), 2**16)
    mask_threshold: float | None = number(None, 0, 1)

    # Preprocessing and augmentation.
    image_size: int = number(256, LEAST_SIZE, MOST_SIZE)
    align_grays: bool = True
    align_frame: bool = True
    align_turns: bool = True
    data_augmentation: bool = True
    augment_grays: str = one_of("usual", "data.augmentation:GRAYS")

    # The network.
    model: str = one_of("cares_unet", "models:MODELS")
    base_channels: int = number(64, 1)
    block: str = one_of("residual", "models.blocks:BLOCKS")
    upsample: str = one_of("carafe", "models.upsampling:UPSAMPLINGS")
    encoder_weights: Path | None = None

    # Training.
    epoch: int = number(400, 1)
    batchsize: int = number(4, 1)
    optimizer_type: str = one_of("ranger", "utils.training.optimizers:OPTIMIZERS")
    lr: float | None = number(None, 0, above=True)  # None: see learning_rate
    weight_decay: float = number(0.0, 0)
    lr_schedule: str = one_of("flat_cosine", "utils.training.optimizers:SCHEDULES")
    decay_rate: float = number(0.1, 0, 1, above=True)
    decay_epoch: int = number(30, 1)
    decay_start_epoch: int = number(800, 0)
    loss: str | None = one_of(None, "utils.training.losses:LOSSES")  # None: see loss_name
    lesion_margin: float = number(1.5, 0)
    dice_over: str = one_of("slice", ("slice", "batch"))
    clip_grad: float = number(1.0, 0)
    ema_decay: float = number(0.99, 0, 0.99999)
    calibrate: bool = False
    seed: int = number(0, 0, 2**63 - 1)

    # Semi-supervised training.
    method: str | None = one_of(None, "utils.training.methods:SEMI_SUPERVISED")  # None: supervised
    favor_lesions: bool = True
    labeled_finish: float = number(0.45, 0, 1)
    confidence: float = number(0.0, 0, 1)
    pseudo_weight: float = number(1.0, 0, 1000, above=True)
    pseudo_margin: float = number(0.0, 0)

    # The machine.
    device: str = "auto"
    amp: str = one_of("auto", PRECISIONS)
    num_workers: int | None = number(None, 0)
    cache_gb: float = number(4.0, 0)
    compile: bool = False
    accumulate: int = number(1, 1)

    # Results.
    save_folder: Path = Path("runs/supervised")
    save_start_epoch: int = number(0, 0)
    snapshots: int = number(0, 0)

    def __post_init__(self) -> None:
        for name in [option.name for option in fields(self) if admits(option, Path)]:
            if isinstance(value := getattr(self, name), str):  # as in a notebook
                object.__setattr__(self, name, Path(value))
        _name_window(self)

    @property
    def learning_rate(self) -> float:
        """``lr``; by default 5e-3 up to width 16, and inversely proportional to the width above it; 1.25e-3 for
        networks that have one width.

        Yang et al. (2021) derive this for optimizers like Adam, and cross-validation confirms it.
        """
        width = self.network.get("base_channels", TrainingConfig.base_channels)
        return 5e-3 * min(1.0, 16 / width) if self.lr is None else self.lr

    @property
    def network(self) -> dict:
        """The arguments of ``build_model``: the name, and those of NETWORK_FIELDS that this network takes."""
        return {"name": self.model, **self._taken(NETWORK_FIELDS, options_of(self.model))}

    @property
    def loss_name(self) -> str:
        """``loss``; by default the network's own, if it has one."""
        return self.loss or loss_of(self.model) or "ce_dice"

    @property
    def loss_options(self) -> dict:
        """Those of LOSS_FIELDS that this loss takes."""
        return self._taken(LOSS_FIELDS, options_of_loss(self.loss_name))

    def _taken(self, names: Sequence[str], by: Collection[str]) -> dict:
        return {name: getattr(self, name) for name in names if name in by}

    def folder(self, name: str) -> Path:
        """One of DEFAULT_FOLDERS."""
        return getattr(self, name) or self.data_root / DEFAULT_FOLDERS[name]

    def to_dict(self) -> dict:
        """The settings as plain types, for a checkpoint, without those of one machine or one call."""
        here = ("device", "save_folder", *OF_THE_MACHINE)
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in here}
        kept |= {"lr": self.learning_rate, "loss": self.loss_name}
        kept |= {name: str(value) for name, value in kept.items() if isinstance(value, Path)}
        return {name: value for name, value in kept.items() if value is not None} | {"window": tuple(self.window)}

    @property
    def reading(self) -> Reading:
        return Reading(window=self.window, hu_offset=self.hu_offset, mask_threshold=self.mask_threshold)

    def validate(self) -> "TrainingConfig":
        """Return the config. Raises InputError if a setting is not acceptable, or if settings conflict."""
        check(self)
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
        self._refuse_options_without_effect(f"--model {self.model}", NETWORK_FIELDS, self.network)
        self._refuse_options_without_effect(f"--loss {self.loss_name}", LOSS_FIELDS, self.loss_options)
        if self.loss_name != (own := loss_of(self.model) or self.loss_name):
            raise InputError(f"--loss {self.loss_name}: --model {self.model} needs its own, {own}; leave it out")
        if self.augment_grays != RECIPES[self.recipe].augment_grays and not self.data_augmentation:
            raise InputError(f"--augment_grays {self.augment_grays}: has no effect with --no-data_augmentation")
        self._validate_method()
        return self

    def _refuse_options_without_effect(self, taker: str, names: Sequence[str], taken: dict) -> None:
        for name in names:
            if name not in taken and (value := getattr(self, name)) != getattr(RECIPES[self.recipe], name):
                raise InputError(f"--{name} {value}: {taker} has no such option; leave it out")

    def _validate_method(self) -> None:
        if self.method and self.batchsize % 2:
            raise InputError(
                f"--batchsize {self.batchsize}: half of it is labeled, half pseudo-labeled; give an even number"
            )
        if self.method == "pseudo_first" and round(self.epoch * self.labeled_finish) == 0:
            raise InputError(
                "--method pseudo_first: learns no labeled slice without --labeled_finish; give it, as in 0.45"
            )
        keeps_masks = self.method in KEEP_MASKS
        if self.method and not keeps_masks and not self.data_augmentation:
            raise InputError(
                f"--method {self.method}: learns nothing with --no-data_augmentation (or --recipe paper); use --method "
                "pseudo"
            )
        if keeps_masks and self.confidence:
            raise InputError(
                f"--confidence {self.confidence:g}: applies to methods that label anew, as teacher; for the masks of "
                f"--method {self.method}, use it with fake_labels_generator.py"
            )
        if keeps_masks and self.semi_truth_path:
            raise InputError(
                f"--semi_truth_path: applies to methods that label anew, as teacher; to score the masks of --method "
                f"{self.method}, use fake_labels_generator.py --truth_path"
            )


def _name_window(config: Any) -> None:
    """Make the window of a config that was given as level and width a ``Window``."""
    if type(config.window) in (tuple, list) and len(config.window) == 2:
        object.__setattr__(config, "window", Window(*config.window))


@dataclass(frozen=True, kw_only=True)
class PredictionConfig:
    """The settings of a prediction, named as the flags of test.py and fake_labels_generator.py.

    None: as the checkpoint says, or as suits the device (batchsize).
    """

    image_size: int | None = number(None, LEAST_SIZE, MOST_SIZE)
    align_grays: bool | None = None
    align_frame: bool | None = None
    align_turns: bool | None = None
    within_lungs: bool | None = None
    any_values: bool = False
    window: Window = LUNG
    hu_offset: float | None = number(None, -(2**16), 2**16)
    series: int | None = number(None, 1)
    batchsize: int | None = number(None, 1)
    tta: bool | None = None
    device: str = "auto"
    amp: str = one_of("auto", PRECISIONS)
    num_workers: int = number(0, 0)

    def __post_init__(self) -> None:
        _name_window(self)

    @property
    def reading(self) -> Reading:
        return Reading(window=self.window, hu_offset=self.hu_offset)

    @property
    def scan_options(self) -> dict[str, Any]:
        """The settings of ``read_scan``."""
        return {name: getattr(self, name) for name in ("any_values", "hu_offset", "series")}


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What test.py predicts and scores, and where its results go; named as its flags."""

    pretrained_model: list[Path] = field(default_factory=list)  # checkpoints to predict with, or
    predictions: list[Path] = field(default_factory=list)  # folders of saved predictions
    test_img_path: Path | None = None  # None: no images, or no true masks
    test_msk_path: Path | None = None
    lung_mask_path: Path | None = None
    resize: bool = True
    map_max: int | None = number(None, 1, 65535)
    label: list[int] = field(default_factory=list)
    mask_threshold: float | None = number(None, 0, 1)
    cache_gb: float = number(4.0, 0)

    threshold: float = number(0.5, 0, 0.999)
    empty: str = one_of("one", "utils.evaluation.metrics:EMPTY_RULES")

    img_save_folder: Path = Path("CARes_Unet")
    save_prob: bool = False
    save_uncertainty: bool = False
    save_dicom_seg: bool = False
    save_type: str = one_of("solo", ("solo", "compare", "overlay"))
    sort: str = one_of("dice", ("dice", "name"))
    table: str | None = one_of(None, ("markdown", "latex"))

    @property
    def reads(self) -> list[Path]:
        """The paths that are read, which no result may overwrite."""
        inputs = [self.test_img_path, self.test_msk_path, self.lung_mask_path, *self.predictions]
        return [path for path in inputs if path]


@dataclass(frozen=True, kw_only=True)
class LabelingConfig:
    """What fake_labels_generator.py labels, and where its masks go; named as its flags."""

    model_path: list[Path]
    image_dir: Path
    mask_dir: Path
    confidence: float = number(0.0, 0, 1)
    truth_path: Path | None = None
    cache_gb: float = number(4.0, 0)


NETWORK_FIELDS = ("base_channels", "block", "upsample")
LOSS_FIELDS = ("dice_over",)
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
        align_frame=False,
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
