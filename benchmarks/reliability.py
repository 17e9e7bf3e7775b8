"""Whether the reliability of masks tells the bad ones: ``python -m benchmarks.reliability OUT/NAME``.

For the slices that each network of a cross-validated setting was not trained on: the rank correlation of reliability
and Dice, and the mean Dice of the tenth with the lowest reliability. With --calibrate, the calibration error of maps
with and without a temperature, which is fitted on the slices of the other folds, by their networks.
"""

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from benchmarks.crossval.setting import held_out
from data.folders import pair_by_stem
from data.io.images import read_pair
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, run, settings
from utils.cli.prediction import add_prediction_options
from utils.config import DEFAULT_FOLDERS, PredictionConfig
from utils.evaluation.metrics import ratios
from utils.evaluation.statistics import confidence_interval
from utils.inference.calibration import best_temperature, fit_of
from utils.inference.predictor import Predictor

FLAGGED = 0.1  # of the slices


def main() -> None:
    parser = Parser(__doc__.splitlines()[0] if __doc__ else "", prog="python -m benchmarks.reliability")
    parser.add_argument("model", type=Path, help="folder of a cross-validated setting, OUT/NAME of benchmarks.crossval")
    parser.add_argument(
        "--data_root", type=Path, default=Path("."), help="folder that contains Train-Image, Train-Mask"
    )
    parser.add_argument(
        "--calibrate", action=argparse.BooleanOptionalAction, default=False, help="also fit temperatures"
    )
    add_prediction_options(parser)
    add_device_options(parser)
    args = parser.parse_args()
    pairs = pair_by_stem(*(args.data_root / DEFAULT_FOLDERS[name] for name in ("train_img_path", "train_msk_path")))
    networks = held_out(args.model, pairs)
    config = vars(settings(args, PredictionConfig))
    dice, reliability = [], []
    for checkpoint, unseen in networks:
        predictor = Predictor(checkpoint, **config)
        for pair in tqdm(unseen, desc="predicting", unit="slice", disable=None):
            gray, mask = (np.asarray(part) for part in read_pair(pair))
            found = predictor.predict(gray)
            reliability.append(found.reliability)
            dice.append(ratios(found.mask, mask > 0, undefined=1.0)["dice"])
    report(np.array(dice), np.array(reliability))
    if args.calibrate:
        fits = [fit_of(checkpoint, unseen, **config) for checkpoint, unseen in networks]
        best = [best_temperature(fit) for fit in fits]
        for index, fit in enumerate(fits):
            others = [temperature for other, temperature in enumerate(best) if other != index]
            temperature = float(np.exp(np.mean(np.log(others))))
            plain, cooled = fit(1.0), fit(temperature)
            print(
                f"fold {index}      temperature {temperature:.2f} (its own {best[index]:.2f}): calibration error "
                f"{plain.error:.4f} -> {cooled.error:.4f}, loss {plain.loss:.4f} -> {cooled.loss:.4f}"
            )


def report(dice: np.ndarray, reliability: np.ndarray) -> None:
    from scipy.stats import spearmanr

    flagged = np.argsort(reliability, kind="stable")[: max(1, round(FLAGGED * len(dice)))]
    interval = confidence_interval(dice[flagged].tolist())
    spread = " [{:.3f}, {:.3f}]".format(*interval) if interval else ""
    vary = len(set(dice)) > 1 and len(set(reliability)) > 1
    rank = f"{spearmanr(reliability, dice).statistic:.2f}" if vary else "none (all are alike)"
    print(f"{'slices':<11} {len(dice)}, Dice {fmean(dice):.3f}, reliability {fmean(reliability):.3f}")
    print(f"{'rank corr.':<11} {rank} of reliability and Dice (Spearman)")
    print(f"{'flagged':<11} {len(flagged)} slices: Dice {fmean(dice[flagged]):.3f}{spread}")


if __name__ == "__main__":
    run(main)
