"""Label unlabeled slices with a trained CARes-UNet, for semi_supervised_train.py."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from data.errors import FileError, InputError
from data.folders import list_slices, pair_by_stem
from data.io.images import read_all, read_pair
from data.io.volumes import write_like
from data.labels import IGNORE, IGNORED_GRAY
from data.scans import Scan
from utils.checkpoint import fingerprint
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, exit_if_left_out, run
from utils.cli.prediction import add_labeling_options, add_prediction_options, parse_labeling_options
from utils.config import LabelingConfig, PredictionConfig
from utils.evaluation.metrics import scores
from utils.evaluation.report import report_scans
from utils.evaluation.scans import burden
from utils.inference.predictor import Predictor
from utils.inference.scans import predict_scans, scans_at
from utils.lesions import lesion_mask
from utils.output.console import report_images, report_notes, warn
from utils.output.folder import ResultFolder, rows_to_keep

LITTLE = 0.05  # of the pixels


def main() -> None:
    label(*parse())


def parse(arguments: Sequence[str] | None = None) -> tuple[LabelingConfig, PredictionConfig]:
    parser = Parser(__doc__, prog="fake_labels_generator.py")
    add_labeling_options(parser)
    add_prediction_options(parser)
    add_device_options(parser)
    return parse_labeling_options(parser, arguments)


def label(config: LabelingConfig, prediction: PredictionConfig) -> None:
    """Label the slices, or the scans, of a folder."""
    predictor = Predictor(*config.model_path, **vars(prediction))
    if scans := scans_at(config.image_dir):
        label_scans(predictor, scans, config)
    else:
        label_slices(predictor, config)


def label_slices(predictor: Predictor, config: LabelingConfig) -> None:
    """Label a folder of slices, each mask an image of its slice's size, and score them where the truth is known."""
    files = list_slices(config.image_dir)
    truth = read_truth(config.image_dir, config.truth_path) if config.truth_path else {}
    made_by = {**predictor.summary(), "sha256": ", ".join(map(fingerprint, config.model_path))}
    made_by |= {"confidence": config.confidence, "truth_path": str(config.truth_path) if config.truth_path else None}
    earlier = rows_to_keep(config.mask_dir, "pseudo_labels.csv", inputs=files, made_by=made_by)
    done = {row["image"] for row in earlier}
    slices = predictor.read([path for path in files if path.name not in done], cache_gb=config.cache_gb)
    masks = ResultFolder(config.mask_dir, table="pseudo_labels.csv", inputs=files, made_by=made_by, kept=earlier)
    report_images(slices)
    for path, found in zip(slices.files, predictor.predict_slices(slices), strict=True):
        lesion, kept = torch.from_numpy(found.mask), found.confidence >= config.confidence
        row = {
            "image": path.name,
            "lesion_share": lesion.float().mean().item(),
            "mean_confidence": found.confidence.mean().item(),
            "kept_share": kept.float().mean().item(),
            "reliability": found.reliability,
        }
        if path in truth:
            row["dice"] = scores(lesion, truth[path])["dice"]
            row["kept_dice"] = scores(lesion, truth[path].where(kept, IGNORE))["dice"]
        masks.save_image(path, torch.where(lesion, 255, 0).where(kept, IGNORED_GRAY).to(torch.uint8).numpy())
        masks.add_row(row | {"note": found.note})

    with_lesion = sum(row["lesion_share"] > 0 for row in masks.rows)
    mean = {name: fmean(row[name] for row in masks.rows) for name in masks.rows[0] if name not in ("image", "note")}
    masks.write_summary({"images": len(masks.rows), "with_lesion": with_lesion, **mean})
    print(f"masks       {len(masks.rows)} in {masks.folder}, {with_lesion} of them with a lesion; {masks.table}")
    print(f"mean        lesion {mean['lesion_share']:.2%}, confidence {mean['mean_confidence']:.3f}, ", end="")
    print(f"kept {mean['kept_share']:.2%} of the pixels")
    if truth:
        print(f"{'Dice':<11} {mean['dice']:.3f} of the labels, {mean['kept_dice']:.3f} of the pixels kept (0/0 is 1)")
    report_notes(masks.rows)
    if mean["kept_share"] < LITTLE:
        warn(f"nearly all pixels are less certain than --confidence {config.confidence:g}; lower it")
    if with_lesion == 0:
        warn("no mask has a lesion; is the model trained, and are these slices like its training slices?")
    elif mean["lesion_share"] > 0.5:
        warn("more lesion than background; is the model trained, and are these slices like its training slices?")


def read_truth(images: Path, masks: Path) -> dict[Path, Tensor]:
    """The true classes ``(H, W)`` of every image of a folder, by its path."""
    pairs = pair_by_stem(images, masks)
    return {
        image: torch.from_numpy(np.array(mask))
        for (image, _), (_, mask) in zip(pairs, read_all(read_pair, pairs), strict=True)
    }


def label_scans(predictor: Predictor, scans: list[Scan], config: LabelingConfig) -> None:
    """Label whole scans, each mask a volume in the space of its scan."""
    if config.truth_path:
        raise InputError("--truth_path: applies to slices; use test.py to score the masks of scans")
    if config.confidence:
        raise InputError("--confidence: applies to slices; convert the scans with python -m data.prepare volumes")
    made_by = {**predictor.summary(), "window": predictor.config.window}
    masks = ResultFolder(
        config.mask_dir,
        table="pseudo_labels.csv",
        inputs=[scan.label for scan in scans],
        made_by=made_by,
        suffix=".nii.gz",
    )
    left_out: list[FileError] = []
    for scan, volume, soft, _, reliability, note in predict_scans(predictor, scans, left_out):
        mask = lesion_mask(soft, 0.5)
        write_like(mask.astype(np.uint8), volume, masks.path_of(scan.label))
        confidence = np.maximum(soft, 255 - soft).mean() / 255
        row = {"image": scan.label.name, **burden(mask, volume.geometry), "mean_confidence": float(confidence)}
        row["reliability"] = reliability
        masks.add_row(row | {"note": note})
    report_scans(masks)
    exit_if_left_out(left_out, len(scans))


if __name__ == "__main__":
    run(main)
