"""Draw a slice with its lesions in colours, and the burden along a scan."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.preprocess.window import LUNG, Window
from utils.lesions import uncertainty
from utils.output.pictures import ERROR_COLOURS, OVERLAY
from utils.viewer.study import Study

WINDOWS = {"lung": LUNG, "wide": Window(-400, 2000), "soft tissue": Window(40, 400), "bone": Window(400, 1800)}
LAYERS = ("lesions", "uncertainty", "right and wrong", "none")
LEAST_SIDE = 640  # pixels of a picture
CURVE = (640, 120)
UNSURE = (1.0, 0.9, 0.1)


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a slice is drawn. layer: one of LAYERS. window: one of WINDOWS, for scans."""

    threshold: float = 0.5
    layer: str = "lesions"
    outline: bool = True
    opacity: float = 0.5
    window: str = "lung"


def draw(study: Study, index: int, look: Look) -> np.ndarray:
    """A slice with its layer, RGB uint8 ``(H, W, 3)``, enlarged to at least LEAST_SIDE."""
    image = study.images[index]
    gray = image if image.dtype == np.uint8 else WINDOWS[look.window].to_gray(image)
    factor = max(1, -(-LEAST_SIDE // max(gray.shape)))
    size = (gray.shape[1] * factor, gray.shape[0] * factor)
    picture = np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)[..., None]
    picture = np.repeat(picture / 255, 3, axis=2)

    def enlarged(mask: np.ndarray) -> np.ndarray:
        return mask.repeat(factor, axis=0).repeat(factor, axis=1)

    mask = study.mask(index, look.threshold)
    if look.layer == "uncertainty":
        _blend(picture, enlarged(uncertainty(study.maps[index]) / 255) * look.opacity * 1.6, UNSURE)
    elif look.layer == "right and wrong" and study.truths is not None:
        truth = study.truths[index]
        right_and_wrong = (mask & truth, mask & ~truth, ~mask & truth)
        for where, colour in zip(right_and_wrong, ERROR_COLOURS.values(), strict=True):
            _blend(picture, enlarged(where) * look.opacity, colour)
    elif look.layer != "none":
        large = enlarged(mask)
        _blend(picture, (_outline(large) * 1.0) if look.outline else large * look.opacity, OVERLAY)
    return np.round(255 * picture).astype(np.uint8)


def draw_burden(study: Study, index: int, threshold: float) -> np.ndarray:
    """The lesion area of each slice as bars, uint8 ``(120, 640, 3)``, the shown slice brighter."""
    areas = study.areas(threshold)
    width, height = CURVE
    picture = np.full((height, width, 3), 245, np.uint8)
    heights = np.round(areas / max(1, areas.max()) * (height - 10)).astype(int)
    for column in range(width):
        which = slice_at(column, len(areas))
        colour = (200, 60, 20) if which == index else (240, 160, 130)
        picture[height - heights[which] :, column] = colour
        if which == index:
            picture[: height - heights[which], column] = (225, 225, 225)
    return picture


def slice_at(column: int, count: int) -> int:
    """The slice at a column of the picture of the burden."""
    return int(np.clip(column * count // CURVE[0], 0, count - 1))


def _outline(mask: np.ndarray, *, width: int = 2) -> np.ndarray:
    """The border of a mask, inside of it, bool ``(H, W)``."""
    from scipy import ndimage

    return mask & ~ndimage.binary_erosion(mask, iterations=width)


def _blend(picture: np.ndarray, share: np.ndarray, colour: tuple[float, float, float]) -> None:
    share = np.clip(share, 0, 1)[..., None].astype(np.float32)
    picture *= 1 - share
    picture += share * np.array(colour, np.float32)
