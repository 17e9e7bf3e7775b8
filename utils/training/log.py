"""The log of a run: log.csv and TensorBoard events."""

import csv
import io
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from data.errors import InputError, reason_of
from data.io.whole import write_whole
from utils.output.folder import append_row


class RunLog:
    """The log of a run in its folder: one row per epoch in ``log.csv`` and in the events.

    A resumed run keeps the rows of the first ``epochs_done`` epochs and removes those that a killed run wrote after
    them; without an earlier log, it starts a new one. Raises InputError if an earlier log is damaged.
    """

    def __init__(self, folder: Path, *, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import; only training writes events

        self.folder = folder
        log = folder / "log.csv"
        self.rows = [row for row in read_log(log) if row["epoch"] <= epochs_done] if log.exists() else []
        text = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(_as_written(row) for row in self.rows)
        write_whole(log, text.getvalue())
        self.events = SummaryWriter(str(folder), purge_step=epochs_done + 1)

    def add(self, row: dict[str, float], *, is_best: bool) -> None:
        self.rows.append(row)
        append_row(self.folder / "log.csv", row)
        for name, value in row.items():
            self.events.add_scalar(name, value, row["epoch"])
        line = f"epoch {row['epoch']:>4}  loss {row['train_loss']:.4f}"
        if "val_dice" in row:
            line += f"  val loss {row['val_loss']:.4f}  val Dice {row['val_dice']:.4f}{' *' if is_best else ''}"
        if row.get("kept_share"):
            line += f"  pseudo-labeled {row['kept_share']:.1%} of the pixels"
            line += f" with Dice {row['label_dice']:.3f}" if "label_dice" in row else ""
        tqdm.write(line)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.events.close()


def read_log(log: Path) -> list[dict[str, float]]:
    """The rows of a ``log.csv``, the last one of each epoch. Raises InputError if it is damaged."""
    try:
        whole, _, _ = log.read_text(encoding="utf-8").rpartition("\n")  # a kill may have cut the last line
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(whole.splitlines())]
        return list({row["epoch"]: row for row in rows}.values())
    except (OSError, ValueError, TypeError, KeyError, csv.Error, AttributeError) as error:
        raise InputError(f"{log}: damaged ({reason_of(error)}); move it away, the run goes on without it") from error


def _as_written(row: dict[str, float]) -> dict[str, float]:
    return row | {"epoch": int(row["epoch"])}
