"""The commands and the Python of README.md, docs and weights/README.md run as they are printed, on small data.

docs/experiments.md is a notebook: its commands are those of the versions that it dates.
"""

import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers import DEPTH, ROOT, TINY, call_here

PAGES = [ROOT / "README.md", ROOT / "weights/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs" / "experiments.md")
COMMAND = re.compile(r"(?:python3?|pip|make|git) ")
NOT_RUN = {  # commands that only start like this are not run here, but elsewhere or not at all
    "git clone": "nothing to clone from",
    "python3 -m venv": "installs",
    "pip install": "installs; see test_packages_are_those_of_the_requirements",
    "make test": "runs this test",
    "make lint": "runs before this test",
    "make demo": "test_the_demo",
    "make gpu": "needs a GPU; tests/benchmarks/test_gpu_command.py",
    "python -m benchmarks.gpu --data_root": "needs a GPU; tests/benchmarks/test_gpu_command.py",
    "python demo.py": "waits for a browser; tests/scripts/test_demo.py",
}
LONG = ("python -m benchmarks.", "python -m models.export", "python examples/", "python supervised_train.py --compile")
MADE = {  # folders that are there for other pages, which a page makes
    "data": ["datasets"],
    "results": ["datasets/phantom"],
    "README": ["Train-Image", "Train-Mask", "Unlabeled", "Test-Image", "Test-Mask"],
}
ONE_MORE = ("--epoch", 2)
SMALL = {  # the same command on less work: flags that are added, or that follow the trainer's --
    "supervised_train.py": TINY,
    "semi_supervised_train.py": TINY,
    "data.phantom": ("--labeled", 6, "--unlabeled", 4, "--test", 2, "--size", 64, "--depth", DEPTH),
    "benchmarks.crossval": ("--device", "cpu", "--batchsize", 2, *TINY),
    "benchmarks.compare": ("--device", "cpu", "--batchsize", 2, *TINY[2:4]),
    "benchmarks.shift": ("--image_size", 32),
    "benchmarks.speed": ("--base_channels", 4, "--image_size", 32, "--rounds", 1),
}


def commands(page: Path) -> list[list[str]]:
    """The commands of a page in their order, as words: lines of code blocks, and commands within the text."""
    text = re.sub(r"```python\n.*?```", "", page.read_text(), flags=re.DOTALL).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        code = [line.strip()] if line.startswith("    ") else re.findall(r"`([^`]+)`", line)
        parts = [part.strip() for each in code if COMMAND.match(each) for part in each.split("&&")]
        found += [shlex.split(part, comments=True) for part in parts if COMMAND.match(part)]
    return found


def starts_like(words: list[str], beginnings: Iterable[str]) -> bool:
    return any(" ".join(words).startswith(beginning) for beginning in beginnings)


@pytest.fixture(scope="module")
def template(scans, tmp_path_factory) -> Path:
    """A folder with small data under every name that the pages use."""
    root = tmp_path_factory.mktemp("docs") / "template"
    flags = ["--labeled", 12, "--unlabeled", 4, "--unlabeled_truth", "--test", 2, "--size", 64]
    assert call_here("data.phantom.__main__", "--out", root, *flags)[0] == 0
    for name in ("covid-semiseg", "phantom"):
        shutil.copytree(root, root / ".." / "copy" / name)
    shutil.copytree(root / ".." / "copy", root / "datasets")
    for name, source in {
        "slices": "Test-Image",
        "truth": "Test-Mask",
        "lungs": "Test-Mask",
        "other_model": "Test-Mask",
    }.items():
        shutil.copytree(root / source, root / name)
    shutil.copytree(root / "Test-Image", root / "V/img")
    shutil.copytree(root / "Test-Mask", root / "V/msk")
    shutil.copytree(root / "slices", root / "images/P1")
    shutil.copytree(root / "truth", root / "masks/P1")
    shutil.copy(next((root / "Test-Image").glob("*.png")), root / "slice.png")
    shutil.copytree(scans / "DICOM" / "0000", root / "dicom")
    (root / "scans").mkdir()
    for number in (0, 2):
        case = scans / "COVID-19-20" / f"volume-covid19-A-{number:04}_ct.nii.gz"
        shutil.copy(case, root / "scans" / f"{number}.nii.gz")
        shutil.copy(str(case).replace("_ct", "_seg"), root / "masks" / f"{number}.nii.gz")
    shutil.copy(root / "scans/0.nii.gz", root / "scan.nii.gz")
    for release in ("COVID-19-20", "UESTC"):
        shutil.copytree(scans / release, root / "DIR", dirs_exist_ok=True)
    for source, folder in {
        "Train-Image": "TrainingSet/LungInfection-Train/Doctor-label/Imgs",
        "Train-Mask": "TrainingSet/LungInfection-Train/Doctor-label/GT",
        "Unlabeled": "TrainingSet/LungInfection-Train/Pseudo-label/Imgs",
        "Test-Image": "TestingSet/LungInfection-Test/Imgs",
    }.items():
        shutil.copytree(root / source, root / "DIR" / folder)
    train = [*TINY, "--save_folder", root / "model", "--data_root", root]
    assert call_here("supervised_train", *train)[0] == 0
    for name in "MABC":
        shutil.copy(root / "model/best.pth", root / f"{name}.pth")
    shutil.rmtree(root / "model")
    return root


