"""``fit``: the training loop of both trainers, with validation, logging, checkpoints and resume."""

import math
import time
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.datasets import LesionSlices
from data.errors import InputError, Stopped
from models import config_of
from utils.config import TrainingConfig
from utils.evaluation.metrics import scores
from utils.inference.calibration import calibrate
from utils.inference.predictor import Predictor
from utils.lesions import lesions
from utils.output.console import warn
from utils.output.folder import lock_folder, prepare_folder
from utils.training.data import loader_options
from utils.training.log import RunLog
from utils.training.methods import Supervised
from utils.training.pictures import Pictures
from utils.training.saving import RunCheckpoints
from utils.training.start import Start, check_slices, check_start, initial_model
from utils.training.state import Training
from utils.training.stopping import StopRequest

STATE_ERRORS = (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError)
READ_LOSS_EVERY = 1  # seconds; reading a loss makes the host wait for the GPU


def fit(
    config: TrainingConfig,
    method: Supervised,
    validation: LesionSlices | None = None,
    *,
    script: str = "fit",
    start: Start | None = None,
) -> None:
    """Train the network of the config for ``config.epoch`` epochs and keep the results in ``config.save_folder``.

    method: the batches, and what to learn from them; one pass over the batches is an epoch.
    validation: the weights with the best mean Dice on it become ``best.pth``, and ``validation.png`` shows six of it.
    Without it (None), ``best.pth`` has the newest weights, and ``training.png`` shows six labeled slices.
    script: the name under which the checkpoints record the run.
    start: the checkpoint of the network to start from, or of the run to resume; its content is released.
    A run resumed from ``last.pth`` gives the same result bit for bit. ``config.seed`` decides weights and batches.
    Asked to stop (Ctrl-C, SIGTERM, SIGHUP), it saves ``last.pth`` after the epoch and raises ``Stopped``.
    Raises InputError if settings conflict, the folder has another run or can't be written, there is no full batch, or
    the loss is no longer finite.
    """
    config.validate()
    check_start(config, start)
    batches, folder = method.batches, config.save_folder
    if config.calibrate and validation is None:
        raise InputError("--calibrate: needs slices to validate on; give --val_fraction, or --val_img_path")
    if len(batches) == 0:
        raise InputError(f"--batchsize {config.batchsize}: fewer training slices than that; lower it or add slices")
    prepare_folder(folder)
    lock = lock_folder(folder)
    last = folder / "last.pth"

    slices = {"training": _stems(method.labeled), "validation": _stems(validation)}
    check_slices(start, slices)
    torch.manual_seed(config.seed)
    model, preprocessing = initial_model(config, start), method.labeled.preprocessing
    training = Training(model, config, steps_per_epoch=len(batches), trained=start is not None)
    done, best = _begin(training, config, start, steps_per_epoch=len(batches))
    log = RunLog(folder, epochs_done=done)
    run = {"script": script, "options": config.to_dict(), **slices}
    checkpoints = RunCheckpoints(config, training, {"preprocessing": preprocessing.to_dict(), "run": run})
    print(f"training    {_describe(training, config)}")
    print(f"run         epochs {done + 1} to {config.epoch} of {len(batches)} steps; if interrupted: --resume {last}")

    amp, device = training.precision, str(training.device)
    predictor = Predictor((training.average, preprocessing), device=device, amp=amp, tta=False)
    pictures = Pictures(log, predictor, method, validation)
    if not done:
        pictures.begin()
    bar = tqdm(total=config.epoch * len(batches), initial=done * len(batches), unit="step", disable=None)
    with lock, bar, log, StopRequest() as stop:
        for epoch in range(done + 1, config.epoch + 1):
            started = time.monotonic()
            bar.set_description_str(f"epoch {epoch}" + (f", best Dice {best:.3f}" if best >= 0 else ""), refresh=False)
            method.start_epoch(epoch)
            if epoch == method.best_restarts_at:
                best = -1.0
            row = {"epoch": epoch, **_train_epoch(training, method, bar, last), **method.report()}
            if validation is not None:
                row |= validate(training, validation, config)
            if not (training.is_finite() and math.isfinite(row.get("val_loss", 0.0))):
                raise InputError(_lost(f"the weights are after step {training.steps}", row["lr"], last))
            row["seconds"] = time.monotonic() - started
            is_best = validation is None or row["val_dice"] > best
            best = row.get("val_dice", best) if is_best else best
            log.add(row, is_best=is_best)
            pictures.update(now=epoch == config.epoch)
            # Without validation every epoch is the best so far, and writing each could take longer than training it.
            end = bool(stop.signal) or epoch == config.epoch
            checkpoints.save(epoch, best, is_best=is_best, can_wait=validation is None, now=end)
            if end and epoch < config.epoch:
                raise Stopped(f"after epoch {epoch}, go on with --resume {last}", stop.signal)
    _report_end(training, config, best, validated=validation is not None)
    if config.calibrate and validation is not None:
        found = calibrate(folder / "best.pth", validation.files, config.reading, device=device, amp=amp)
        print(f"temperature {found.temperature:.2f}: calibration error {found.before:.4f} -> {found.after:.4f}")


