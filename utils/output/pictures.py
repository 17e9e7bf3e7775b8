"""Pictures for people: training curves, and slices beside their truth and predictions."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UPRIGHT = 5  # names below a box plot
OVERLAY = (1.0, 0.25, 0.1)  # red-orange: stands out from gray, and from black to a colour-blind eye
# Figure 3 of the paper; black is left for the true negatives.
ERROR_COLOURS = {"true positive": (1.0, 1.0, 1.0), "false positive": (1.0, 0.0, 0.0), "false negative": (0.0, 0.0, 1.0)}


class Panel(NamedTuple):
    """One cell of a sheet: gray ``(H, W)`` or RGB ``(H, W, 3)`` in [0, 1], a mask to overlay, and a caption."""

    image: np.ndarray
    mask: np.ndarray | None = None
    caption: str = ""


def error_panel(prediction: np.ndarray, truth: np.ndarray, caption: str) -> Panel:
    """A prediction against the truth, both bool ``(H, W)``, in ERROR_COLOURS on black."""
    picture = np.zeros((*truth.shape, 3))
    for where, colour in zip(
        (prediction & truth, prediction & ~truth, ~prediction & truth), ERROR_COLOURS.values(), strict=True
    ):
        picture[where] = colour
    return Panel(picture, caption=caption)


def draw_sheet(
    path: Path,
    rows: Sequence[Sequence[Panel]],
    titles: Sequence[str] | None = None,
    legend: dict[str, tuple[float, float, float]] | None = None,
    heading: str = "",
) -> None:
    """Draw rows of panels, all rows of one length, with a title over each column, a legend of colours below, and a
    heading above, for which few panels are drawn larger."""
    columns = len(rows[0])
    side = 2.4 if columns > 2 or not heading else 7.2 / columns
    figure = _figure(side * columns, (side + 0.1) * len(rows) + (0.6 if heading else 0))
    if heading:
        lines = heading.splitlines()
        figure.suptitle("\n".join(_text(line) for line in lines), fontsize=9)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, cells in zip(rows, axes, strict=True):
        for panel, axis in zip(row, cells, strict=True):
            axis.imshow(panel.image, cmap="gray", vmin=0, vmax=1)
            if panel.mask is not None:
                colour = np.zeros((*panel.mask.shape, 4))
                colour[panel.mask > 0] = (*OVERLAY, 0.55)
                axis.imshow(colour)
            axis.set_xlabel(_text(panel.caption), fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    for title, axis in zip(titles or [], axes[0], strict=False):
        axis.set_title(_text(title), fontsize=10)
    if legend:
        from matplotlib.patches import Patch

        patches = [Patch(facecolor=colour, edgecolor="gray", label=label) for label, colour in legend.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), columns), fontsize=9)
    _save(figure, path)


def draw_boxplot(path: Path, values: Mapping[str, Sequence[float]], label: str) -> None:
    """Draw a box and all its points for each name; NaN is left out. The dashed line is the mean."""
    many = len(values) > UPRIGHT
    figure = _figure(2.5 + (0.7 if many else 1.3) * len(values), 5 if many else 4)
    axis = figure.subplots()
    kept = [[value for value in some if not math.isnan(value)] for some in values.values()]
    places = range(1, len(values) + 1)
    axis.boxplot(kept, positions=places, widths=0.5, showmeans=True, meanline=True, showfliers=False)
    spread = np.random.default_rng(0)
    for place, some in zip(places, kept, strict=True):
        axis.plot(place + spread.uniform(-0.15, 0.15, len(some)), some, ".", color="tab:blue", alpha=0.4)
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if many else {}
    axis.set_xticks(places, map(_text, values), **slanted)
    axis.set_ylabel(label)
    axis.set_ylim(-0.02, 1.02)
    axis.grid(axis="y", alpha=0.3)
    _save(figure, path)


def draw_curves(rows: Sequence[dict[str, float]], path: Path, *, labeled_from: int | None = None) -> None:
    """Draw loss, learning rate and, if they are known, Dice of validation and of pseudo labels over a run.

    rows: of its ``log.csv``. labeled_from: the first epoch of the finish with labeled slices alone, if there is one.
    """
    epochs = [row["epoch"] for row in rows]
    validated = "val_dice" in rows[0]
    labels = [(row["epoch"], row["label_dice"]) for row in rows if row.get("kept_share") and "label_dice" in row]
    titles = ["loss", "learning rate"] + ["Dice"] * (validated or bool(labels))
    figure = _figure(11, 3.4)
    axes = figure.subplots(1, len(titles))
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    loss, rate, *_ = axes
    loss.plot(epochs, [row["train_loss"] for row in rows], label="training")
    rate.plot(epochs, [row["lr"] for row in rows])
    if labels:
        axes[2].plot(*zip(*labels, strict=True), color="tab:green", label="pseudo labels")
        axes[2].set_ylim(0, 1)
        axes[2].legend(loc="best")
    if validated:
        dice = axes[2]
        scores = [row["val_dice"] for row in rows]
        highest = int(np.argmax(scores))
        loss.plot(epochs, [row["val_loss"] for row in rows], label="validation")
        dice.plot(epochs, scores, label="validation")
        label = f"highest {scores[highest]:.3f}, epoch {epochs[highest]:.0f}"
        dice.plot(epochs[highest], scores[highest], "o", label=label)
        dice.legend(loc="best")
        dice.set_ylim(0, 1)
    for axis in axes:
        axis.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if labeled_from is not None and epochs[0] <= labeled_from <= epochs[-1]:
        for axis in axes:
            axis.axvline(labeled_from, color="gray", linestyle=":", label="labeled slices alone")
    loss.legend()
    loss.set_ylim(0, 1.05 * max(line.get_ydata().max() for line in loss.lines[: 1 + validated]))
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    """An empty matplotlib figure, in inches of 100 pixels."""
    from matplotlib.figure import Figure  # slow to import, and test.py without true masks draws nothing

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _text(text: str) -> str:
    """Text that is drawn as it is: names of files may have dollar signs, which begin a formula, and line breaks."""
    return printable(text).replace("$", r"\$")


def _save(figure: "Figure", path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(path)
