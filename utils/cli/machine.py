"""Command-line options of the machine, which all scripts share."""

from utils.cli.parser import Parser, add_options
from utils.config import TrainingConfig


def add_device_options(parser: Parser) -> None:
    helps = {
        "device": "auto (a CUDA GPU or else the CPU), cpu, cuda, cuda:N or mps",
        "num_workers": "loader processes; default: 0, or up to 4 if the slices do not fit in --cache_gb",
        "amp": "mixed precision; auto: bf16 or fp16 on a GPU, off on a CPU",
        "cache_gb": "GB of memory for each set of decoded slices",
    }
    add_options(parser.add_argument_group("machine"), TrainingConfig, helps)
