"""``fit``: the training loop of both trainers, with validation, logging, checkpoints and resume."""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.errors import InputError
from models import build_model
from utils.checkpoint import rebuild, save_checkpoint
from utils.losses import segmentation_loss
from utils.metrics import scores, summarise
from utils.optimization import build_optimizer, build_schedule
from utils.options import options_of, prepare_folder
from utils.reporting import RunLog

PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
READ_LOSS_EVERY = 10  # steps; reading a loss makes the host wait for the GPU
DRAW_EVERY = 30  # seconds; drawing takes about one, an epoch of a small network less
SAVE_SHARE = 0.05  # of the time; a full-width last.pth takes 1 GB, longer to write than a GPU needs for an epoch


def initial_model(args: argparse.Namespace) -> nn.Module:
    """A new network, or the one of ``--pretrained_model`` or ``--resume``, on the device."""
    if args.checkpoint:
        model = rebuild(args.checkpoint, args.resume or args.pretrained_model)
    else:
        model = build_model("cares_unet", base_channels=args.base_channels)
    return model.to(args.device)


def fit(model: nn.Module, batches: DataLoader, validation: Dataset | None, args: argparse.Namespace) -> None:
    """Train ``model`` for ``args.epoch`` epochs and keep the results in ``args.save_folder``.

    batches: a loader of images float32 ``(N, C, H, W)`` and masks int64 ``(N, H, W)``; one pass is one epoch.
    validation: a data set of single such items; its mean Dice decides which weights become ``best.pth``.
    Without it (None) the newest ones do. ``last.pth`` has all that a resumed run needs to go on bit for bit.
    Raises InputError if there is no full batch, the folder holds another run, or the loss stops being finite.
    """
    folder: Path = args.save_folder
    if len(batches) == 0:
        raise InputError(f"--batchsize {args.batchsize}: fewer training slices than that; lower it or add slices")
    prepare_folder(folder)
    last = folder / "last.pth"
    if last.exists() and not args.resume:
        raise InputError(f"{folder}: holds a run; continue it with --resume {last} or name another --save_folder")

    precision = choose_precision(args)
    autocast = torch.autocast(args.device.type, PRECISIONS[precision]) if PRECISIONS[precision] else nullcontext()
    ema = AveragedModel(model, use_buffers=True)
    optimizer = build_optimizer(model, args)
    schedule = build_schedule(optimizer, args, len(batches))
    scaler = torch.amp.GradScaler(args.device.type, enabled=precision == "fp16")
    parts = {"network": model, "ema": ema, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}

    done, best = 0, -1.0
    if args.resume:
        done, best = args.checkpoint["epoch"], args.checkpoint["best_score"]
        _restore(parts, args)
    log = RunLog(folder, epochs_done=done)
    print(f"training    {_describe(model, args, precision)}")
    print(f"run         epochs {done + 1} to {args.epoch} of {len(batches)} steps; if interrupted: --resume {last}")

    drawn_at = saved_at = save_seconds = float("-inf")
    bar = tqdm(total=args.epoch * len(batches), initial=done * len(batches), unit="step", disable=None)
    for epoch in range(done + 1, args.epoch + 1):
        started = time.monotonic()
        model.train()
        losses = torch.zeros(len(batches), device=args.device)
        for step, (images, masks) in enumerate(batches):
            images = images.to(args.device, non_blocking=True)
            masks = masks.to(args.device, non_blocking=True)
            with autocast:
                loss = segmentation_loss(model(images), masks)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            if args.clip_grad:
                nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad)
            scaler.step(optimizer)
            scaler.update()
            lr = schedule.get_last_lr()[0]
            schedule.step()
            taken = (epoch - 1) * len(batches) + step
            # A shorter memory at first, so that the random initial weights are forgotten soon.
            ema.multi_avg_fn = get_ema_multi_avg_fn(min(args.ema_decay, (1 + taken) / (10 + taken)))
            ema.update_parameters(model)

            losses[step] = loss.detach()
            if step % READ_LOSS_EVERY == 0 or step == len(batches) - 1:
                _stop_if_not_finite(losses[: step + 1], (epoch - 1) * len(batches), lr, last)
                dice = f"{best:.3f}" if best >= 0 else "-"
                loss_so_far = losses[: step + 1].mean().item()
                bar.set_postfix_str(f"epoch {epoch}, loss {loss_so_far:.3f}, best Dice {dice}", refresh=False)
            bar.update()

        row = {"epoch": epoch, "lr": lr, "train_loss": losses.mean().item()}
        predictions = None
        if validation is not None:
            scored, predictions = validate(ema.module, validation, args, autocast)
            row |= scored
        row["seconds"] = time.monotonic() - started
        is_best = validation is None or row["val_dice"] > best
        best = row.get("val_dice", best) if is_best else best
        log.add(row, is_best=is_best)
        if time.monotonic() - drawn_at > DRAW_EVERY or epoch == args.epoch:
            log.draw(validation, predictions)
            drawn_at = time.monotonic()

        content = {
            "model": model.config,
            "preprocessing": {"image_size": args.image_size},
            "weights": ema.module.state_dict(),
            "epoch": epoch,
            "best_score": best,
            "run": {"script": args.script, "options": options_of(args)},
        }
        if is_best:
            save_checkpoint(folder / "best.pth", content)
        if args.snapshots and epoch > args.save_start_epoch and epoch % args.snapshots == 0:
            save_checkpoint(folder / f"epoch_{epoch}.pth", content)
        started = time.monotonic()
        if started - saved_at > save_seconds / SAVE_SHARE or epoch == args.epoch:
            training = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(last, {**content, "training": {**training, "random": _random_state(args.device)}})
            saved_at = time.monotonic()
            save_seconds = saved_at - started
    bar.close()
    log.close()
    print(f"finished    {folder / 'best.pth'}" + (f", validation Dice {best:.4f}" if validation is not None else ""))


