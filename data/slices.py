"""CT slices on disk -> tensors: pairing, decoding, and the two data sets."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from tqdm import tqdm

from data.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
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


def pair_by_stem(image_folder: Path, mask_folder: Path) -> list[Pair]:
    """Images with their masks, matched by file name without suffix: ``3.jpg`` goes with ``3.png``.

    Raises InputError, with every offender named, if an image or a mask has no partner.
    """
    images = list_slices(image_folder)
    masks = {mask.stem: mask for mask in list_slices(mask_folder)}
    problems = []
    if alone := [image.name for image in images if image.stem not in masks]:
        problems.append(f"no mask in {mask_folder} for {', '.join(alone)} of {image_folder}")
    if alone := [masks[stem].name for stem in sorted(masks.keys() - {image.stem for image in images})]:
        problems.append(f"no image in {image_folder} for {', '.join(alone)} of {mask_folder}")
    if problems:
        raise InputError(f"{'; '.join(problems)}; add the missing files or remove their partners")
    return [(image, masks[image.stem]) for image in images]


def split_pairs(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split into training and validation pairs, both in their order; the same seed and stems give the same split.

    ``fraction`` of the pairs, at least one unless it is 0, is for validation.
    """
    count = max(1, round(fraction * len(pairs))) if fraction else 0
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = set(order[:count])
    return [p for i, p in enumerate(pairs) if i not in chosen], [p for i, p in enumerate(pairs) if i in chosen]


