"""Command-line options of the machine, which all scripts share."""

from utils.cli.parser import Parser, number


def add_device_options(parser: Parser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto (a CUDA GPU or else the CPU), cpu, cuda, cuda:N or mps")
    group.add_argument(
        "--num_workers",
        type=number(int, 0),
        help="loader processes; default: 0, or up to 4 if the slices do not fit in --cache_gb",
    )
    group.add_argument(
        "--amp",
        choices=["auto", "off", "bf16", "fp16"],
        default="auto",
        help="mixed precision; auto: bf16 or fp16 on a GPU, off on a CPU",
    )
    group.add_argument(
        "--cache_gb", type=number(float, 0), default=4.0, help="GB of memory for each set of decoded slices"
    )
