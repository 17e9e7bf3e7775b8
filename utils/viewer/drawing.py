"""Draw a slice with its lesions in colours, and the burden along a scan."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.preprocess.window import LUNG, Window
from utils.lesions import uncertainty
from utils.output.pictures import ERROR_COLOURS, OVERLAY
from utils.viewer.study import Study

WINDOWS = {"lung": LUNG, "wide": Window(-400, 2000), "soft tissue": Window(40, 400), "bone": Window(400, 1800)}
LAYERS = ("lesions", "uncertainty", "right and wrong", "none")
WITHOUT_TRUTH = tuple(name for name in LAYERS if name != "right and wrong")
LEAST_SIDE = 640  # pixels of a picture
CURVE, LINE = (640, 160), 20
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
    """The lesion share of each slice as bars, uint8 ``(160, 640, 3)``, the shown slice brighter."""
    shares = study.shares(threshold)
    width, height = CURVE
    bars = np.full((height - 2 * LINE, width, 3), 245, np.uint8)
    heights = np.round(shares / max(shares.max(), 1e-9) * (len(bars) - 4)).astype(int)
    for column in range(width):
        which = slice_at(column, len(shares))
        bars[:, column] = (225, 225, 225) if which == index else (245, 245, 245)
        bars[len(bars) - heights[which] :, column] = (200, 60, 20) if which == index else (240, 160, 130)
    picture = Image.new("RGB", CURVE, "white")
    picture.paste(Image.fromarray(bars), (0, LINE))
    text, font = ImageDraw.Draw(picture), ImageFont.load_default(LINE - 6)
    here = f"slice {index + 1}: {shares[index]:.1%}"
    text.text((2, 1), f"lesion, % of each slice; highest {shares.max():.1%}; {here}", "black", font)
    text.text((2, height - LINE + 1), "1", "black", font)
    text.text((width - 2, height - LINE + 1), f"{len(shares)}", "black", font, anchor="ra")
    return np.asarray(picture)


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
