"""Image files: listing, pairing, and decoding to 8-bit gray or to class indices."""

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from data.errors import FileError, InputError, one_error

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
IGNORE = 255  # class index of pixels that neither the loss nor a metric counts
IGNORED_GRAY = 128  # how such a pixel is stored in a pseudo mask, between background (0) and lesion (255)

Pair = tuple[Path, Path]


def list_slices(folder: Path) -> list[Path]:
    """The image files of a folder in the natural order of their stems (2 before 10).

    Raises InputError if the folder is missing, holds no image, or holds two images of one stem.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; create it or name another one")
    files = sorted((f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES), key=_natural_order)
    if not files:
        raise InputError(f"{folder}: no image in this folder; expected {' '.join(SUFFIXES)}")
    by_stem = defaultdict(list)
    for file in files:
        by_stem[file.stem].append(file.name)
    if doubled := [" and ".join(names) for names in by_stem.values() if len(names) > 1]:
        raise InputError(f"{folder}: two files of one stem: {'; '.join(doubled)}; keep one of each")
    return files


def case_of(path: Path) -> str:
    """The name of a slice or a scan without its suffix, of which ``.nii.gz`` is one; of a folder, its name."""
    for suffix in (*SCAN_SUFFIXES, *SUFFIXES):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def bare_case(path: Path) -> str:
    """``case_of`` without ``_ct`` or ``_seg``, which set a scan and its mask apart."""
    return case_of(path).removesuffix("_ct").removesuffix("_seg")


def pair_by_stem(first: Path, second: Path, kinds: tuple[str, str] = ("image", "mask")) -> list[Pair]:
    """The files of two folders, matched by name without suffix: image ``3.jpg`` goes with mask ``3.png``.

    Raises InputError, with every offender named, if a file has no partner; ``kinds`` says what to call it.
    """
    files, partners = list_slices(first), list_slices(second)
    problems = []
    for some, folder, others, other_folder, kind in (
        (files, first, partners, second, kinds[1]),
        (partners, second, files, first, kinds[0]),
    ):
        alone = _names_without(some, others)
        if len(alone) == len(some):
            raise InputError(
                f"no file of {folder}, such as {alone[0]}, has a namesake in {other_folder}; "
                f"name {kinds[0]} and {kinds[1]} alike"
            )
        if alone:
            problems.append(f"no {kind} in {other_folder} for {', '.join(alone)} of {folder}")
    if problems:
        raise InputError(f"{'; '.join(problems)}; add the missing files or remove their partners")
    by_stem = {partner.stem: partner for partner in partners}
    return [(file, by_stem[file.stem]) for file in files]


def split_pairs(
    pairs: Sequence[Pair], fraction: float, seed: int, cases: Sequence[str] | None = None
) -> tuple[list[Pair], list[Pair]]:
    """Split into training and validation pairs, both in their order; the same seed and stems give the same split.

    ``fraction`` of the cases, at least one unless it is 0, is for validation. ``cases`` tells the scan that each
    pair is a slice of, which stay together; by default, each pair is a case of its own.
    """
    cases = list(range(len(pairs))) if cases is None else cases
    names = list(dict.fromkeys(cases))
    count = max(1, round(fraction * len(names))) if fraction else 0
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {names[index] for index in order[:count]}
    training = [pair for pair, case in zip(pairs, cases, strict=True) if case not in chosen]
    return training, [pair for pair, case in zip(pairs, cases, strict=True) if case in chosen]


def cases_of(pairs: Sequence[Pair]) -> list[str]:
    """The scan that each image is a slice of, by the manifest of data.prepare beside their folder; else itself."""
    folder = pairs[0][0].parent
    try:
        with (folder.parent / "manifest.csv").open(newline="") as file:
            case = {row["file"]: row["case"] for row in csv.DictReader(file)}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError):
        case = {}
    return [case.get(f"{folder.name}/{image.name}", image.stem) for image, _ in pairs]


def read_image(path: Path) -> Image.Image:
    """An 8- or 16-bit gray, RGB(A) or palette image as 8-bit gray. Raises InputError if it can't be read."""
    return as_gray(_open(path), path)


