"""Ranger, the optimizer of the paper: rectified Adam + Lookahead + gradient centralisation."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class Ranger(torch.optim.RAdam):
    """RAdam (Liu et al. 2020) whose weights are pulled towards slow ones every few steps (Zhang et al. 2019).

    k: steps between two synchronisations with the slow weights; alpha: how far these move towards the fast ones.
    use_gc: subtract from each gradient its mean over all dimensions but the first (Yong et al. 2020);
    gc_conv_only: only for convolution kernels, not for linear layers. Weight decay is decoupled (``lr * wd * p``).
    All of these can differ between parameter groups. Like every part of the step, centralisation is in place:
    afterwards ``.grad`` is the centralised gradient.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        *,
        k: int = 6,
        alpha: float = 0.5,
        use_gc: bool = True,
        gc_conv_only: bool = False,
    ) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], not {alpha}")
        super().__init__(params, lr, betas, eps, weight_decay, decoupled_weight_decay=True, foreach=True)
        own = {"k": k, "alpha": alpha, "use_gc": use_gc, "gc_conv_only": gc_conv_only}
        self.defaults.update(own)  # for groups added later
        for group in self.param_groups:
            for name, value in own.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        params = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        for group, trained in zip(self.param_groups, params, strict=True):
            if group["use_gc"]:
                least_dims = 4 if group["gc_conv_only"] else 2
                _centralise([p.grad for p in trained if p.dim() >= least_dims])

        # RAdam initialises parameters without state only, so the first slow weights are added after its step.
        starts = {p: p.clone() for trained in params for p in trained if p not in self.state}
        super().step()
        for p, start in starts.items():
            self.state[p]["slow"] = start

        for group, trained in zip(self.param_groups, params, strict=True):
            due = [p for p in trained if self.state[p]["step"].item() % group["k"] == 0]
            if due:
                slow = [self.state[p]["slow"] for p in due]
                torch._foreach_lerp_(slow, due, group["alpha"])
                torch._foreach_copy_(due, slow)
        return loss


def _centralise(gradients: list[Tensor]) -> None:
    if gradients:
        means = [g.mean(dim=tuple(range(1, g.dim())), keepdim=True) for g in gradients]
        torch._foreach_sub_(gradients, means)
