"""Label unlabeled slices with a trained CARes-UNet, for semi_supervised_train.py."""

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from data.command_line import Parser, exit_if_left_out, number, run
from data.errors import InputError
from data.files import IGNORE, IGNORED_GRAY, list_slices, pair_by_stem, read_all, read_pair
from data.volumes import write_like
from utils.evaluation_options import add_prediction_options, prediction_settings
from utils.evaluation_report import report_scans
from utils.metrics import lesion_mask, scores
from utils.options import add_device_options, complete
from utils.predictor import Predictor
from utils.reporting import report_images, warn
from utils.results import ResultFolder
from utils.scans import Scan, burden, find_scans, predict_scans


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--model_path", type=Path, required=True, help="checkpoint of supervised_train.py")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder that holds the ones below")
    parser.add_argument(
        "--Image_dir", dest="image_dir", type=Path, help="slices to label, default: DATA_ROOT/Unlabeled"
    )
    parser.add_argument(
        "--Mask-dir", "--Mask_dir", dest="mask_dir", type=Path, help="where masks go; default: DATA_ROOT/Pos-Mask"
    )
    parser.add_argument(
        "--confidence",
        type=number(float, 0, 1),
        default=0.0,
        help=f"pixels whose likelier class has a probability below this are stored as {IGNORED_GRAY}, for "
        "semi_supervised_train.py to ignore; 0: none",
    )
    parser.add_argument("--truth_path", type=Path, help="true masks, where they are known, to score the labels")
    add_prediction_options(parser)
    add_device_options(parser)
    args = complete(parser.parse_args())

    predictor = Predictor(args.model_path, **prediction_settings(args))
    if scans := find_scans(args.image_dir):
        if args.truth_path:
            raise InputError("--truth_path: is for slices; test.py scores the masks of scans")
        label_scans(predictor, scans, args)
        return
    files = list_slices(args.image_dir)
    truth = read_truth(args.image_dir, args.truth_path) if args.truth_path else {}
    slices = predictor.read(files, cache_gb=args.cache_gb)
    masks = ResultFolder(
        args.mask_dir,
        table="pseudo_labels.csv",
        inputs=slices.files,
        made_by={"checkpoint": str(args.model_path), **predictor.summary(), "confidence": args.confidence},
    )
    report_images(slices)
    for path, found in zip(slices.files, predictor.predict_slices(slices), strict=True):
        lesion, kept = torch.from_numpy(found.mask), found.confidence >= args.confidence
        row = {
            "image": path.name,
            "lesion_share": lesion.float().mean().item(),
            "mean_confidence": found.confidence.mean().item(),
            "kept_share": kept.float().mean().item(),
        }
        if path in truth:
            row["dice"] = scores(lesion, truth[path])["dice"]
            row["kept_dice"] = scores(lesion, truth[path].where(kept, IGNORE))["dice"]
        masks.save_image(path, torch.where(lesion, 255, 0).where(kept, IGNORED_GRAY).to(torch.uint8).numpy())
        masks.add_row(row)

    with_lesion = sum(row["lesion_share"] > 0 for row in masks.rows)
    mean = {name: fmean(row[name] for row in masks.rows) for name in masks.rows[0] if name != "image"}
    masks.write_summary({"images": len(masks.rows), "with_lesion": with_lesion, **mean})
    print(f"masks       {len(masks.rows)} in {masks.folder}, {with_lesion} of them with a lesion; {masks.table}")
    print(f"mean        lesion {mean['lesion_share']:.2%}, confidence {mean['mean_confidence']:.3f}, ", end="")
    print(f"kept {mean['kept_share']:.2%} of the pixels")
    if truth:
        print(f"{'Dice':<11} {mean['dice']:.3f} of the labels, {mean['kept_dice']:.3f} of the pixels kept (0/0 is 1)")
    if with_lesion == 0:
        warn("not one mask has a lesion; is the model trained, and are these slices like those it was trained on?")
    elif mean["lesion_share"] > 0.5:
        warn("more lesion than background; is the model trained, and are these slices like those it was trained on?")


def read_truth(images: Path, masks: Path) -> dict[Path, Tensor]:
    """The true classes ``(H, W)`` of every image of a folder, by its path."""
    pairs = pair_by_stem(images, masks)
    return {
        image: torch.from_numpy(np.array(mask))
        for (image, _), (_, mask) in zip(pairs, read_all(read_pair, pairs), strict=True)
    }


def label_scans(predictor: Predictor, scans: list[Scan], args: argparse.Namespace) -> None:
    """Label whole scans, each mask a volume in the space of its scan."""
    if args.confidence:
        raise InputError("--confidence: is for slices; make some of the scans with python -m data.prepare volumes")
    made_by = {"checkpoint": str(args.model_path), **predictor.summary(), "window": args.window}
    masks = ResultFolder(
        args.mask_dir,
        table="pseudo_labels.csv",
        inputs=[scan.path for scan in scans],
        made_by=made_by,
        suffix=".nii.gz",
    )
    left_out = []
    for scan, volume, soft, _ in predict_scans(predictor, scans, left_out, window=args.window):
        mask = lesion_mask(soft, 0.5)
        write_like(mask.astype(np.uint8), volume.geometry, masks.path_of(scan.path))
        confidence = np.maximum(soft, 255 - soft).mean() / 255
        masks.add_row({"image": scan.path.name, **burden(mask, volume.geometry), "mean_confidence": float(confidence)})
    report_scans(masks)
    exit_if_left_out(left_out, len(scans))


if __name__ == "__main__":
    run(main)