def _begin(
    training: Training, config: TrainingConfig, start: Start | None, *, steps_per_epoch: int
) -> tuple[int, float]:
    """Restore a run to resume. Returns the epochs that are done and the best validation Dice so far, or -1."""
    done, best = 0, -1.0
    if start and start.resume:
        done = start.content["epoch"]
        if (config.save_folder / "best.pth").exists():  # not in another --save_folder
            best = start.content["best_score"]
        rates = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        try:
            training.load_state_dict(start.content["training"], **rates, steps=done * steps_per_epoch)
        except STATE_ERRORS as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"--resume {start.path}: damaged, its state does not fit the run ({reason}); continue from its weights "
                "by --pretrained_model"
            ) from error
    if start:
        start.content = {}  # frees as much memory as network and optimizer take
    return done, best


def _report_end(training: Training, config: TrainingConfig, best: float, *, validated: bool) -> None:
    print(f"finished    {config.save_folder / 'best.pth'}" + (f", validation Dice {best:.4f}" if validated else ""))
    if training.device.type == "cuda":
        print(f"memory      {torch.cuda.max_memory_allocated(training.device) / 1e9:.2f} GB of GPU memory at most")
    if best == 0:
        warn("no lesion was found in the validation slices; look at validation.png and curves.png")


def _train_epoch(training: Training, method: Supervised, bar: tqdm, last: Path) -> dict[str, float]:
    batches = method.batches
    training.model.train()
    steps_before, read_at = training.steps, time.monotonic()
    losses = torch.zeros(len(batches), device=training.device)
    for step, (images, masks) in enumerate(batches):
        lr = training.lr
        images = images.to(training.device, non_blocking=True)
        masks = masks.to(training.device, non_blocking=True)
        losses[step] = training.step(*method.prepare(images, masks, training.average_logits))
        if time.monotonic() - read_at > READ_LOSS_EVERY or step == len(batches) - 1:
            read_at = time.monotonic()
            _stop_if_not_finite(losses[: step + 1], steps_before, lr, last)
            bar.set_postfix_str(f"loss {losses[: step + 1].mean().item():.3f}", refresh=False)
        bar.update()
    return {"lr": lr, "train_loss": losses.mean().item()}


@torch.inference_mode()
def validate(training: Training, slices: LesionSlices, config: TrainingConfig) -> dict[str, float]:
    """Loss and mean scores of the averaged weights."""
    losses, rows = [], []
    for images, masks in DataLoader(slices, batch_size=config.batchsize, **loader_options(config, slices)):
        logits = training.average_logits(images.to(training.device))
        loss = training.loss(logits, masks.to(training.device), margin=training.lesion_margin).item()
        losses += [loss] * len(masks)
        rows += [scores(p, m) for p, m in zip(lesions(logits).cpu(), masks, strict=True)]
    means = {f"val_{name}": fmean(row[name] for row in rows) for name in rows[0]}
    return {"val_loss": sum(losses) / len(losses), **means}


def _stems(slices: LesionSlices | None) -> list[str]:
    return [image.stem for image, _ in slices.files] if slices is not None else []


def _describe(training: Training, config: TrainingConfig) -> str:
    model, precision = training.model, training.precision
    if training.device.type == "cuda":
        device = torch.cuda.get_device_name(training.device)
    elif training.device.type == "mps":
        device = "an Apple GPU (MPS)"
    else:
        device = f"CPU with {torch.get_num_threads()} threads"
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    network = config_of(model)
    width = f" of width {network['base_channels']}" if "base_channels" in network else ""
    return (
        f"{network['name']}{width}, {parameters:.2f} M parameters, {config.image_size} px, on {device}, "
        f"{'float32' if precision == 'off' else precision}"
    )


def _stop_if_not_finite(losses: Tensor, steps_before: int, lr: float, last: Path) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = steps_before + bad[0].item() + 1
        raise InputError(_lost(f"the loss is at step {step}", lr, last))


def _lost(what: str, lr: float, last: Path) -> str:
    rescue = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was saved yet"
    return f"NaN or infinite: {what}, learning rate {lr:.3g}; {rescue}; try a lower --lr"
