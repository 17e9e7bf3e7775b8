"""Write the checkpoints of a run."""

import time

from models import config_of
from utils.checkpoint import save_checkpoint
from utils.config import TrainingConfig
from utils.training.state import Training

SAVE_SHARE = 0.05  # of the time; a full-width last.pth takes 1 GB, longer to write than a GPU needs for an epoch


class RunCheckpoints:
    """``best.pth``, ``last.pth`` and the snapshots of a run, in its folder.

    about: their entries ``preprocessing`` and ``run``, as in utils/checkpoint.py.
    """

    def __init__(self, config: TrainingConfig, training: Training, about: dict) -> None:
        self.config, self.training, self.about = config, training, about
        self._saved_at = self._save_seconds = float("-inf")

    def save(self, epoch: int, best: float, *, is_best: bool, can_wait: bool, now: bool) -> None:
        """Write the checkpoints that are due after an epoch; ``best`` is the best validation Dice so far, or -1.

        Writing ``last.pth`` takes at most SAVE_SHARE of the time. ``best.pth`` is written after each best epoch or,
        if it ``can_wait``, together with ``last.pth``. Both are written ``now``, before the run ends.
        """
        folder = self.config.save_folder
        content = {
            **self.about,
            "model": config_of(self.training.model),
            "weights": self.training.average.state_dict(),
            "epoch": epoch,
            "best_score": best,
        }
        started = time.monotonic()
        is_due = started - self._saved_at > self._save_seconds / SAVE_SHARE or now
        if is_best and (is_due or not can_wait):
            save_checkpoint(folder / "best.pth", content)
        every = self.config.snapshots
        if every and epoch > self.config.save_start_epoch and epoch % every == 0:
            save_checkpoint(folder / f"epoch_{epoch}.pth", content)
        if is_due:
            save_checkpoint(folder / "last.pth", {**content, "training": self.training.state_dict()})
            self._saved_at = time.monotonic()
            self._save_seconds = self._saved_at - started
