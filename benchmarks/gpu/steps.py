"""The steps, the most valuable first. Each writes its results as early as possible and returns figures to report."""

import csv
import json
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from benchmarks.crossval.setting import TABLE
from benchmarks.gpu.process import ROOT, OutOfTime, StepError, run_until

MODELS = {"supervised": "CARes-UNet", "semi_supervised": "semi-CARes-UNet"}  # folder names of their masks


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run; a rehearsal has smaller ones."""

    supervised: Sequence = ()  # flags of the trainer
    semi: Sequence = ()  # flags of the semi-supervised trainer, which continues from that network
    crossval: Sequence = ()  # flags of the supervised trainer in cross-validation
    speed: Sequence = ("--parts", "carafe", "inference", "training", "optimizer")
    widths: Sequence[int] = (32, 64)  # of cross-validation
    folds: int = 3


FULL = Sizes()
TOY_RUN = ("--batchsize", 2, "--epoch", 2)
TOY = Sizes(
    supervised=("--base_channels", 2, "--image_size", 32, *TOY_RUN),
    semi=TOY_RUN,
    crossval=("--image_size", 32, *TOY_RUN),
    speed=("--parts", "inference", "training", "optimizer", "--base_channels", 4, "--image_size", 32, "--rounds", 1),
    widths=(2,),
    folds=2,
)


@dataclass
class Job:
    """The input of a step. ``deadline``: of this step, on the clock of ``time.monotonic``."""

    data_root: Path
    results: Path  # small files to keep
    scratch: Path  # everything else
    sizes: Sizes
    deadline: float = 0.0

    def call(self, *command: object) -> str:
        """Run ``python command``; raises StepError."""
        return run_until(self.deadline, list(command), self.results / "log.txt")

    def trained(self, step: str) -> Path:
        """The model of a training step, finished or not. Raises StepError if there is none."""
        if not (model := self.scratch / step / "best.pth").exists():
            raise StepError(f"needs the model of step {step}; run that step first")
        return model


def tests(job: Job) -> dict:
    """Tests marked gpu: kernels against their definition, precisions, resume, workers, inference."""
    return _run_tests(job, "gpu and not long")


def compiled(job: Job) -> dict:
    """A run with --compile and its resumption, only on a GPU."""
    return _run_tests(job, "gpu and long")


def gpu_test_files() -> list[Path]:
    """The files with such tests; others may need packages that a GPU machine lacks."""
    return [
        file
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in file.read_text(encoding="utf-8")
    ]


def _run_tests(job: Job, marked: str) -> dict:
    options = ["-p", "no:cacheprovider", "-rs", "--durations=5"]
    printed = job.call("-m", "pytest", "-m", marked, *options, *gpu_test_files())
    return {"result": printed.strip().rpartition("\n")[2].strip("= ")}


def supervised(job: Job) -> dict:
    """The default recipe at full width and 256 pixels, on all labeled slices."""
    for built_on_it in ("Pos-Mask", "semi_supervised"):
        shutil.rmtree(job.scratch / built_on_it, ignore_errors=True)
    return _train(job, "supervised", ["supervised_train.py", "--data_root", job.data_root, *job.sizes.supervised])


def labels(job: Job) -> dict:
    """Pseudo masks of the unlabeled slices by the supervised model."""
    masks = job.scratch / "Pos-Mask"
    shutil.rmtree(masks, ignore_errors=True)
    paths = ["--model_path", job.trained("supervised"), "--data_root", job.data_root, "--Mask-dir", masks]
    started = time.monotonic()
    job.call("fake_labels_generator.py", *paths)
    seconds = time.monotonic() - started
    count = len(list(masks.glob("*.png")))
    return {"slices": count, "slices a second, with the start": round(count / seconds, 1)}


def semi_supervised(job: Job) -> dict:
    """The default recipe, from the supervised model and its pseudo masks."""
    paths = ["--data_root", job.data_root, "--semi_msk_path", job.scratch / "Pos-Mask"]
    start = ["--pretrained_model", job.trained("supervised")]
    return _train(job, "semi_supervised", ["semi_supervised_train.py", *paths, *start, *job.sizes.semi])


def _train(job: Job, name: str, command: list) -> dict:
    run = job.scratch / name
    shutil.rmtree(run, ignore_errors=True)
    try:
        printed = job.call(*command, "--save_folder", run)
    except OutOfTime as error:
        done = len(_rows(run / "log.csv")) if (run / "log.csv").exists() else 0
        raise OutOfTime(f"{error}; {done} epochs were done") from error
    finally:
        if (run / "log.csv").exists():
            shutil.copy(run / "log.csv", job.results / f"{name}.csv")
    epochs = _rows(run / "log.csv")
    network = re.search(r"cares_unet of .*", printed)
    memory = re.search(r"memory\s+([\d.]+) GB", printed)
    return {
        "network": network[0] if network else None,
        "epochs": len(epochs),
        "seconds an epoch, median": round(median(float(epoch["seconds"]) for epoch in epochs), 3),
        "last training loss": round(float(epochs[-1]["train_loss"]), 4),
        **({"peak memory, GB": float(memory[1])} if memory else {}),
    }


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def masks(job: Job) -> dict:
    """Masks of the test slices by each trained model, as masks.zip."""
    done = [step for step in MODELS if (job.scratch / step / "best.pth").exists()]
    if not done:
        job.trained("supervised")
    counts = {}
    for step in done:
        folder = job.scratch / MODELS[step]
        shutil.rmtree(folder, ignore_errors=True)
        paths = ["--data_root", job.data_root, "--img_save_folder", folder]
        job.call("test.py", "--pretrained_model", job.trained(step), *paths)
        counts[f"masks of {MODELS[step]}"] = len(list(folder.glob("*.png")))
        with zipfile.ZipFile(job.results / "masks.zip", "a" if step != done[0] else "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted([*folder.glob("*.png"), folder / "summary.json"]):
                file.write(path, f"{MODELS[step]}/{path.name}")
    return counts


def speed(job: Job) -> dict:
    """benchmarks.speed: against the reference, the ceiling of a matrix product and the floor of the memory."""
    folder = job.scratch / "speed"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        job.call("-m", "benchmarks.speed", *job.sizes.speed, "--save_folder", folder)
    finally:  # keeps the rows written so far
        if (folder / "speed.json").exists():
            shutil.copy(folder / "speed.json", job.results / "speed.json")
    return {"rows": len(json.loads((folder / "speed.json").read_text(encoding="utf-8"))["rows"])}


def crossval(job: Job) -> dict:
    """Cross-validation by width, folds side by side: supervised, then semi-supervised. Resumes if it was stopped."""
    out, found = job.scratch / "crossval", {}
    folds = ["--folds", job.sizes.folds, "--jobs", job.sizes.folds]
    for width in job.sizes.widths:
        supervised_name, semi_name = f"width_{width}", f"width_{width}_semi"
        for name, options, flags in (
            (supervised_name, [], ["--base_channels", width, *job.sizes.crossval]),
            (semi_name, ["--teacher", supervised_name], job.sizes.semi),
        ):
            command = ["-m", "benchmarks.crossval", name, *options, "--data_root", job.data_root, "--out", out, *folds]
            try:
                job.call(*command, "--", *flags)
            finally:  # keeps the folds that were scored, if the setting was stopped
                tables = sorted((out / name).glob(f"seed_0_fold_*/{TABLE}"))
                dice = [float(row["dice"]) for table in tables for row in _rows(table)]
                if dice:
                    found[name] = {"folds": len(tables), "slices": len(dice), "dice": round(fmean(dice), 4)}
                    (job.results / "crossval.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return {name: "Dice {dice:.3f} of {slices} slices in {folds} folds".format(**row) for name, row in found.items()}


@dataclass(frozen=True)
class Step:
    """share: maximum share of the time. file: its result, besides the report."""

    run: Callable[[Job], dict]
    share: float
    file: str | None = None


# In this order, the most valuable first.
STEPS = {
    "tests": Step(tests, 0.2),
    "supervised": Step(supervised, 0.25, "supervised.csv"),
    "labels": Step(labels, 0.08),
    "semi_supervised": Step(semi_supervised, 0.25, "semi_supervised.csv"),
    "masks": Step(masks, 0.06, "masks.zip"),
    "speed": Step(speed, 0.2, "speed.json"),
    "compile": Step(compiled, 0.2),
    "crossval": Step(crossval, 1.0, "crossval.json"),
}
