"""Synthetic chest CT slices with COVID-19-like lesions and their masks.

    python -m data.phantom --out datasets/phantom

Every slice depends on the seed, its folder and its number only. Labeled slices come from a narrow range of
appearances, unlabeled and test slices from a wide one: that gap is what semi-supervised training can close.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.anatomy import Chest, draw_chest, sample_patient
from data.canvas import gaussian_blur, smooth_noise
from data.command_line import Parser, number, run
from data.errors import InputError

SPLITS = {"Train": 0, "Unlabeled": 1, "Test": 2}  # the number enters the seed of every slice
SPREAD = {"Train": 0.35, "Unlabeled": 1.0, "Test": 1.0}  # of appearances, see draw_slice

FOLDERS = {
    "Train": ("Train-Image", "Train-Mask"),
    "Unlabeled": ("Unlabeled",),
    "Test": ("Test-Image", "Test-Mask"),
}

VISIBLE = 0.35  # density from which a reader would outline a lesion
KINDS = {"ground-glass": 0.5, "consolidation": 0.15, "mixed": 0.2, "crazy-paving": 0.15}  # and how often


@dataclass(frozen=True)
class Scanner:
    noise: float  # standard deviation, HU
    grain: float  # of the noise, as blur in pixels
    blur: float  # of the reconstruction kernel, as a share of the image
    offset: float  # HU
    motion: float  # of a breath, as a share of the image
    streaks: float  # HU


def sample_scanner(rng: np.random.Generator, spread: float) -> Scanner:
    return Scanner(
        noise=22 * 2.2 ** (spread * rng.uniform(-1, 1)),
        grain=0.6 + 0.35 * spread * rng.uniform(-1, 1),
        blur=0.0015 * 2 ** (spread * rng.uniform(-1, 1)),
        offset=30 * spread * rng.uniform(-1, 1),
        motion=spread * max(0.0, rng.uniform(-0.03, 0.01)),
        streaks=spread * max(0.0, rng.uniform(-25, 20)),
    )


def lesion_centre(chest: Chest, rng: np.random.Generator) -> tuple[float, float]:
    """A point of the lungs in chest coordinates, more likely far out and at the back."""
    step = len(chest.hu) // 64
    lungs, x, y = (layer[::step, ::step].ravel() for layer in (chest.lungs, chest.x, chest.y))
    weight = lungs * np.exp(3.5 * np.hypot(x, y) + 1.2 * y)
    i = rng.choice(len(weight), p=weight / weight.sum())
    return x[i], y[i]


def lesion_density(chest: Chest, centre: tuple, radii: tuple, ragged: float, soft: float, rng) -> np.ndarray:
    """(S, S) in 0..1: an oval flat along the pleura, its border broken up by noise, clipped to the lungs."""
    turn = np.arctan2(centre[1], centre[0])
    x, y = chest.x - centre[0], chest.y - centre[1]
    across, along = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    octaves = ((0.7, 14), (0.4, 32), (0.2, 72))
    noise = sum(share * smooth_noise(rng, len(x), cells) for share, cells in octaves)
    field = 1 - np.hypot(along / radii[0], across / radii[1]) + ragged * noise
    return np.clip(field / soft + 0.5, 0, 1) * chest.lungs


def add_lesion(chest: Chest, hu: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Blends one lesion into `hu` in place and returns its density (S, S), 0..1."""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    centre = lesion_centre(chest, rng)
    length = scale * rng.uniform(0.12, 0.38)
    radii = np.array([length, length * rng.uniform(0.5, 0.9)])
    density = np.zeros_like(hu)
    if kind != "consolidation":
        density = lesion_density(chest, centre, radii, rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.9), rng)
        haze = density * (0.85 + 0.15 * smooth_noise(rng, len(hu), 60))
        hu += haze * np.maximum(rng.uniform(-680, -450) - hu, 60)  # visible in dense lung, too
    if kind == "crazy-paving":  # thickened septa between the lobules: the zero lines of a noise
        mesh = np.exp(-((smooth_noise(rng, len(hu), 64) / 0.3) ** 2))
        hu += 0.55 * density * mesh * np.maximum(-250 - hu, 0)
    if kind in ("consolidation", "mixed"):
        core = lesion_density(chest, centre, 0.6 * radii, rng.uniform(0.3, 0.5), rng.uniform(0.2, 0.4), rng)
        hu += core * (rng.uniform(-100, 30) - hu)
        density = np.maximum(density, core)
    return density


