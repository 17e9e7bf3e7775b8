"""Decode image files to 8-bit gray, class indices or maps."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from data.errors import FileError, InputError, one_error, stop_unless_file, unreadable
from data.io.reading import AS_STORED, Reading
from data.labels import IGNORE, IGNORED_GRAY

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # others, such as EPS, would start a program
LARGEST = "CARES_UNET_MAX_PIXELS"  # in the environment, which worker processes share
MOST_PIXELS = 64_000_000
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # ours is an error, and below it
NEARLY = 1e-3  # rounding of values that should be whole numbers, or in [0, 1]
ORIENTATION = 0x0112  # a tag of EXIF, which Pillow heeds in TIFF only
COLOURED = (2, 4, 6)  # types of PNG with more than one channel
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, which Pillow heeds for 8 bits only

File = TypeVar("File")
Result = TypeVar("Result")


def read_image(path: Path, reading: Reading = AS_STORED) -> Image.Image:
    """An image of gray levels, colours or Hounsfield units (``reading``) as 8-bit gray.

    Raises InputError if it can't be read.
    """
    return as_gray(_open(path), path, reading)


def as_gray(image: Image.Image, path: Path = Path("the image"), reading: Reading = AS_STORED) -> Image.Image:
    """An image as 8-bit gray: of 16 bits, of floats in [0, 1] or [0, 255], or with the offset of ``reading`` of HU.

    Raises InputError, which names the ``path``, for other values.
    """
    if not image.mode.startswith(("I", "F")):
        return _converted(image, "L", path)
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise FileError(path, "contains pixels that are NaN or infinite", "export it again")
    if reading.hu_offset is not None:
        return Image.fromarray(reading.window.to_gray(values.astype(np.float32) - reading.hu_offset))
    low, high = values.min(), values.max()
    if low < -NEARLY or high > (65535 if image.mode != "F" else 255 + NEARLY):
        advice = "if these are Hounsfield units, say by --hu_offset what was added to them (0: nothing)"
        raise FileError(path, "not gray levels of 8 or 16 bits", advice, f"{low:g} to {high:g}")
    if image.mode == "F":
        return Image.fromarray(np.round(values * (255 if high <= 1 + NEARLY else 1)).clip(0, 255).astype(np.uint8))
    return Image.fromarray((values // 257).astype(np.uint8))


def read_levels(path: Path) -> np.ndarray | None:
    """The values of an image of more than 8 bits, ``(H, W)``, as stored; None if it has 8 bits, or can't be read."""
    if not path.is_file():
        return None
    try:
        with Image.open(path, formats=FORMATS) as image:
            if not image.mode.startswith(("I", "F")):
                return None
        return np.asarray(_open(path))
    except (OSError, SyntaxError, ValueError, FileError):
        return None  # what is wrong is told when it is read


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file, without decoding it."""
    with Image.open(path, formats=FORMATS) as image:
        turned = image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) >= 5  # by a quarter
        return image.size[::-1] if turned else image.size


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


def read_mask(path: Path, reading: Reading = AS_STORED, *, pseudo: bool = False) -> Image.Image:
    """A mask stored as 0/1, 0/255, palette or RGB(A), as 8-bit class indices: 0, 1 and, in a pseudo mask, IGNORE.

    Black (or fully transparent) is background, the one other colour lesion (black, if the rest is transparent); in a
    pseudo mask the gray IGNORED_GRAY is a pixel to ignore. With the ``mask_threshold`` of ``reading``, what is brighter
    than this share of the gray levels is lesion. Raises InputError if the file can't be read or has more colours.
    """
    image = _open(path)
    if reading.mask_threshold is not None and not pseudo:
        return Image.fromarray((_share(image, path) > reading.mask_threshold).astype(np.uint8))
    colours = _colours(image, path)
    classes = np.zeros(colours.shape, np.uint8)
    lesion = np.setdiff1d(colours, [0])
    if pseudo:
        classes[colours == IGNORED_GRAY] = IGNORE
        lesion = np.setdiff1d(lesion, [IGNORED_GRAY])
    if len(lesion) > 1:
        if len(np.unique(colours)) == 2:
            advice = "store background as black (0)"
        elif path.suffix.lower() in (".jpg", ".jpeg"):
            advice = "JPEG blurs a mask's values; store masks as PNG, or use --mask_threshold 0.5"
        else:
            advice = "for smoothed edges use --mask_threshold 0.5; or are these images, the folders swapped?"
        raise FileError(path, "not a mask of two classes", advice, f"{len(np.unique(colours))} values")
    classes[np.isin(colours, lesion)] = 1
    return Image.fromarray(classes)


def read_map(path: Path, most: float = 1.0) -> np.ndarray:
    """A saved prediction of any model, ``(H, W)``: uint8 or uint16 gray levels as stored.

    Floats in [0, ``most``] become 8 bits, a mask in one colour 0 and 255, transparent pixels 0. Raises FileError if the
    file can't be read or is a colour picture.
    """
    image = _open(path)
    if image.mode == "F":
        share = np.asarray(image) / most
        if not (share.min() >= -NEARLY and share.max() <= 1 + NEARLY):
            advice = "save floats in [0, 1], or say by --map_max which value is certainty"
            low, high = most * share.min(), most * share.max()
            detail = f"floats from {low:g} to {high:g}" if np.isfinite(share).all() else "some are NaN or infinite"
            raise FileError(path, "not a map", advice, detail)
        return np.round(255 * share.clip(0, 1)).astype(np.uint8)
    if image.mode.startswith("I"):
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 65535:
            raise FileError(path, "not a map", "save maps as 8 or 16 bits", f"{gray.min()} to {gray.max()}")
        return gray.astype(np.uint16)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    *channels, alpha = np.moveaxis(np.asarray(_converted(image, "RGBA", path)), -1, 0)
    if all(np.array_equal(channels[0], channel) for channel in channels[1:]):
        return _seen(channels[0], alpha)
    if len(np.unique(alpha)) > 2 and all(len(np.unique(channel)) == 1 for channel in channels):
        return alpha  # one colour, laid over the slice as opaque as lesion is likely
    colours = _colours(image, path)
    if len(np.unique(colours)) > 2 or colours.min() > 0:
        raise FileError(path, "a colour picture, not a map or mask", "give the folder of the masks, not of overlays")
    return np.where(colours > 0, 255, 0).astype(np.uint8)


def has_floats(path: Path) -> bool:
    """Whether a saved prediction is stored as floats."""
    return _open(path).mode == "F"


def read_lungs(path: Path) -> Image.Image:
    """A lung mask, 1 bit a pixel: whatever is not black is lung (each lung may have its own label)."""
    return Image.fromarray(_colours(_open(path), path) > 0)


def read_pair(pair: Sequence[Path], reading: Reading = AS_STORED, *, pseudo: bool = False) -> list[Image.Image]:
    """``read_image`` of the first path and ``read_mask`` of each other one; ``pseudo`` applies to the first mask.

    Raises InputError also if their sizes differ.
    """
    image = read_image(pair[0], reading)
    masks = [read_mask(path, reading, pseudo=pseudo and path is pair[1]) for path in pair[1:]]
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


def _share(image: Image.Image, path: Path) -> np.ndarray:
    """Gray levels as a share of the largest that their type has, ``(H, W)``."""
    if image.mode.startswith("I"):
        return np.asarray(image) / 65535
    if image.mode == "F":
        return np.asarray(image)
    return np.asarray(_converted(image, "L", path)) / 255


def _colours(image: Image.Image, path: Path) -> np.ndarray:
    """Colours as numbers, int64 ``(H, W)``; 0 is black or fully transparent."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        whole = np.round(values)
        if not (np.isfinite(values).all() and np.abs(values - whole).max() <= NEARLY):
            detail = f"fractions from {values.min():g} to {values.max():g}"
            detail = detail if np.isfinite(values).all() else "some are NaN or infinite"
            raise FileError(path, "not a mask of two classes", "threshold it by --mask_threshold 0.5", detail)
        return whole.astype(np.int64)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")).astype(np.int64)
    rgba = np.asarray(_converted(image, "RGBA", path)).astype(np.int64)
    red, green, blue, alpha = np.moveaxis(rgba, -1, 0)
    if len(np.setdiff1d(alpha, [0])) > 1:
        raise FileError(path, "not a mask of two classes", "use --mask_threshold 0.5", "soft transparency")
    if image.mode == "P" and len(np.unique(np.asarray(image))) > len(np.unique(rgba.reshape(-1, 4), axis=0)):
        advice = "give each class a colour of its own"
        raise FileError(path, "a mask with two palette entries of one colour", advice)
    return _seen((red << 16) + (green << 8) + blue, alpha)


