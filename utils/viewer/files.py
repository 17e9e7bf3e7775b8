"""The files that a viewer offers for download: masks and maps in the geometry of the input, a table, a picture."""

import csv
import math
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from data.io.volumes import write_like
from utils.evaluation.scans import draw_scan
from utils.evaluation.tables import in_litres
from utils.output.pictures import Panel, draw_sheet
from utils.viewer.drawing import WINDOWS, Look
from utils.viewer.study import Study

SHOWN = 12  # slices of a picture
RESEARCH = "For research only, not for diagnosis."


def write_files(study: Study, look: Look, folder: Path) -> list[Path]:
    """Write mask, map, table and picture; of several slices, masks and maps as archives."""
    folder.mkdir(parents=True, exist_ok=True)
    masks = [study.mask(index, look.threshold) for index in range(len(study.maps))]
    table, report = folder / f"{study.name}.csv", folder / f"{study.name}_report.png"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["slice", "lesion_pixels", "pixels", "reliability", "note"])
        of_scan = study.volume is not None
        for index, (name, mask) in enumerate(zip(study.names, masks, strict=True)):
            own = ["", ""] if of_scan else [study.reliability[index], study.notes[index]]
            writer.writerow([name, mask.sum(), mask.size, *own])
        writer.writerow([])
        writer.writerows([*study.measures(look.threshold).items(), ("threshold", look.threshold)])
        writer.writerows([("reliability", study.reliability[0]), ("note", study.notes[0])] if of_scan else [])
        writer.writerows([("truth", study.truth_name)] if study.truths is not None else [])
        writer.writerows([("network", study.networks), ("use", RESEARCH)])
    how = f"network {study.networks}, threshold {look.threshold:g}; red: lesion. {RESEARCH}"
    heading = f"{summary(study, look.threshold)}\n{how}"
    if study.volume is not None:
        mask_file, map_file = folder / f"{study.name}_mask.nii.gz", folder / f"{study.name}_map.nii.gz"
        write_like(np.stack(masks).astype(np.uint8), study.volume, mask_file)
        write_like((np.stack(study.maps) / 255).astype(np.float32), study.volume, map_file)
        truth = None if study.truths is None else np.stack(study.truths)
        shown = {"prediction": np.stack(masks)} | ({} if truth is None else {"truth": truth})
        draw_scan(report, study.volume.slices, WINDOWS[look.window], shown, heading)
        return [mask_file, map_file, table, report]
    parts = {"mask": [mask * np.uint8(255) for mask in masks], "map": list(study.maps)}
    archives = [_images(study, pictures, folder / f"{study.name}_{kind}") for kind, pictures in parts.items()]
    cells = list(zip(study.images, masks, study.names, strict=True))[:SHOWN]
    draw_sheet(report, [[Panel(image / 255, mask, name) for image, mask, name in cells]], heading=heading)
    return [*archives, table, report]


def _images(study: Study, pictures: list[np.ndarray], path: Path) -> Path:
    """One PNG, or an archive of several, under the names of the slices."""
    if len(pictures) == 1:
        alone = path.with_name(f"{path.name}.png")
        Image.fromarray(pictures[0]).save(alone)
        return alone
    packed = path.with_name(f"{path.name}.zip")
    with zipfile.ZipFile(packed, "w") as archive:
        for name, picture in zip(study.names, pictures, strict=True):
            with archive.open(str(Path(name).with_suffix(".png")), "w") as file:
                Image.fromarray(picture).save(file, format="PNG")
    return packed


def summary(study: Study, threshold: float) -> str:
    """What is measured in all of it, in a line."""
    found, parts = study.measures(threshold), []
    if "lesion_ml" in found:
        ml = found["lesion_ml"]
        parts.append(f"{'volume unknown' if math.isnan(ml) else in_litres(ml)} in {found['lesions']:.0f} lesions")
    if "share_of_lungs" in found:
        parts.append(f"{found['share_of_lungs']:.1%} of the lungs")
    if "lesion_share" in found:
        parts.append(f"{found['lesion_share']:.1%} lesion" + (" in the mean" if len(study.maps) > 1 else ""))
    if "dice" in found:
        parts.append(f"Dice {found['dice']:.3f} with {study.truth_name}")
    if study.volume is not None:
        parts.append(f"reliability {study.reliability[0]:.2f}")
    return f"{study.name}: {', '.join(parts)}"