@torch.inference_mode()
def validate(
    model: nn.Module, validation: Dataset, args: argparse.Namespace, autocast
) -> tuple[dict[str, float], list[Tensor]]:
    """Loss and mean scores of a data set at its own resolution, and its argmax predictions, ``(H, W)`` each."""
    model.eval()
    losses, rows, predictions = [], [], []
    for images, masks in DataLoader(validation, batch_size=args.batchsize):
        with autocast:
            logits = model(images.to(args.device))
        losses += [segmentation_loss(logits, masks.to(args.device)).item()] * len(masks)
        predicted = logits.argmax(dim=1).cpu()
        rows += [scores(p > 0, m) for p, m in zip(predicted, masks, strict=True)]
        predictions += list(predicted)
    means = {f"val_{name}": summary["mean"] for name, summary in summarise(rows).items()}
    return {"val_loss": sum(losses) / len(losses), **means}, predictions


def choose_precision(args: argparse.Namespace) -> str:
    """``--amp`` with ``auto`` resolved: bf16 or else fp16 on a GPU, off on a CPU. InputError for fp16 on a CPU."""
    if args.amp == "auto":
        if args.device.type != "cuda":
            return "off"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if args.amp == "fp16" and args.device.type != "cuda":
        raise InputError("--amp fp16: needs a GPU; use --amp off or --amp bf16")
    return args.amp


def _describe(model: nn.Module, args: argparse.Namespace, precision: str) -> str:
    if args.device.type == "cuda":
        device = torch.cuda.get_device_name(args.device)
    else:
        device = f"CPU with {torch.get_num_threads()} threads"
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    width = model.config["base_channels"]
    return (
        f"{model.config['name']} of width {width}, {parameters:.2f} M parameters, {args.image_size} px, on {device}, "
        f"{'float32' if precision == 'off' else precision}"
    )


def _stop_if_not_finite(losses: Tensor, steps_before: int, lr: float, last: Path) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = steps_before + bad[0].item() + 1
        rescue = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was saved yet"
        raise InputError(
            f"the loss is NaN or infinite at step {step}, learning rate {lr:.3g}; {rescue}; try a lower --lr"
        )


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore(parts: dict, args: argparse.Namespace) -> None:
    training = args.checkpoint["training"]
    for name, part in parts.items():
        part.load_state_dict(training[name])
    torch.set_rng_state(training["random"]["cpu"])
    if args.device.type == "cuda" and "cuda" in training["random"]:
        torch.cuda.set_rng_state(training["random"]["cuda"], args.device)
    # --lr and --weight_decay may have been given anew, for a run whose loss was lost.
    optimizer, schedule = parts["optimizer"], parts["schedule"]
    schedule.base_lrs = [args.lr] * len(optimizer.param_groups)
    for group, factor in zip(optimizer.param_groups, schedule.lr_lambdas, strict=True):
        group["lr"] = args.lr * factor(schedule.last_epoch)
        group["weight_decay"] = args.weight_decay
    args.checkpoint = None  # frees as much memory as the network and the optimizer take