@pytest.fixture
def sandbox(template, tmp_path, monkeypatch) -> Path:
    """A copy of the small data as the current folder, in which a page finds what it names."""
    shutil.copytree(template, tmp_path / "docs")
    (tmp_path / "docs" / "weights").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    return tmp_path / "docs"


def run(words: list[str]) -> None:
    """Run a command of a page on less work, in this process. Fails if it fails."""
    assert words[0] == "python", words
    name, *arguments = words[2:] if words[1] == "-m" else words[1:]
    if name == "-c":
        exec(arguments[0], {})
    elif name.startswith("examples/"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *arguments])
            runpy.run_path(str(ROOT / name), run_name="__main__")
    else:
        module = name.removesuffix(".py")
        if importlib.util.find_spec(module).submodule_search_locations:
            module += ".__main__"
        small = ONE_MORE if "--resume" in arguments else SMALL.get(name, ())
        if small == TINY and {"--pretrained_model", "--model"} & set(arguments):
            small = TINY[2:]  # the network has its own width
        if name == "benchmarks.compare":  # whose own options precede those of the trainer
            place = arguments.index("--")
            arguments[place:place] = ["--models", "unet", "--widths", "unet=2", "--epoch", "1", "--sweep_epoch", "1"]
        code, _, error = call_here(module, *arguments, *small)
        assert code == 0, f"{' '.join(words)}\n{error}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page(sandbox, page):
    for folder in MADE.get(page.stem, []):
        shutil.rmtree(folder)
    for words in commands(page):
        if not starts_like(words, NOT_RUN) and not starts_like(words, LONG):
            run(words)


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_long_commands_of_a_page(sandbox, page):
    for words in commands(page):
        if starts_like(words, LONG) and not starts_like(words, NOT_RUN):
            run(words)


@pytest.mark.long
def test_the_demo(tmp_path):
    """``make demo`` in a copy, with the packages of these tests."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "runs", "datasets", "results"))
    command = ["make", "-o", f"{sys.prefix}/ready", f"VENV={sys.prefix}", "demo"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| semi-CARes-UNet |" in done.stdout and (copy / "runs/demo/comparison/overlay/page_001.png").exists()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.stem
)
def test_the_python_of_a_page(sandbox, page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    if page.stem == "extending":
        return  # tests/test_extending.py
    code = "\n".join(blocks).replace("base_channels=8, epoch=20", "base_channels=2, image_size=32, epoch=1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_page_opens_with_a_command():
    for page in PAGES[2:]:
        if page.stem not in ("architecture", "extending"):
            first = page.read_text().split("\n\n")[1]
            assert first.startswith("    ") and COMMAND.match(first.strip()), page


def test_what_is_not_run_stands_on_a_page():
    every = [words for page in PAGES for words in commands(page)]
    for beginning in (*NOT_RUN, *LONG):
        assert any(starts_like(words, [beginning]) for words in every), beginning


def test_packages_are_those_of_the_requirements():
    files = [ROOT / f"requirements{part}.txt" for part in ("", "-extras")]
    required = set(re.findall(r"^([\w-]+)>=", "\n".join(file.read_text() for file in files), re.MULTILINE))
    for page in PAGES:
        for words in commands(page):
            if words[:2] == ["pip", "install"]:
                flag, *_ = names = words[2:]
                assert flag == "-e" or (ROOT / names[-1]).is_file() or set(names) <= required, words


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "docs/experiments.md", *ROOT.glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"
