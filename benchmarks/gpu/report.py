"""What was found, step by step: gpu.json, and report.md to read."""

import json
from pathlib import Path

from benchmarks.speed.report import HEAD, markdown_row
from data.errors import InputError

TARGETS = (
    "Targets: training step >= 5 times the float32 reference and >= 40 % of a bf16 matrix product's rate, inference "
    ">= 6 times, CARAFE >= 10 times, its reassembly within twice a copy's time."
)


class Report:
    """Steps and their outcome; both files are written anew after each, and keep the steps of an earlier call."""

    def __init__(self, folder: Path, head: dict) -> None:
        self.folder, self.path, self.content = folder, folder / "gpu.json", {**head, "steps": {}}
        if self.path.exists():
            earlier = json.loads(self.path.read_text())
            if other := [name for name in head if earlier.get(name) != head[name]]:
                found = ", ".join(f"{name} {earlier.get(name)!r}" for name in other)
                raise InputError(f"{folder}: holds results of {found}; name another --save_folder")
            self.content["steps"] = earlier["steps"]

    def add(self, step: str, row: dict) -> None:
        """row: state, command, seconds, and what was found or went wrong."""
        self.content["steps"][step] = row
        self.path.write_text(json.dumps(self.content, indent=2) + "\n")
        (self.folder / "report.md").write_text("\n".join(self._lines()) + "\n")

    def _lines(self) -> list[str]:
        head = {name: value for name, value in self.content.items() if name != "steps"}
        lines = ["# benchmarks.gpu", "", *(f"- {name}: {value}" for name, value in head.items()), ""]
        lines += ["| step | outcome | seconds | found |", "|---|---|---|---|"]
        for name, row in self.content["steps"].items():
            figures = row.get("error") or "; ".join(f"{key}: {value}" for key, value in row["found"].items())
            lines.append(f"| {name} | {row['state']} | {row['seconds']:.0f} | {figures.replace('|', '/')} |")
        speed = self.folder / "speed.json"
        if speed.exists():
            rows = json.loads(speed.read_text())["rows"]
            lines += ["", TARGETS, "", HEAD, "|---" * HEAD.count(" | ") + "|---|", *map(markdown_row, rows)]
        return lines
