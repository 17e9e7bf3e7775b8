"""Decode image files to 8-bit gray, class indices or maps."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.errors import FileError, InputError, one_error
from data.labels import IGNORE, IGNORED_GRAY

File = TypeVar("File")
Result = TypeVar("Result")


def read_image(path: Path) -> Image.Image:
    """An 8- or 16-bit gray, RGB(A) or palette image as 8-bit gray. Raises InputError if it can't be read."""
    return as_gray(_open(path), path)


def as_gray(image: Image.Image, path: Path = Path("the image")) -> Image.Image:
    """An image as 8-bit gray. Raises InputError, which names the ``path``, if its gray levels exceed 16 bits."""
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


def array_as_gray(array: np.ndarray) -> Image.Image:
    """An array ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` as 8-bit gray.

    uint16 has 16 bits. Other integers have 8 bits if none is above 255, else 16; floats are in [0, 1] or, if one is
    above 1, in [0, 255]. Raises InputError for other shapes and values.
    """
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(f"the image: has the shape {array.shape}; give (height, width) or (height, width, 3)")
    if array.dtype.kind not in "uif" or not (array.min() >= 0 and array.max() <= 65535):
        levels = f"{array.dtype} from {array.min()} to {array.max()}"
        raise InputError(f"the image: not gray levels ({levels}); window it to 8 or 16 bits, or to floats in [0, 1]")
    if array.dtype.kind == "f":
        array = np.round(array * (255 if array.max() <= 1 else 1))
    has_8_bits = array.dtype != np.uint16 and array.max() <= 255
    if array.ndim == 3 and not has_8_bits:
        raise InputError("the image: has colours of more than 8 bits; give 8 bits or (height, width)")
    return as_gray(Image.fromarray(array.astype(np.uint8 if has_8_bits else np.int32)))


def read_mask(path: Path, *, pseudo: bool = False) -> Image.Image:
    """A mask stored as 0/1, 0/255, palette or RGB(A), as 8-bit class indices: 0, 1 and, in a pseudo mask, IGNORE.

    Black (or fully transparent) is background, the one other colour lesion (black, if the rest
    is transparent); in a pseudo mask the gray IGNORED_GRAY is a pixel to ignore. Raises InputError if the file can't
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


def read_pair(pair: Sequence[Path], *, pseudo: bool = False) -> list[Image.Image]:
    """``read_image`` of the first path and ``read_mask`` of each other one; ``pseudo`` applies to the first mask.

    Raises InputError also if their sizes differ.
    """
    image = read_image(pair[0])
    masks = [read_mask(path, pseudo=pseudo and path is pair[1]) for path in pair[1:]]
    for path, mask in zip(pair[1:], masks, strict=True):
        if image.size != mask.size:
            sizes = "{}x{}, the image {}x{}".format(*mask.size, *image.size)
            raise FileError(path, f"differs in size from its image in {pair[0].parent}", "make the sizes equal", sizes)
    return [image, *masks]


def read_all(read: Callable[[File], Result], files: Sequence[File]) -> list[Result]:
    """``read(file)`` for each file, in threads, behind a progress bar.

    Raises one InputError that reports every failure, so that the user can fix all of them.
    """

    def attempt(file: File) -> Result | FileError:
        try:
            return read(file)
        except FileError as error:
            return error

    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(attempt, files), total=len(files), desc="reading", unit="slice", leave=False, disable=None)
        attempts = list(bar)
    if errors := [result for result in attempts if isinstance(result, FileError)]:
        raise one_error(errors, files=len(files))
    return [result for result in attempts if not isinstance(result, FileError)]


def _colours(image: Image.Image) -> np.ndarray:
    """Colours as numbers, int64 ``(H, W)``; 0 is black or fully transparent."""
    if image.mode.startswith(("I", "F")):
        return np.asarray(image).astype(np.int64)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")).astype(np.int64)
    red, green, blue, alpha = np.moveaxis(np.asarray(image.convert("RGBA")).astype(np.int64), -1, 0)
    return _seen((red << 16) + (green << 8) + blue, alpha)


def _seen(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours, with 0 for transparent pixels. If all others are black, these were drawn, and become 255."""
    if not colours[alpha > 0].any() and not alpha.all():
        return np.where(alpha > 0, 255, 0).astype(colours.dtype)
    return np.where(alpha > 0, colours, 0)


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
