"""The slices that a run trains and validates on, and how to load them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.datasets import LesionSlices, digest_of
from data.errors import InputError, listed
from data.folders import FOLDERS, Pair, cases_of, list_slices, pair_by_stem, split_pairs
from data.io.images import read_all, read_image
from data.preprocess.preprocessing import Preprocessing
from utils.config import TrainingConfig
from utils.device import choose_device
from utils.output.console import report_pairs, warn
from utils.training.start import Start


def labeled_pairs(config: TrainingConfig, pairs: Sequence[Pair] | None = None) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """The pairs to train on and those to validate on: the folders of ``val_img_path``, or a ``val_fraction``.

    pairs: the labeled slices, by default those in the folders of the config.
    """
    if pairs is None:
        pairs = pair_by_stem(config.folder("train_img_path"), config.folder("train_msk_path"))
    if config.val_img_path and config.val_msk_path:
        return pairs, pair_by_stem(config.val_img_path, config.val_msk_path)
    training, validation = split_pairs(pairs, config.val_fraction, config.seed, cases_of(pairs))
    if not training:
        raise InputError(
            f"--val_fraction {config.val_fraction:g}: leaves none of the {len(pairs)} slices of "
            f"{pairs[0][0].parent} to train on; lower it or add slices"
        )
    return training, validation


def read_labeled(
    config: TrainingConfig, start: Start | None = None, pairs: Sequence[Pair] | None = None
) -> tuple[LesionSlices, LesionSlices | None]:
    """The labeled slices to train on and those to validate on, if any, with their preprocessing.

    A new run learns orientation and framing from its training slices, a run with ``start`` takes them from there.
    Raises InputError if a setting, a folder or a file can't be used.
    """
    config.validate()
    train_pairs, val_pairs = labeled_pairs(config, pairs)
    options: dict[str, Any] = {"cache_gb": config.cache_gb, "reading": config.reading}
    plain = Preprocessing(image_size=config.image_size, align_grays=config.align_grays)
    known = start.preprocessing if start else plain  # of an earlier run, if any
    # In a new run they are not cropped: others are, to be like these.
    crop = config.align_frame and known.align_frame
    labeled = LesionSlices(train_pairs, replace(plain, align_frame=crop), **options)
    learned = plain.learn(labeled.portraits)
    oriented = known if known.typical_slice else learned
    preprocessing = replace(plain, align_frame=config.align_frame and (known.align_frame or learned.align_frame))
    if config.align_turns:
        names = ("typical_slice", "front_to_back", "least_likeness")
        preprocessing = replace(preprocessing, **{name: getattr(oriented, name) for name in names})
    labeled.reorient(preprocessing)
    validation = LesionSlices(val_pairs, preprocessing, **options) if val_pairs else None
    report_pairs("labeled", labeled)
    report_pairs("validation", validation)
    return labeled, validation


def read_pseudo_labeled(config: TrainingConfig, preprocessing: Preprocessing) -> LesionSlices:
    """The unlabeled slices with their pseudo masks and, if these are known, their true masks."""
    images, masks = config.folder("semi_img_path"), config.folder("semi_msk_path")
    files: list[tuple[Path, ...]] = list(pair_by_stem(images, masks))
    if config.semi_truth_path:
        truth_of = dict(pair_by_stem(images, config.semi_truth_path))
        files = [(image, mask, truth_of[image]) for image, mask in files]
    pseudo = LesionSlices(files, preprocessing, cache_gb=config.cache_gb, reading=config.reading, pseudo=True)
    report_pairs("pseudo", pseudo)
    return pseudo


def warn_of_copies(config: TrainingConfig, pseudo: LesionSlices, validation: LesionSlices | None) -> None:
    """Warn if pseudo-labeled slices are, pixel for pixel, those to validate on, or those of the test folder."""
    others: dict[str, set[bytes]] = {"validation": set(validation.digests) if validation else set()}
    folder = config.data_root / FOLDERS["test"][0]
    try:
        files = list_slices(folder) if folder.is_dir() else []
        reading = config.reading.for_slices(files) if files else config.reading
        plain = pseudo.decoder
        digests = read_all(lambda path: digest_of(plain.resample(read_image(path, reading)).numpy()), files)
        others["test"] = set(digests)
    except InputError as error:
        warn(f"not compared with the pseudo-labeled slices: {error}")
    for kind, seen in others.items():
        files = [pair[0] for pair, digest in zip(pseudo.files, pseudo.digests, strict=True) if digest in seen]
        if files:
            names = listed([path.name for path in files])
            warn(f"{len(files)} pseudo-labeled slices are {kind} slices, whose scores are then too high: {names}")


def loader_options(config: TrainingConfig, *slices: LesionSlices) -> dict:
    """Options of a DataLoader: with workers if the slices are decoded at every access."""
    workers = config.num_workers
    if workers is None:
        workers = 0 if all(part.kept for part in slices) else min(4, os.cpu_count() or 1)
    return {"num_workers": workers, "pin_memory": choose_device(config.device).type == "cuda"}
