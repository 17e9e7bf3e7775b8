"""The pictures of a run, drawn as it goes: curves, predictions, labels."""

import time

import numpy as np
import torch
from PIL import Image

from data.datasets import LesionSlices
from data.labels import IGNORE
from utils.evaluation.metrics import scores
from utils.inference.predictor import Predictor
from utils.output.pictures import Panel, draw_curves, draw_sheet
from utils.training.log import RunLog
from utils.training.methods import Supervised

DRAW_EVERY = 30  # seconds; drawing takes about one, more than an epoch of a small network
SHOWN = 6  # slices in a picture


class Pictures:
    """Draws ``curves.png`` and predictions of labeled slices, in ``validation.png`` if there are any, else in
    ``training.png``; if the method has a teacher, also its labels, in ``labels.png``."""

    def __init__(self, log: RunLog, predictor: Predictor, method: Supervised, validation: LesionSlices | None) -> None:
        self.log, self.predictor, self.relabeled = log, predictor, method.relabeled
        self.labeled_from = method.best_restarts_at
        self.shown = ("training", method.labeled) if validation is None else ("validation", validation)
        self.drawn_at = time.monotonic()

    def begin(self) -> None:
        """Draw the labels of the untrained network, or of the one that the run starts from."""
        if self.relabeled:
            self._draw("labels_at_start", self.relabeled)

    def update(self, *, now: bool) -> None:
        """Draw, if the last time is long ago or it has to be ``now``."""
        if not now and time.monotonic() - self.drawn_at < DRAW_EVERY:
            return
        draw_curves(self.log.rows, self.log.folder / "curves.png", labeled_from=self.labeled_from)
        self._draw(*self.shown)
        if self.relabeled:
            self._draw("labels", self.relabeled)
        self.drawn_at = time.monotonic()

    def _draw(self, name: str, slices: LesionSlices) -> None:
        """Write ``<name>.png``: six of the slices, their masks and predictions."""
        chosen = np.linspace(0, len(slices) - 1, min(len(slices), SHOWN)).round().astype(int)
        masks = "pseudo mask" if slices is self.relabeled and not slices.truth_known else "truth"
        columns = []
        for index in chosen:
            image, mask = slices.original(index)
            found = self.predictor.predict(image)
            dice = scores(torch.from_numpy(found.mask), torch.from_numpy(mask.copy()))["dice"]
            columns.append(
                [
                    Panel(image / 255, None, slices.files[index][0].stem),
                    Panel(image / 255, np.where(mask == IGNORE, 0, mask), masks),
                    Panel(image / 255, found.mask, f"prediction, Dice {dice:.2f}"),
                ]
            )
        path = self.log.folder / f"{name}.png"
        draw_sheet(path, list(zip(*columns, strict=True)))
        drawn = np.asarray(Image.open(path).convert("RGB"))
        epoch = int(self.log.rows[-1]["epoch"]) if self.log.rows else 0
        self.log.events.add_image(name, drawn, epoch, dataformats="HWC")