def _seen(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours, with 0 for transparent pixels. If all others are black, these were drawn, and become 255."""
    if not colours[alpha > 0].any() and not alpha.all():
        return np.where(alpha > 0, 255, 0).astype(colours.dtype)
    return np.where(alpha > 0, colours, 0)


def _converted(image: Image.Image, mode: str, path: Path) -> Image.Image:
    try:
        return image.convert(mode)
    except ValueError as error:  # LAB
        raise FileError(path, "has colours that can't be converted", "save it as gray levels", image.mode) from error


def _check_start(path: Path, start: bytes) -> None:
    """Raise FileError for files that are empty, or of which Pillow would read less than there is."""
    if not start:
        raise FileError(path, "is empty", "export or copy it again")
    if start[:4] == b"\x89PNG" and start[24:25] == b"\x10" and start[25] in COLOURED:
        raise FileError(path, "has colours of 16 bits, of which 8 would be lost", "save it as gray of 16 bits")


def _open(path: Path) -> Image.Image:
    """The only page of an image file, in the orientation in which viewers show it, 0 for black."""
    stop_unless_file(path, "image")
    try:
        # Given a path, Pillow maps uncompressed TIFF into memory, and mixes its pixels up if it is turned by a quarter.
        with path.open("rb") as file:
            _check_start(path, file.read(26))
            file.seek(0)
            image = Image.open(file, formats=FORMATS)
            if (pages := getattr(image, "n_frames", 1)) > 1:
                raise FileError(path, "not a single slice", "save each page as a file of its own", f"{pages} pages")
            if image.width * image.height > (most := int(os.environ.get(LARGEST, MOST_PIXELS))):
                advice = f"make it smaller, or allow more than {most} pixels by the environment variable {LARGEST}"
                raise FileError(path, "too large", advice, f"{image.width}x{image.height}")
            image.load()
            inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
            upright = ImageOps.exif_transpose(image)
    # Pillow reports a broken PNG chunk as a SyntaxError.
    except Image.DecompressionBombError as error:
        raise FileError(path, "too large", "make it smaller", str(error)) from error
    except UnidentifiedImageError as error:
        detail = f"neither {', '.join(FORMATS[:-1])} nor {FORMATS[-1]}"
        raise FileError(path, "not a readable image", "export or copy it again", detail) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable(path, error, "image") from error
    if inverted and upright.mode.startswith("I;16"):
        return Image.fromarray(65535 - np.asarray(upright))
    return upright
