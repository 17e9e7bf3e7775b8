"""The slices that a run learns and is validated on, and how they are loaded."""

import os

from data.errors import InputError
from data.files import Pair, cases_of, pair_by_stem, split_pairs
from data.slices import LesionSlices
from utils.checkpoint import Start
from utils.config import TrainingConfig
from utils.device import choose_device


def labeled_pairs(config: TrainingConfig) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on and those to validate on: the folders of ``val_img_path``, or a ``val_fraction``."""
    pairs = pair_by_stem(config.folder("train_img_path"), config.folder("train_msk_path"))
    if config.val_img_path:
        return pairs, pair_by_stem(config.val_img_path, config.val_msk_path)
    training, validation = split_pairs(pairs, config.val_fraction, config.seed, cases_of(pairs))
    if not training:
        raise InputError(
            f"--val_fraction {config.val_fraction:g}: leaves none of the {len(pairs)} slices of "
            f"{config.folder('train_img_path')} to train on; lower it or add slices"
        )
    return training, validation


def initial_preprocessing(config: TrainingConfig, start: Start | None) -> dict:
    """What is done to every slice before the network sees it, as the data sets take it and checkpoints keep it."""
    typical = start.content["preprocessing"]["typical_slice"] if start and config.align_turns else None
    return {"image_size": config.image_size, "align_grays": config.align_grays, "typical_slice": typical}


def loader_options(config: TrainingConfig, *slices: LesionSlices) -> dict:
    """How a DataLoader is to read the slices: by workers if they are decoded anew at every access."""
    workers = config.num_workers
    if workers is None:
        workers = 0 if all(part.kept for part in slices) else min(4, os.cpu_count())
    return {"num_workers": workers, "pin_memory": choose_device(config.device).type == "cuda"}
