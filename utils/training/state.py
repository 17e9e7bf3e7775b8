"""A training step and its state: network, averaged weights, optimizer, schedule, precision."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from utils import malloc
from utils.config import TrainingConfig
from utils.device import autocast, choose_precision
from utils.training.features import keep_halves
from utils.training.losses import LOSSES
from utils.training.optimizers import build_optimizer, build_schedule


class Training:
    """Everything that a training step changes; a resumed run needs all of it.

    ``model``: the network that learns. ``average``: the network with its averaged (EMA) weights. ``trained``: the
    weights are not random. No step makes the host wait for the GPU, except fp16's search for overflows.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        *,
        steps_per_epoch: int,
        trained: bool = False,
    ) -> None:
        self.model, self.device, self.steps = model, next(model.parameters()).device, 0
        if self.device.type == "cpu":
            malloc.set_options(malloc.TRAINING)
        self.clip_grad, self.ema_decay, self.accumulate = config.clip_grad, config.ema_decay, config.accumulate
        self.forward = torch.compile(model) if config.compile else model
        self.precision = choose_precision(config.amp, self.device)
        self.average = copy.deepcopy(model)
        self.trained, self.pseudo_weight = trained, config.pseudo_weight
        self.lesion_margin, self.pseudo_margin = config.lesion_margin, config.pseudo_margin
        self.loss = partial(LOSSES[config.loss_name], **config.loss_options)
        self.optimizer = build_optimizer(model, config)
        self.schedule = build_schedule(self.optimizer, config, steps_per_epoch)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    def step(
        self, images: Tensor, masks: Tensor, labeled: Tensor | None = None, halves: Sequence[int] | None = None
    ) -> Tensor:
        """Learn from images float32 ``(N, C, H, W)`` and masks int64 ``(N, H, W)``. Returns the loss, on the device.

        labeled, halves: as in ``Batch``; None: all masks are true, all features are kept. True and pseudo masks have
        margins of their own. All pixels with pseudo masks together count ``pseudo_weight`` times as much as those with
        true ones, however many they are.
        """
        loss = torch.zeros((), device=self.device)
        labeled = torch.ones(len(images), 1, 1, 1, device=self.device) if labeled is None else labeled
        margins = self.pseudo_margin + (self.lesion_margin - self.pseudo_margin) * labeled
        weights = _balanced(labeled[:, 0], self.pseudo_weight)
        for first in range(self.accumulate):
            # Strided, so that each part of a batch has its share of pseudo-labeled slices.
            part = slice(first, None, self.accumulate)
            more = {} if halves is None else {"perturb": partial(keep_halves, numbers=halves[part])}
            with autocast(self.device, self.precision):
                logits = self.forward(images[part], **more)
                part_loss = self.loss(logits, masks[part], margin=margins[part], weight=weights[part])
                part_loss = part_loss * (len(masks[part]) / len(images))
            self.scaler.scale(part_loss).backward()
            loss += part_loss.detach()
        self.scaler.unscale_(self.optimizer)
        if self.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()  # frees memory for the activations of the next step
        self.schedule.step()
        self._update_average()
        self.steps += 1
        return loss

    @torch.no_grad()
    def average_logits(self, images: Tensor) -> Tensor:
        """Logits ``(N, C, H, W)`` by the averaged weights, for images float32 ``(N, C, H, W)`` on the device."""
        with autocast(self.device, self.precision):
            return self.average.eval()(images).float()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = self.ema_decay
        if not self.trained:  # decays faster at first, to forget the random initial weights
            decay = min(decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        pairs = list(zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True))
        averaged, newest = zip(*[pair for pair in pairs if pair[0].is_floating_point()], strict=True)
        torch._foreach_lerp_(averaged, newest, 1 - decay)
        for count, newest_count in pairs:
            if not count.is_floating_point():  # batches seen by batch norm
                count.copy_(newest_count)

    def is_finite(self) -> bool:
        """Whether all weights, of the network and of the average, are finite."""
        weights: list[Tensor] = [*self.model.parameters(), *self.average.parameters()]
        return bool(torch.stack(torch._foreach_norm(weights)).isfinite().all())

    def state_dict(self) -> dict:
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.device.type == "mps":
            random["mps"] = torch.mps.get_rng_state()
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "random": random,
            "trained": self.trained,
        }

    def load_state_dict(self, state: dict, *, lr: float, weight_decay: float, steps: int | None = None) -> None:
        """Continue from a saved state; learning rate and weight decay may differ from the saved ones.

        steps: those that are done, by default as many as the state has. With other batches, the same share of a run
        has another number of steps.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        if steps is not None:
            self.schedule.last_epoch = steps
        self.steps, self.trained = self.schedule.last_epoch, state["trained"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        if self.device.type == "mps" and "mps" in state["random"]:
            torch.mps.set_rng_state(state["random"]["mps"])
        self.schedule.base_lrs = [lr] * len(self.optimizer.param_groups)
        for group, factor in zip(self.optimizer.param_groups, self.schedule.lr_lambdas, strict=True):
            group["lr"] = lr * factor(self.schedule.last_epoch)
            group["weight_decay"] = weight_decay

    def _parts(self) -> dict:
        return {
            "network": self.model,
            "ema": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }


def _balanced(labeled: Tensor, pseudo_weight: float) -> Tensor:
    """How much slices or pixels count, 1 on average, so that pseudo masks together count ``pseudo_weight``, and true
    ones 1."""
    share = labeled.mean()
    weights = labeled / share.clamp(min=1e-6) + (1 - labeled) * pseudo_weight / (1 - share).clamp(min=1e-6)
    return weights / weights.mean()
