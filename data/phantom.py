"""Synthetic chest CT slices with COVID-19-like lesions and their masks.

    python -m data.phantom --out datasets/phantom

Every slice depends on the seed, its folder and its number only. Labeled slices come from a narrow range of
appearances, unlabeled and test slices from a wide one: that gap is what semi-supervised training can close.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.anatomy import draw_chest, sample_patient
from data.errors import InputError
from data.lesions import add_lesions
from data.scanner import expose, sample_scanner
from data.window import LUNG
from utils.cli.parser import Parser, number, run

SPLITS = {"Train": 0, "Unlabeled": 1, "Test": 2}  # the number enters the seed of every slice
SPREAD = {"Train": 0.35, "Unlabeled": 1.0, "Test": 1.0}  # of appearances, see draw_slice

FOLDERS = {
    "Train": ("Train-Image", "Train-Mask"),
    "Unlabeled": ("Unlabeled",),
    "Test": ("Test-Image", "Test-Mask"),
}


def draw_slice(rng: np.random.Generator, size: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """One slice: Hounsfield units float32 (size, size) and its lesions bool (size, size).

    `spread` in 0..1 is the share of the full range from which lung density, noise, sharpness, gray offset
    and breathing are drawn.
    """
    patient, scanner = sample_patient(rng, spread), sample_scanner(rng, spread)
    level = rng.uniform(0.05, 1)
    chest = draw_chest(patient, level, 2 * size, rng)  # twice as fine, for smooth edges
    hu = chest.hu.copy()
    density = add_lesions(chest, hu, level, rng)
    return expose(chest, hu, density, scanner, size, rng)


def slices(split: str, count: int, size: int, seed: int) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Stem, image and mask of every slice of a split; asking for more leaves the first ones as they were."""
    for index in range(count):
        rng = np.random.default_rng([seed, SPLITS[split], index])
        hu, mask = draw_slice(rng, size, SPREAD[split])
        yield f"phantom_{index:04}", Image.fromarray(LUNG.to_gray(hu)), Image.fromarray(mask.astype(np.uint8) * 255)


def write(folders: dict[str, list[Path]], counts: dict[str, int], size: int, seed: int) -> np.ndarray:
    """Draws and saves all slices; returns the share of lesion pixels of each."""
    shares = []
    with tqdm(total=sum(counts.values()), unit="slice", disable=None) as progress:
        for split, targets in folders.items():
            for folder in targets:
                folder.mkdir(parents=True, exist_ok=True)
            for stem, image, mask in slices(split, counts[split], size, seed):
                for folder, picture in zip(targets, (image, mask), strict=False):  # Unlabeled takes no mask
                    picture.save(folder / f"{stem}.png")
                shares.append(np.mean(np.asarray(mask) > 0))
                progress.update()
    return np.array(shares)


def main() -> None:
    parser = Parser(__doc__.splitlines()[0], prog="python -m data.phantom")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="data root to write")
    parser.add_argument("--labeled", type=number(int, 0), default=40, metavar="N", help="training slices")
    parser.add_argument("--unlabeled", type=number(int, 0), default=160, metavar="N", help="without masks")
    parser.add_argument("--unlabeled_truth", action="store_true", help="also save their masks, to score pseudo labels")
    parser.add_argument("--test", type=number(int, 0), default=20, metavar="N", help="test slices")
    parser.add_argument("--volumes", type=number(int, 0), metavar="N", help="scans as NIfTI and DICOM, no slices")
    parser.add_argument("--depth", type=number(int, 3), default=40, metavar="D", help="slices of such a scan")
    parser.add_argument("--size", type=number(int, 64), default=256, metavar="S", help="pixels a side")
    parser.add_argument("--seed", type=number(int, 0), default=0, metavar="K", help="same seed, same bytes")
    args = parser.parse_args()

    counts = {"Train": args.labeled, "Unlabeled": args.unlabeled, "Test": args.test}
    names = FOLDERS | ({"Unlabeled": ("Unlabeled", "Unlabeled-Mask")} if args.unlabeled_truth else {})
    folders = {split: [args.out / name for name in names[split]] for split in counts if counts[split]}
    for folder in chain(*folders.values()) if args.volumes is None else [args.out]:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: remove it or choose another --out")
    try:
        if args.volumes is not None:
            from data.phantom_volumes import write_volumes

            write_volumes(args.out, args.volumes, args.size, args.depth, args.seed)
            print(f"{args.volumes} scans of {args.depth} slices in {args.out}: COVID-19-20, UESTC, DICOM, DICOM-Mask")
            return
        shares = write(folders, counts, args.size, args.seed)
    except OSError as problem:
        raise InputError(f"cannot write the phantom: {problem}") from problem
    print(", ".join(f"{count} {split.lower()}" for split, count in counts.items()), f"slices in {args.out}")
    if len(shares):
        print(f"{np.mean(shares == 0):.0%} without lesion, mean lesion share {shares.mean():.1%} of the pixels")


if __name__ == "__main__":
    run(main)
