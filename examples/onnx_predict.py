"""Find lesions in slices with an exported network: needs numpy, pillow and onnxruntime, nothing of this repository.

    python -m models.export --pretrained_model small --out small.onnx
    python examples/onnx_predict.py small.onnx slice.png mask.png

A slice is an 8-bit image in a lung window, cropped to the lungs if the training slices are: it is not cropped here.
(The repository's own Predictor also crops whole chests, reads scans and other formats, and warns of slices that it
was not trained for.)
"""

import json
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
from PIL import Image


def threshold_otsu(gray: np.ndarray) -> int:
    """The gray level that separates dark from bright pixels with the largest variance between the classes."""
    counts = np.bincount(gray.ravel(), minlength=256).astype(float)
    levels = np.arange(256)
    dark, bright = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_dark = np.cumsum(counts * levels) / np.maximum(dark, 1)
    mean_bright = np.cumsum((counts * levels)[::-1])[::-1] / np.maximum(bright, 1)
    between = dark[:-1] * bright[1:] * (mean_dark[:-1] - mean_bright[1:]) ** 2
    return int(np.argmax(between))


def align_grays(gray: np.ndarray, how: dict) -> np.ndarray:
    """Scale gray levels so that soft tissue has the level that it has in the training slices."""
    tissue = np.median(gray[gray > threshold_otsu(gray)]) if gray.min() < gray.max() else how["soft_tissue"]
    if tissue < how["darkest_tissue"]:
        return gray
    return np.clip(np.round(gray * (how["soft_tissue"] / tissue)), 0, 255).astype(np.uint8)


def quarter_turns(pixels: np.ndarray, how: dict) -> int:
    """The quarter turns that bring a slice to the orientation of the training slices, by a thumbnail of it."""
    typical = np.array(how["typical_slice"])
    side = len(typical)
    small = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS), float)
    small -= small.mean()
    match = [float(np.vdot(typical, np.rot90(small, turns))) for turns in range(4)]
    turns = int(max(match[1], match[3]) > max(match[0], match[2]))  # the axis through both lungs
    # Front or back: the order of gray levels, by a classifier that was fitted to the training slices.
    ranks = np.rot90(small, turns).ravel().argsort(kind="stable").argsort().reshape(side, side)
    score = np.vdot(how["front_to_back"][0], ranks - np.rot90(ranks, 2))
    return turns + 2 if score < 0 else turns


def predict(session: onnxruntime.InferenceSession, how: dict, gray: np.ndarray) -> np.ndarray:
    """The probability of lesion, uint8 ``(H, W)``, 255 for certainty, of a slice uint8 ``(H, W)``."""
    size = how["image_size"]
    aligned = align_grays(gray, how) if how["align_grays"] else gray
    pixels = np.asarray(Image.fromarray(aligned).resize((size, size), Image.Resampling.LANCZOS))
    turns = quarter_turns(pixels, how) if how["align_turns"] and how["typical_slice"] else 0
    image = np.rot90(pixels, turns)[None, None].astype(np.float32) / 255
    axis = how["mirror_axis"] or -1
    views = [session.run(None, {"slices": np.ascontiguousarray(view)})[0] for view in (image, np.flip(image, axis))]
    lesion = 1 - (views[0] + np.flip(views[1], axis))[0, 0] / 2
    upright = Image.fromarray(np.ascontiguousarray(np.rot90(lesion, -turns)))
    own_size = np.asarray(upright.resize(gray.shape[::-1], Image.Resampling.BILINEAR))
    return np.ceil(255 * own_size - 0.5).clip(0, 255).astype(np.uint8)


def read_slice(path: Path) -> np.ndarray:
    """A slice, uint8 ``(H, W)``."""
    image = Image.open(path)
    if image.mode not in ("L", "RGB", "RGBA", "P", "LA"):
        stop(f"{path}: not 8 bits a pixel ({image.mode}); save it in a lung window, as 8-bit gray")
    return np.asarray(image.convert("L"))


def stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    if len(sys.argv) != 4:
        stop("usage: onnx_predict.py NETWORK.onnx SLICE.png MASK.png")
    network, slice_, mask = map(Path, sys.argv[1:])
    if mask.suffix.lower() != ".png" or mask.resolve() == slice_.resolve():
        stop(f"{mask}: name another file for the mask, one that ends with .png")
    try:
        how = json.loads(network.with_suffix(".json").read_text(encoding="utf-8"))["preprocessing"]
        session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
        lesion = predict(session, how, read_slice(slice_))
        Image.fromarray((lesion > 127).astype(np.uint8) * 255).save(mask)
    except Exception as error:  # of three libraries: missing files, broken ones
        stop(" ".join(str(error).split()))
    print(f"{mask}: {np.mean(lesion > 127):.1%} lesion" + (", not cropped to the lungs" if how["align_frame"] else ""))


if __name__ == "__main__":
    main()