def read_image(path: Path) -> Image.Image:
    """An 8- or 16-bit gray, RGB(A) or palette image as 8-bit gray. Raises InputError if it can't be read."""
    image = _open(path)
    if not image.mode.startswith(("I", "F")):
        return image.convert("L")
    gray = np.asarray(image)
    if image.mode == "F" or gray.min() < 0 or gray.max() > 65535:
        raise InputError(
            f"{path}: gray levels from {gray.min():g} to {gray.max():g}; "
            "window them to 8 or 16 bits first (README.md, Your own data)"
        )
    return Image.fromarray((gray // 257).astype(np.uint8))


def read_mask(path: Path, *, pseudo: bool = False) -> Image.Image:
    """A mask stored as 0/1, 0/255, palette or RGB(A), as 8-bit class indices: 0, 1 and, in a pseudo mask, IGNORE.

    Black (or fully transparent) is background, the one other colour lesion; in a pseudo mask the gray
    IGNORED_GRAY is a pixel to ignore. Raises InputError if the file can't be read or has more colours.
    """
    mask = _open(path)
    if mask.mode.startswith(("I", "F")):
        colours = np.asarray(mask).astype(np.int64)
    elif mask.mode in ("1", "L"):
        colours = np.asarray(mask.convert("L")).astype(np.int64)
    else:
        red, green, blue, alpha = np.moveaxis(np.asarray(mask.convert("RGBA")).astype(np.int64), -1, 0)
        colours = np.where(alpha > 0, (red << 16) + (green << 8) + blue, 0)
    classes = np.zeros(colours.shape, np.uint8)
    lesion = np.setdiff1d(colours, [0])
    if pseudo:
        classes[colours == IGNORED_GRAY] = IGNORE
        lesion = np.setdiff1d(lesion, [IGNORED_GRAY])
    if len(lesion) > 1:
        raise InputError(
            f"{path}: {len(np.unique(colours))} values in a mask of two classes; store it lossless, as 0 and 255"
        )
    classes[np.isin(colours, lesion)] = 1
    return Image.fromarray(classes)


def read_pair(pair: Pair, *, pseudo: bool = False) -> tuple[Image.Image, Image.Image]:
    """``read_image`` and ``read_mask`` of a pair. Raises InputError also if their sizes differ."""
    image, mask = read_image(pair[0]), read_mask(pair[1], pseudo=pseudo)
    if image.size != mask.size:
        sizes = [f"{width}x{height}" for width, height in (image.size, mask.size)]
        raise InputError(f"{pair[1]}: the mask is {sizes[1]}, its image {pair[0]} is {sizes[0]}; make them the same")
    return image, mask


def read_all(read: Callable, items: Sequence, *, keep: bool = True) -> list | None:
    """``read(item)`` for each item, in threads, behind a progress bar; None if the results are not to be kept.

    Raises one InputError that tells every failure, so that a user mends them all at once.
    """

    def attempt(item):
        try:
            result = read(item)
        except InputError as error:
            return error
        return result if keep else None

    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(attempt, items), total=len(items), desc="reading", unit="slice", leave=False, disable=None)
        results = list(bar)
    if errors := [str(result) for result in results if isinstance(result, InputError)]:
        raise InputError("; ".join(errors))
    return results if keep else None


class LesionSlices(Dataset):
    """Slices with their lesion masks, at one size.

    An item is an image, float32 ``(1, size, size)`` in [0, 1], and a mask, int64 ``(size, size)`` in
    {0, 1, 255 = ignore}, after the joint ``transform``. All files are read once, at the start; what fits in
    ``cache_gb`` gigabytes is kept decoded (2 bytes a pixel), a larger set is decoded anew at every access.
    ``pseudo`` admits masks with ignored pixels. Raises InputError that names every file that can't be used.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        size: int,
        transform: Callable | None = None,
        cache_gb: float = 4.0,
        pseudo: bool = False,
    ) -> None:
        self.pairs, self.size, self.transform, self.pseudo = list(pairs), size, transform, pseudo
        self._cache = read_all(self._decode, self.pairs, keep=len(self.pairs) * 2 * size**2 <= cache_gb * 1e9)

    def _decode(self, pair: Pair) -> tuple[Tensor, Tensor]:
        image, mask = read_pair(pair, pseudo=self.pseudo)
        return _resized(image, self.size, Image.LANCZOS), _resized(mask, self.size, Image.NEAREST)

    def _decoded(self, index: int) -> tuple[Tensor, Tensor]:
        return self._cache[index] if self._cache is not None else self._decode(self.pairs[index])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self._decoded(index)
        image, mask = tv_tensors.Image(image[None].float() / 255), tv_tensors.Mask(mask)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor).long()

    def mean_gray(self) -> float:
        """Mean gray level of all images, in [0, 1]."""
        return fmean(self._decoded(index)[0].float().mean().item() for index in range(len(self))) / 255

    def lesion_share(self) -> float:
        """Lesion pixels over all pixels that are not ignored."""
        masks = [self._decoded(index)[1] for index in range(len(self))]
        return sum((m == 1).sum().item() for m in masks) / max(1, sum((m != IGNORE).sum().item() for m in masks))


class UnlabeledSlices(Dataset):
    """Slices without masks, at one size: an item is an image, float32 ``(1, size, size)`` in [0, 1].

    Read and kept as by ``LesionSlices`` (1 byte a pixel).
    """

    def __init__(self, paths: Sequence[Path], *, size: int, cache_gb: float = 4.0) -> None:
        self.paths, self.size = list(paths), size
        self._cache = read_all(self._decode, self.paths, keep=len(self.paths) * size**2 <= cache_gb * 1e9)

    def _decode(self, path: Path) -> Tensor:
        return _resized(read_image(path), self.size, Image.LANCZOS)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = self._cache[index] if self._cache is not None else self._decode(self.paths[index])
        return image[None].float() / 255

    def mean_gray(self) -> float:
        """Mean gray level of all images, in [0, 1]."""
        return fmean(self[index].mean().item() for index in range(len(self)))

    def own_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image as stored."""
        with Image.open(self.paths[index]) as image:
            return image.height, image.width


def _natural_order(path: Path) -> list:
    # re.split leaves text at even and digits at odd places, so that like is compared with like.
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    # Pillow reports a broken PNG chunk as a SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "")
        raise InputError(f"{path}: not a readable image ({reason}); replace or remove it") from error


def _resized(image: Image.Image, size: int, resample: Image.Resampling) -> Tensor:
    return torch.from_numpy(np.array(image.resize((size, size), resample)))
