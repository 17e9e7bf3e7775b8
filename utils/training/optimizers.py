"""The optimizers and the learning-rate schedules, by name."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from utils.config import TrainingConfig
from utils.training.ranger import Ranger

FLAT_SHARE = 0.72  # of a run, with the full learning rate, as Ranger's author advises


def flat_cosine(step: int, config: TrainingConfig, steps_per_epoch: int) -> float:
    """The full learning rate for most of the run, then a cosine down to 0."""
    progress = max(0.0, (step / (config.epoch * steps_per_epoch) - FLAT_SHARE) / (1 - FLAT_SHARE))
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def step_decay(step: int, config: TrainingConfig, steps_per_epoch: int) -> float:
    """The full learning rate up to ``decay_start_epoch``, then times ``decay_rate`` every ``decay_epoch``."""
    epochs_past_start = step // steps_per_epoch - config.decay_start_epoch
    return config.decay_rate ** max(0, epochs_past_start // config.decay_epoch)


def sgd(params: list[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum."""
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True)


# Called with the parameters, lr and weight_decay.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "ranger": Ranger,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": sgd,
}
# The factor to the learning rate before a step, the first of which is 0.
SCHEDULES: dict[str, Callable[[int, TrainingConfig, int], float]] = {"flat_cosine": flat_cosine, "step": step_decay}


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer of the config, with its learning rate and weight decay."""
    kind = OPTIMIZERS[config.optimizer_type]
    return kind(list(model.parameters()), lr=config.learning_rate, weight_decay=config.weight_decay)


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig, steps_per_epoch: int) -> LambdaLR:
    """The learning-rate schedule of the config, which takes a step after every optimizer step."""
    schedule = SCHEDULES[config.lr_schedule]
    return LambdaLR(optimizer, lambda step: schedule(step, config, steps_per_epoch))
