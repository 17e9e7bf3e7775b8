"""Optimizers and learning-rate schedules, by name."""

import argparse
import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from utils.ranger import Ranger

OPTIMIZERS = {
    "ranger": Ranger,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda params, **kwargs: torch.optim.SGD(params, momentum=0.9, nesterov=True, **kwargs),
}


def build_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """The optimizer of ``--optimizer_type``, with ``--lr`` and ``--weight_decay``."""
    return OPTIMIZERS[args.optimizer_type](model.parameters(), lr=args.lr, weight_decay=args.weight_decay)


def build_schedule(optimizer: torch.optim.Optimizer, args: argparse.Namespace, steps_per_epoch: int) -> LambdaLR:
    """The schedule of ``--lr_schedule``, to be stepped after every optimizer step."""
    total = args.epoch * steps_per_epoch

    def flat_cosine(step: int) -> float:
        # As Ranger's author advises: the full rate for 72 % of the run, then a cosine down to 0.
        progress = max(0.0, (step / total - 0.72) / 0.28)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def step_decay(step: int) -> float:
        epochs_past_start = step // steps_per_epoch - args.decay_start_epoch
        return args.decay_rate ** max(0, epochs_past_start // args.decay_epoch)

    return LambdaLR(optimizer, {"flat_cosine": flat_cosine, "step": step_decay}[args.lr_schedule])