def add_lesions(chest: Chest, hu: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Blends 0 to 6 lesions into `hu` in place and returns their joint density (S, S), 0..1."""
    density = np.zeros_like(hu)
    if rng.random() < 0.16:
        return density
    severity = rng.random()
    many = 0.2 + 0.5 * severity * min(1, 0.5 + level)  # more towards the bases
    for _ in range(1 + rng.binomial(5, many)):
        density = np.maximum(density, add_lesion(chest, hu, 0.6 + severity**1.5, rng))
    return density


def scan(hu: np.ndarray, scanner: Scanner, size: int, rng: np.random.Generator) -> np.ndarray:
    """What the scanner makes of the anatomy: breathing, blur, sampling to (size, size), streaks and noise."""
    if scanner.motion:  # two positions of the chest in one rotation
        hu = 0.6 * hu + 0.4 * np.roll(hu, round(scanner.motion * len(hu)), 0)
    hu = halve(gaussian_blur(hu, scanner.blur * len(hu)))
    streaks = smooth_noise(rng, size, 80)[:, :1] * (hu > -950)
    noise = gaussian_blur(rng.standard_normal((size, size), np.float32), scanner.grain)
    hu += scanner.offset + scanner.streaks * streaks + scanner.noise * noise / noise.std()
    return np.maximum(hu, -1024)


def halve(field: np.ndarray) -> np.ndarray:
    """(2S, 2S) to (S, S) by means of 2x2."""
    return field.reshape(len(field) // 2, 2, -1, 2).mean((1, 3))


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
    for opacity, tissue in ((chest.walls, -100), (chest.airways, -970), (chest.vessels, 30)):
        hu += opacity * (tissue - hu)
    mask = halve(density) > VISIBLE
    return scan(hu, scanner, size, rng), mask


def window(hu: np.ndarray, level: float = -650, width: float = 1500) -> np.ndarray:
    """HU to 8 bit gray, by default through a lung window: -1400 is black, 100 white."""
    return np.round(255 * np.clip((hu - level) / width + 0.5, 0, 1)).astype(np.uint8)


def slices(split: str, count: int, size: int, seed: int) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Stem, image and mask of every slice of a split; asking for more leaves the first ones as they were."""
    for index in range(count):
        rng = np.random.default_rng([seed, SPLITS[split], index])
        hu, mask = draw_slice(rng, size, SPREAD[split])
        yield f"phantom_{index:04}", Image.fromarray(window(hu)), Image.fromarray(mask.astype(np.uint8) * 255)


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
    parser.add_argument("--test", type=number(int, 0), default=20, metavar="N", help="test slices")
    parser.add_argument("--size", type=number(int, 64), default=256, metavar="S", help="pixels a side")
    parser.add_argument("--seed", type=number(int, 0), default=0, metavar="K", help="same seed, same bytes")
    args = parser.parse_args()

    counts = {"Train": args.labeled, "Unlabeled": args.unlabeled, "Test": args.test}
    folders = {split: [args.out / name for name in FOLDERS[split]] for split in counts if counts[split]}
    for folder in chain(*folders.values()):
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: remove it or choose another --out")
    try:
        shares = write(folders, counts, args.size, args.seed)
    except OSError as problem:
        raise InputError(f"cannot write the phantom: {problem}") from problem
    print(", ".join(f"{count} {split.lower()}" for split, count in counts.items()), f"slices in {args.out}")
    if len(shares):
        print(f"{np.mean(shares == 0):.0%} without lesion, mean lesion share {shares.mean():.1%} of the pixels")


if __name__ == "__main__":
    run(main)
