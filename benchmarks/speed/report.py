"""The table of results: printed row by row, and written to speed.json and speed.md after each row."""

import json
from pathlib import Path

import torch

from benchmarks.measure import Timing, ratio
from benchmarks.speed.machine import describe_machine
from benchmarks.speed.setting import Setting
from utils.device import choose_precision

HEAD = "| work | reference | ours | times faster (range) | memory, reference | ours | |"


class Report:
    """The rows of the table, one for each piece of work."""

    def __init__(self, setting: Setting) -> None:
        settings = {
            name: getattr(setting, name) for name in ("parts", "base_channels", "image_size", "batchsize", "rounds")
        }
        precision = choose_precision(setting.amp, setting.device)
        self.head = {
            "machine": describe_machine(setting.device),
            "torch": torch.__version__,
            "amp": precision,
            **settings,
        }
        self.folder: Path = setting.save_folder
        self.rows: list[dict] = []

    def add(
        self, name: str, reference: Timing | None, ours: Timing, *, memory: tuple = (None, None), note: str = ""
    ) -> None:
        """memory: gigabytes of the reference and ours."""
        row = {"work": name, "ours_s": ours.median, "ours_spread_s": ours.spread, "note": note}
        if reference:
            row |= {"reference_s": reference.median, "reference_spread_s": reference.spread}
            row |= {"times_faster": ratio(reference, ours)}
        row |= {name: gb for name, gb in zip(("reference_gb", "ours_gb"), memory, strict=True) if gb is not None}
        self.rows.append(row)
        print(markdown_row(row), flush=True)
        self._write()

    def _write(self) -> None:
        (self.folder / "speed.json").write_text(
            json.dumps(self.head | {"rows": self.rows}, indent=2) + "\n", encoding="utf-8"
        )
        words = {"machine": "{}", "torch": "torch {}", "amp": "mixed precision {}", "base_channels": "width {}"}
        words |= {"image_size": "{} px", "rounds": "{} rounds"}
        caption = "; ".join(word.format(self.head[name]) for name, word in words.items())
        lines = [caption, "", *markdown_table(self.rows)]
        (self.folder / "speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def markdown_table(rows: list[dict]) -> list[str]:
    """The lines of a table, from rows as in speed.json."""
    return [HEAD, "|---" * HEAD.count(" | ") + "|---|", *map(markdown_row, rows)]


def markdown_row(row: dict) -> str:
    def seconds(who: str) -> str:
        if f"{who}_s" not in row:
            return ""
        low, high = row[f"{who}_spread_s"]
        scale, unit = (1, "s") if row[f"{who}_s"] >= 1 else (1e3, "ms")
        return f"{row[f'{who}_s'] * scale:.3g} {unit} ({low * scale:.3g} to {high * scale:.3g})"

    faster = "**{:.2f}** ({:.2f} to {:.2f})".format(*row["times_faster"]) if "times_faster" in row else ""
    memory = [f"{row[f'{who}_gb']:.3g} GB" if f"{who}_gb" in row else "" for who in ("reference", "ours")]
    return " | ".join(["| " + row["work"], seconds("reference"), seconds("ours"), faster, *memory, row["note"] + " |"])
