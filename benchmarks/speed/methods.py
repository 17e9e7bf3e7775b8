"""A training step of each semi-supervised method, from a batch of slices on, against a supervised step."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from benchmarks.measure import Work, interleaved, peak_memory
from benchmarks.speed.network import build_network
from benchmarks.speed.report import Report
from benchmarks.speed.setting import Setting
from benchmarks.speed.slices import phantom_slices
from utils import malloc
from utils.config import TrainingConfig
from utils.training.data import read_labeled, read_pseudo_labeled
from utils.training.methods import SEMI_SUPERVISED, Supervised
from utils.training.state import Training


def measure_methods(report: Report, setting: Setting) -> None:
    folder, names = Path(phantom_slices().name), [None, *SEMI_SUPERVISED]
    works = {str(name): build_method_step(name, folder, setting) for name in names}
    timings = interleaved(works, rounds=setting.rounds, device=setting.device, warm_up=2)
    del works
    memory = {name: peak_memory(build_method_step, name, folder, setting, device=setting.device) for name in names}
    for name in SEMI_SUPERVISED:
        row = f"step of {setting.batchsize} slices, --method {name}"
        both = (memory[None], memory[name])
        report.add(row, timings["None"], timings[name], memory=both, note="reference: a supervised step")


def build_method_step(name: str | None, folder: Path, setting: Setting) -> Work:
    """Augmentation, pseudo labels and a training step; None: supervised."""
    config = TrainingConfig(
        data_root=folder,
        semi_img_path=folder / "Test-Image",
        semi_msk_path=folder / "Test-Mask",
        base_channels=setting.base_channels,
        image_size=setting.image_size,
        batchsize=setting.batchsize,
        device=str(setting.device),
        amp=setting.amp,
        method=name,
    )
    with redirect_stdout(StringIO()):
        labeled, _ = read_labeled(config)
        pseudo = read_pseudo_labeled(config, labeled.preprocessing)
    method = SEMI_SUPERVISED[name](config, labeled, pseudo) if name else Supervised(config, labeled)
    method.start_epoch(1)
    images, masks = (tensor.to(setting.device) for tensor in next(iter(method.batches)))
    training = Training(build_network("ours", setting).train(), config, steps_per_epoch=10)

    def work() -> None:
        malloc.set_options(malloc.TRAINING)
        training.step(*method.prepare(images, masks, training.average_logits))

    return work
