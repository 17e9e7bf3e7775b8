"""Train CARes-UNet on labeled slices."""

from collections.abc import Sequence

from data.folders import Pair
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, run
from utils.cli.training import add_labeled_data_options, add_training_options, parse_training_options
from utils.config import TrainingConfig
from utils.training.data import read_labeled
from utils.training.loop import fit
from utils.training.methods import Supervised
from utils.training.start import Start


def main() -> None:
    train(*parse())


def parse(arguments: Sequence[str] | None = None) -> tuple[TrainingConfig, Start | None]:
    parser = Parser(__doc__, prog="supervised_train.py")
    add_labeled_data_options(parser)
    add_training_options(parser)
    add_device_options(parser)
    return parse_training_options(parser, arguments)


def train(config: TrainingConfig, start: Start | None, pairs: Sequence[Pair] | None = None) -> None:
    """Train on the labeled slices of the config, or on these ``pairs``."""
    labeled, validation = read_labeled(config, start, pairs)
    fit(config, Supervised(config, labeled), validation, script="supervised_train.py", start=start)


if __name__ == "__main__":
    run(main)