def as_gray(image: Image.Image | np.ndarray, path: Path = Path("the image")) -> Image.Image:
    """An image, or an array ``(H, W)`` or ``(H, W, 3)``, as 8-bit gray; errors name the ``path``.

    Raises InputError if its values are not gray levels of 8 or 16 bits.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.astype(np.float32) if image.dtype.kind == "f" else image)
    if not image.mode.startswith(("I", "F")):
        return image.convert("L")
    gray = np.asarray(image)
    if image.mode == "F" or gray.min() < 0 or gray.max() > 65535:
        raise FileError(
            path,
            "not gray levels of 8 or 16 bits",
            "window them to 8 or 16 bits first (README.md, Your own data)",
            f"{gray.min():g} to {gray.max():g}",
        )
    return Image.fromarray((gray // 257).astype(np.uint8))


def read_mask(path: Path, *, pseudo: bool = False) -> Image.Image:
    """A mask stored as 0/1, 0/255, palette or RGB(A), as 8-bit class indices: 0, 1 and, in a pseudo mask, IGNORE.

    Black (or fully transparent) is background, the one other colour lesion, which is black where nothing else but
    transparency is; in a pseudo mask the gray IGNORED_GRAY is a pixel to ignore. Raises InputError if the file can't
    be read or has more colours.
    """
    colours = _colours(_open(path))
    classes = np.zeros(colours.shape, np.uint8)
    lesion = np.setdiff1d(colours, [0])
    if pseudo:
        classes[colours == IGNORED_GRAY] = IGNORE
        lesion = np.setdiff1d(lesion, [IGNORED_GRAY])
    if len(lesion) > 1:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            advice = "JPEG blurs a mask's values; store masks as PNG"
        else:
            advice = "store masks as 0 and 255, without smoothing; or are these images, the folders swapped?"
        raise FileError(path, "not a mask of two classes", advice, f"{len(np.unique(colours))} values")
    classes[np.isin(colours, lesion)] = 1
    return Image.fromarray(classes)


def read_map(path: Path) -> np.ndarray:
    """A saved prediction of any model, ``(H, W)``: uint8 or uint16 gray levels as stored.

    Floats in [0, 1] become 8 bits, a mask in one colour 0 and 255, transparent pixels 0. Raises FileError if the file
    can't be read or is a colour picture.
    """
    image = _open(path)
    if image.mode == "F":
        share = np.asarray(image)
        if not (share.min() >= 0 and share.max() <= 1):
            raise FileError(path, "not a map", "save maps as 8 or 16 bits, or as floats in [0, 1]", "floats beyond")
        return np.round(255 * share).astype(np.uint8)
    if image.mode.startswith("I"):
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 65535:
            raise FileError(path, "not a map", "save maps as 8 or 16 bits", f"{gray.min()} to {gray.max()}")
        return gray.astype(np.uint16)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    *channels, alpha = np.moveaxis(np.asarray(image.convert("RGBA")), -1, 0)
    if all(np.array_equal(channels[0], channel) for channel in channels[1:]):
        return _seen(channels[0], alpha)
    colours = _colours(image)
    if len(np.unique(colours)) > 2 or colours.min() > 0:
        raise FileError(path, "a colour picture, not a map or mask", "give the folder of the masks, not of overlays")
    return np.where(colours > 0, 255, 0).astype(np.uint8)


def read_lungs(path: Path) -> Image.Image:
    """A lung mask, 1 bit a pixel: whatever is not black is lung (each lung may have its own label)."""
    return Image.fromarray(_colours(_open(path)) > 0)


def read_pair(pair: Pair, *, pseudo: bool = False) -> tuple[Image.Image, Image.Image]:
    """``read_image`` and ``read_mask`` of a pair. Raises InputError also if their sizes differ."""
    image, mask = read_image(pair[0]), read_mask(pair[1], pseudo=pseudo)
    if image.size != mask.size:
        sizes = "{}x{}, the image {}x{}".format(*mask.size, *image.size)
        raise FileError(pair[1], f"not of its image's size in {pair[0].parent}", "make them the same", sizes)
    return image, mask


def read_all(read: Callable, files: Sequence) -> list:
    """``read(file)`` for each file, in threads, behind a progress bar.

    Raises one InputError that tells every failure, so that a user mends them all at once.
    """

    def attempt(file):
        try:
            return read(file)
        except FileError as error:
            return error

    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(attempt, files), total=len(files), desc="reading", unit="slice", leave=False, disable=None)
        results = list(bar)
    if errors := [result for result in results if isinstance(result, FileError)]:
        raise one_error(errors, files=len(files))
    return results


def _colours(image: Image.Image) -> np.ndarray:
    """Colours as numbers, int64 ``(H, W)``; 0 is black or fully transparent."""
    if image.mode.startswith(("I", "F")):
        return np.asarray(image).astype(np.int64)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")).astype(np.int64)
    red, green, blue, alpha = np.moveaxis(np.asarray(image.convert("RGBA")).astype(np.int64), -1, 0)
    return _seen((red << 16) + (green << 8) + blue, alpha)


def _seen(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours with 0 for what is transparent; if all the rest is black, it is what was drawn, and becomes 255."""
    if not colours[alpha > 0].any() and not alpha.all():
        return np.where(alpha > 0, 255, 0).astype(colours.dtype)
    return np.where(alpha > 0, colours, 0)


def _names_without(files: Sequence[Path], partners: Sequence[Path]) -> list[str]:
    stems = {partner.stem for partner in partners}
    return [file.name for file in files if file.stem not in stems]


def _natural_order(path: Path) -> tuple[list, str]:
    # re.split leaves text at even and digits at odd places, so that like is compared with like; then 01 before 1.
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.stem)], path.stem


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            if (pages := getattr(image, "n_frames", 1)) > 1:
                raise FileError(path, "not a single slice", "save each page as a file of its own", f"{pages} pages")
            return image
    # Pillow reports a broken PNG chunk as a SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "")
        raise FileError(path, "not a readable image", "replace or remove it", reason) from error
