"""Score networks on slices that differ from the training slices: ``python -m benchmarks.shift``.

Labeled slices that a network has not been trained on are put into the whole field of view of a scanner, their gray
levels are changed, and their lesions are pasted into phantom scans. Prints the mean Dice on each, by the same networks,
beside the plain slices, and the predicted area over the true one (of all slices together).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.crossval.setting import held_out
from benchmarks.shift.field import widen
from benchmarks.shift.grays import SHIFTS, shifted
from benchmarks.shift.scans import scan_with_lesions
from data.folders import Pair, pair_by_stem
from data.io.images import read_pair
from data.preprocess.window import LUNG
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, number, run, settings
from utils.cli.prediction import add_prediction_options
from utils.config import DEFAULT_FOLDERS, PredictionConfig
from utils.evaluation.metrics import ratios
from utils.inference.predictor import Predictor
from utils.lesions import lesion_mask

PER_SCAN = 6  # slices whose lesions are pasted into a scan


class Scored(NamedTuple):
    kind: str
    dice: float
    found: int  # pixels
    true: int


def main() -> None:
    parser = Parser(__doc__.splitlines()[0] if __doc__ else "", prog="python -m benchmarks.shift")
    parser.add_argument(
        "model", type=Path, help="folder of a cross-validated setting, OUT/NAME of benchmarks.crossval; or a checkpoint"
    )
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder that contains the folders below")
    parser.add_argument("--img_path", type=Path, help="labeled slices, cropped to the lungs; default: Train-Image")
    parser.add_argument("--msk_path", type=Path, help="their masks; default: Train-Mask")
    parser.add_argument("--draws", type=number(int, 1), default=3, help="random variants of each slice")
    parser.add_argument("--out", type=Path, help="write the result to this JSON file")
    add_prediction_options(parser)
    add_device_options(parser)
    args = parser.parse_args()
    pairs = pair_by_stem(
        args.img_path or args.data_root / DEFAULT_FOLDERS["train_img_path"],
        args.msk_path or args.data_root / DEFAULT_FOLDERS["train_msk_path"],
    )
    rows: list[Scored] = []
    for checkpoint, unseen in held_out(args.model, pairs):
        predictor = Predictor(checkpoint, **vars(settings(args, PredictionConfig)))
        rows += score(predictor, unseen, args.draws)
    report(rows, args.model, args.out)


def score(predictor: Predictor, pairs: Sequence[Pair], draws: int) -> Iterator[Scored]:
    """Score the plain slices and their variants; the random numbers depend on the slice only."""
    upright = -predictor.preprocessing.upright_turns
    slices = []
    for pair in tqdm(pairs, desc="scoring", unit="slice", disable=None):
        gray, mask = (np.asarray(part) for part in read_pair(pair))
        slices.append((gray, mask > 0))
        yield scored("plain", predictor.predict(gray).mask, mask > 0)
        for draw in range(draws):
            seed = [*pair[0].stem.encode(), draw]
            field = widen(gray, mask > 0, np.random.default_rng(seed), upright=upright)
            yield scored("field", predictor.predict(field.image).mask, field.mask)
            for name in SHIFTS:
                image = shifted(name, field.image, np.random.default_rng(seed))
                yield scored(name, predictor.predict(image).mask, field.mask)
    for first in range(0, len(slices), PER_SCAN):
        hu, truth = scan_with_lesions(slices[first : first + PER_SCAN], np.random.default_rng(first), upright=upright)
        soft = predictor.predict_hu(hu, window=LUNG).map
        for index in np.flatnonzero(truth.any(axis=(1, 2))):
            yield scored("scans", lesion_mask(soft[index], 0.5), truth[index])


def scored(kind: str, mask: np.ndarray, truth: np.ndarray) -> Scored:
    return Scored(kind, ratios(mask, truth, undefined=1.0)["dice"], int(mask.sum()), int(truth.sum()))


def report(rows: Sequence[Scored], model: Path, out: Path | None) -> None:
    """Print a row for each kind of slices, and write it to a file."""
    result = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        area = sum(row.found for row in own) / max(1, sum(row.true for row in own))
        result[kind] = {"slices": len(own), "dice": fmean(row.dice for row in own), "area": area}
        print(f"| {kind:<6} | {len(own):>4} | {result[kind]['dice']:.3f} | {area:.2f} |")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
