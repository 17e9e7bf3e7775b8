"""The report of all steps: gpu.json, and report.md to read."""

import json
from pathlib import Path

from benchmarks.gpu.steps import STEPS
from benchmarks.speed.report import markdown_table
from data.errors import InputError
from data.io.whole import write_whole
from utils.output.folder import holds_something, prepare_folder

TARGETS = (
    "Targets: training step >= 5 times the float32 reference and >= 40 % of a bf16 matrix product's rate, inference "
    ">= 6 times, CARAFE >= 10 times, its reassembly within twice a copy's time. The reference computes in float32 with "
    "PyTorch's defaults, on a GPU with TF32 in cuDNN's convolutions."
)


def claim(marker: Path, head: dict, flag: str) -> dict:
    """Make sure that a folder is new, or was made on the same machine by the same version. Returns its marker.

    Raises InputError if it holds anything else, so that no user's file is lost, and no old result passes for a new one.
    """
    folder = marker.parent
    prepare_folder(folder)
    if not marker.exists():
        if holds_something(folder):
            raise InputError(f"{folder}: contains files that this command did not write; name another {flag}")
        marker.write_text(json.dumps(head, indent=2) + "\n", encoding="utf-8")
        return {}
    try:
        earlier = json.loads(marker.read_text(encoding="utf-8"))
        other = ", ".join(f"{name} {earlier.get(name)!r}" for name in head if earlier.get(name) != head[name])
    except (ValueError, AttributeError) as error:
        raise InputError(f"{marker}: damaged; remove {folder} or name another {flag}") from error
    if other:
        raise InputError(f"{folder}: contains results of {other}; remove it or name another {flag}")
    return earlier


class Report:
    """The steps and their outcome; both files are rewritten after each, and keep steps of an earlier call."""

    def __init__(self, folder: Path, head: dict) -> None:
        self.folder, self.path, self.content = folder, folder / "gpu.json", {**head, "steps": {}}
        self.content["steps"] = claim(self.path, head, "--save_folder").get("steps", {})

    def add(self, step: str, row: dict) -> None:
        """row: state, command, seconds, and the figures or the error."""
        self.content["steps"][step] = row
        self.write()

    def forget(self, step: str) -> None:
        """Remove the outcome of an earlier call; the step starts again."""
        self.content["steps"].pop(step, None)
        self.write()

    def write(self) -> None:
        write_whole(self.path, json.dumps(self.content, indent=2) + "\n")
        (self.folder / "report.md").write_text("\n".join(self._lines()) + "\n", encoding="utf-8")

    def _lines(self) -> list[str]:
        head = {name: value for name, value in self.content.items() if name != "steps"}
        lines = ["# benchmarks.gpu", "", *(f"- {name}: {value}" for name, value in head.items()), ""]
        lines += ["| step | outcome | seconds | found |", "|---|---|---|---|"]
        for name in sorted(self.content["steps"], key=list(STEPS).index):
            row = self.content["steps"][name]
            figures = row.get("error") or "; ".join(f"{key}: {value}" for key, value in row["found"].items())
            lines.append(f"| {name} | {row['state']} | {row['seconds']:.0f} | {figures.replace('|', '/')} |")
        speed = self.folder / "speed.json"
        if speed.exists():
            rows = json.loads(speed.read_text(encoding="utf-8"))["rows"]
            lines += ["", TARGETS, "", *markdown_table(rows)]
        return lines
