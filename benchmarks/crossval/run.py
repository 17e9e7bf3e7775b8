"""Train without a fold and score it, for every seed and fold."""

import csv
import multiprocessing
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm

import fake_labels_generator
import semi_supervised_train
import supervised_train
from benchmarks.crossval.setting import TABLE, Setting, is_finished
from data.errors import InputError, Stopped
from data.io.whole import whole
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, settings
from utils.cli.prediction import add_prediction_options, add_score_options
from utils.config import EvaluationConfig, PredictionConfig
from utils.evaluation.cases import Case
from utils.evaluation.metrics import EMPTY_RULES, ratios
from utils.inference.predictor import Predictor
from utils.output.folder import append_row


def run_folds(setting: Setting, work: Sequence[tuple[int, int]]) -> list[dict[str, float]]:
    """The Dice of each slice of each seed and fold, several folds at a time if the setting has ``jobs``."""
    if setting.jobs == 1:
        return [run_fold(setting, *job) for job in work]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(setting.jobs, spawn, initializer=begin_worker) as pool:
        try:
            return list(pool.map(run_fold_in_worker, [setting] * len(work), *zip(*work, strict=True)))
        except BrokenProcessPool as error:
            raise InputError(
                "a worker was killed, perhaps for lack of memory; run again with fewer --jobs to resume"
            ) from error
        except BaseException:
            end_workers()  # their runs can be resumed
            pool.shutdown(cancel_futures=True)
            raise


def begin_worker() -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # a lock between processes would leak when a worker is terminated


def end_workers() -> None:
    """Terminate the workers: one that continued without us would write to the folder of the next call."""
    for worker in multiprocessing.active_children():
        worker.terminate()


def run_fold_in_worker(setting: Setting, seed: int, fold: int) -> dict[str, float]:
    """``run_fold``, after which a worker that was asked to stop is gone: a broken pool asks idle ones no more."""
    try:
        return run_fold(setting, seed, fold)
    except Stopped as stop:
        os._exit(128 + stop.number)


def run_fold(setting: Setting, seed: int, fold: int) -> dict[str, float]:
    """Train without a fold, predict it, and return the Dice of each of its slices."""
    folder = setting.folder(seed, fold)
    if not setting.is_scored(seed, fold):
        folder.mkdir(parents=True, exist_ok=True)
        if not setting.trained_by:
            with logged(folder / "train.log", quiet=setting.jobs > 1):
                train(setting, seed, fold)
        with logged(folder / "test.log", quiet=setting.jobs > 1):
            evaluate(setting, seed, fold)
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        dice = {row["image"]: float(row["dice"]) for row in csv.DictReader(file)}
    print(f"fold        {fold}, seed {seed}: Dice {fmean(dice.values()):.3f} of {len(dice)} slices")
    return dice


@contextmanager
def logged(path: Path, *, quiet: bool) -> Iterator[None]:
    """Write what is printed to a file; ``quiet``: progress bars, too. InputErrors name the file."""
    with path.open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log if quiet else sys.stderr):
        try:
            yield
        except InputError as error:
            raise InputError(f"{path.parent}: {error}") from error


def train(setting: Setting, seed: int, fold: int) -> None:
    """Train on the other folds (and, with a teacher, on unlabeled slices), or resume that."""
    folder = setting.folder(seed, fold)
    folder_of_run, last = folder / "run", folder / "run" / "last.pth"
    if is_finished(folder_of_run):
        return
    script = semi_supervised_train if setting.teacher else supervised_train
    if last.exists():
        flags = ["--resume", last]
    else:
        shutil.rmtree(folder_of_run, ignore_errors=True)  # a run that was killed before its first last.pth
        flags = ["--seed", seed, "--save_folder", folder_of_run, *setting.flags]
        if setting.teacher:
            teachers = [run / "best.pth" for run in setting.source_runs(seed, fold)]
            own, masks = setting.folder(seed, fold, setting.teacher) / "run" / "best.pth", folder / "Pos-Mask"
            paths = ["--model_path", *teachers, "--Image_dir", setting.semi_img_path, "--Mask-dir", masks]
            fake_labels_generator.label(*fake_labels_generator.parse(words(paths, setting.label_flags)))
            flags += ["--semi_img_path", setting.semi_img_path, "--semi_msk_path", masks]
            flags += [] if setting.new_network else ["--pretrained_model", own]
    try:
        script.train(*script.parse(words(flags)), setting.training_pairs(fold))
    except Stopped as stop:
        raise Stopped(f"{folder_of_run}; repeat this command to continue", stop.number) from stop


def evaluate(setting: Setting, seed: int, fold: int) -> None:
    """Predict the fold that was held out, and write the scores of its slices."""
    folder = setting.folder(seed, fold)
    runs = setting.source_runs(seed, fold) if setting.trained_by else [folder / "run"]
    config, prediction = evaluation_settings(setting.test_flags)
    predictor = Predictor(*(run / "best.pth" for run in runs), **vars(prediction))
    cases = [Case(image, mask) for image, mask in setting.parts[fold]]
    slices = predictor.read([case.path for case in cases], cache_gb=config.cache_gb)
    with whole(folder / TABLE) as unfinished:
        unfinished.unlink(missing_ok=True)
        for case, found in zip(cases, predictor.predict_slices(slices), strict=True):
            mask, undefined = found.mask_at(config.threshold), EMPTY_RULES[config.empty]
            append_row(unfinished, {"image": case.name, **ratios(mask, case.read_truth(), undefined=undefined)})


def evaluation_settings(flags: str) -> tuple[EvaluationConfig, PredictionConfig]:
    """The settings that flags of test.py give; those for its input and its results do not apply."""
    parser = Parser("How the slices of a fold are predicted and scored.", prog="test.py")
    add_score_options(parser)
    add_prediction_options(parser)
    add_device_options(parser)
    args, unknown = parser.parse_known_args(shlex.split(flags))
    if unknown:
        raise InputError(f"--test_flags: {' '.join(unknown)} does not apply here; leave it out")
    return settings(args, EvaluationConfig), settings(args, PredictionConfig)


def words(flags: Sequence[object], more: str = "") -> list[str]:
    """A command line, with flags in one string at its end."""
    return [*map(str, flags), *shlex.split(more)]
