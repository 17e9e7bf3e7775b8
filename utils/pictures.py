"""Pictures for people: training curves, and slices beside their truth and predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

OVERLAY = (1.0, 0.25, 0.1)  # red-orange: stands out from gray, and from black to a colour-blind eye


class Panel(NamedTuple):
    """One cell of a sheet: a slice ``(H, W)`` in [0, 1], a lesion mask to lay over it, and a caption."""

    image: np.ndarray
    mask: np.ndarray | None = None
    caption: str = ""


def draw_sheet(path: Path, rows: Sequence[Sequence[Panel]], titles: Sequence[str] | None = None) -> None:
    """Draw rows of panels, all rows of one length, with a title over each column."""
    columns = len(rows[0])
    figure = Figure(figsize=(2.4 * columns, 2.5 * len(rows)), dpi=100, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, cells in zip(rows, axes, strict=True):
        for panel, axis in zip(row, cells, strict=True):
            axis.imshow(panel.image, cmap="gray", vmin=0, vmax=1)
            if panel.mask is not None:
                colour = np.zeros((*panel.mask.shape, 4))
                colour[panel.mask > 0] = (*OVERLAY, 0.55)
                axis.imshow(colour)
            axis.set_xlabel(panel.caption, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    for title, axis in zip(titles or [], axes[0], strict=False):
        axis.set_title(title, fontsize=10)
    figure.savefig(path)


def draw_curves(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Draw loss, validation Dice and learning rate over the epochs of a run (the rows of its ``log.csv``)."""
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(11, 3.4), dpi=100, layout="constrained")
    loss, dice, rate = figure.subplots(1, 3)
    loss.plot(epochs, [row["train_loss"] for row in rows], label="training")
    rate.plot(epochs, [row["lr"] for row in rows])
    if "val_dice" in rows[0]:
        scores = [row["val_dice"] for row in rows]
        best = int(np.argmax(scores))
        loss.plot(epochs, [row["val_loss"] for row in rows], label="validation")
        dice.plot(epochs, scores)
        dice.plot(epochs[best], scores[best], "o", label=f"best {scores[best]:.3f}, epoch {epochs[best]:.0f}")
        dice.legend(loc="lower right")
    loss.legend()
    for axis, title in ((loss, "loss"), (dice, "validation Dice"), (rate, "learning rate")):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    loss.set_ylim(bottom=0)
    dice.set_ylim(0, 1)
    figure.savefig(path)
