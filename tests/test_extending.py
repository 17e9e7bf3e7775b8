"""Follow docs/extending.md in a copy of the code: every idea on it becomes a choice that trains."""

import re
import shutil
import subprocess
import sys

from helpers import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
RUN = """
import runpy, sys
for command in {commands}:
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
"""


def test_every_idea_of_the_page_trains(phantom, tmp_path):
    for part in ("models", "data", "utils", "supervised_train.py", "semi_supervised_train.py", "test.py"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    ideas = re.findall(r"`((?:models|data|utils)/[\w/]+\.py)`.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert [file for file, _ in ideas] == [
        "models/two_layers.py",
        "models/blocks.py",
        "utils/training/losses.py",
        "utils/training/optimizers.py",
        "data/augmentation.py",
        "utils/training/methods/noisy.py",
    ]
    for file, code in ideas:
        apply(tmp_path, file, code)

    tiny = ["--data_root", phantom, "--base_channels", 2, "--image_size", 32, "--epoch", 1, "--device", "cpu"]
    new = ["--model", "two_layers", "--loss", "squared", "--optimizer_type", "nadam", "--lr_schedule", "linear"]
    masks = ["--semi_img_path", phantom / "Test-Image", "--semi_msk_path", phantom / "Test-Mask"]
    commands = [
        ["supervised_train.py", *tiny, *new, "--save_folder", "runs/new"],
        ["test.py", "--data_root", phantom, "--pretrained_model", "runs/new/best.pth", "--device", "cpu"],
        ["semi_supervised_train.py", *tiny, *masks, "--block", "single", "--method", "noisy"],
    ]
    script = RUN.format(commands=[[str(word) for word in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "two_layers of width 2" in done.stdout and "noisy for" in done.stdout
    assert (tmp_path / "runs/new/best.pth").exists() and (tmp_path / "CARes_Unet/scores.csv").exists()


def apply(root, file, code):
    """Put the definition of an idea into its file, and its entry into the registry."""
    definition, *entries = re.split(r"^(?=[A-Z_]+ = [\[{]\.\.\.)", code, flags=re.MULTILINE)
    assert entries, file
    for entry in entries:
        registry, items = re.match(r"([A-Z_]+) = [\[{]\.\.\., (.*)[\]}]", entry).groups()
        elsewhere = re.search(r"# in (\S+)", entry)
        path = root / (elsewhere[1] if elsewhere else file)
        if elsewhere:
            (root / file).write_text(f"from torch import nn\n\n\n{definition}")
            name = items.split(": ")[1]
            above = f"from {file.removesuffix('.py').replace('/', '.')} import {name}\n"
        else:
            above, definition = definition, ""
        text, count = re.subn(
            rf"^({registry}\b[^=]*= [\[{{])", rf"{above}\n\n\1{items}, ", path.read_text(), flags=re.MULTILINE
        )
        assert count == 1, f"no registry {registry} in {path}"
        path.write_text(text)
