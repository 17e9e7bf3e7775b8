"""Predict masks with a trained CARes-UNet, or take saved ones, and score them where the truth is at hand."""

import argparse

import numpy as np

from data.command_line import Parser, exit_if_left_out, run
from data.errors import InputError
from data.volumes import write_like
from utils.evaluation import Case, Model, find_cases, find_models, leave_out_for_all, score, score_all
from utils.evaluation_options import (
    add_evaluation_options,
    add_prediction_options,
    parse_evaluation_options,
    prediction_settings,
)
from utils.evaluation_report import dice_in_words, draw_case, draw_scores, report_scans, report_scores
from utils.metrics import lesion_mask
from utils.options import add_device_options
from utils.predictor import Predictor
from utils.reporting import report_images
from utils.results import ResultFolder
from utils.scans import Scan, burden, draw_scan, find_scans, predict_scans, score_scan


def main() -> None:
    parser = Parser(__doc__)
    add_evaluation_options(parser)
    add_prediction_options(parser)
    add_device_options(parser)
    args = parse_evaluation_options(parser)

    if args.pretrained_model and (scans := find_scans(args.test_img_path, args.test_msk_path)):
        if args.lung_mask_path or args.table or args.save_type != "solo":
            raise InputError("--lung_mask_path, --table, --save_type: are for slices; leave them out for scans")
        predict_and_score_scans(args, scans)
        return
    cases = find_cases(args.test_img_path, args.test_msk_path, args.lung_mask_path)
    results, models = score_predictions(args, cases) if args.predictions else predict_and_score(args, cases)
    report_scores(results, models, threshold=args.threshold, empty=args.empty, table=args.table)
    if args.test_msk_path:
        overlay_by = args.sort if args.save_type == "overlay" else None
        draw_scores(results, models, cases, threshold=args.threshold, overlay_by=overlay_by)


def predict_and_score(args: argparse.Namespace, cases: list[Case]) -> tuple[ResultFolder, list[Model]]:
    """Predict every case, save its mask and, if asked for, its map and picture."""
    predictor = Predictor(*args.pretrained_model, **prediction_settings(args))
    slices = predictor.read([case.image for case in cases], cache_gb=args.cache_gb)
    results = ResultFolder(
        args.img_save_folder,
        table="scores.csv",
        inputs=slices.files,
        made_by={
            "checkpoint": checkpoints_in_words(args),
            **predictor.summary(),
            "threshold": args.threshold,
        },
        reads=args.reads,
    )
    report_images(slices)
    for case, path, found in zip(cases, slices.files, predictor.predict_slices(slices), strict=True):
        soft, mask = found.map, found.mask_at(args.threshold)
        results.save_image(path, mask * np.uint8(255))
        if args.save_prob:
            results.save_image(path, soft, subfolder="prob")
        row = score(case, soft, threshold=args.threshold, empty=args.empty)
        results.add_row(row)
        if args.save_type == "compare":
            caption = f"Dice {dice_in_words(row)}" if case.truth else f"{row['lesion_share']:.1%} lesion"
            draw_case(results.path_of(path, "compare"), case, {f"prediction, {caption}": mask})
    masks = [results.path_of(path) for path in slices.files]
    return results, [Model(results.folder.resolve().name, masks, rows=results.rows)]


def predict_and_score_scans(args: argparse.Namespace, scans: list[Scan]) -> None:
    """Predict every scan, save its mask in its own space and, if asked for, its map, and score it."""
    predictor = Predictor(*args.pretrained_model, **prediction_settings(args))
    made_by = {"checkpoint": checkpoints_in_words(args), **predictor.summary()}
    made_by |= {"threshold": args.threshold, "window": args.window}
    results = ResultFolder(
        args.img_save_folder,
        table="scores.csv",
        inputs=[scan.path for scan in scans],
        made_by=made_by,
        reads=args.reads,
        suffix=".nii.gz",
    )
    left_out = []
    for scan, volume, soft, truth in predict_scans(predictor, scans, left_out, window=args.window):
        mask = lesion_mask(soft, args.threshold)
        write_like(mask.astype(np.uint8), volume.geometry, results.path_of(scan.path))
        if args.save_prob:
            write_like((soft / 255).astype(np.float32), volume.geometry, results.path_of(scan.path, "prob"))
        row = {"image": scan.path.name, "slices": len(mask), **burden(mask, volume.geometry)}
        if truth is not None:
            row |= {f"true_{name}": value for name, value in burden(truth, volume.geometry).items()}
            row |= score_scan(mask, truth, empty=args.empty)
        results.add_row(row)
        draw_scan(results.path_of(scan.path, "figures", ".png"), volume, args.window, mask, truth)
    report_scans(results)
    exit_if_left_out(left_out, len(scans))


def checkpoints_in_words(args: argparse.Namespace) -> str:
    return ", ".join(map(str, args.pretrained_model))


def score_predictions(args: argparse.Namespace, cases: list[Case]) -> tuple[ResultFolder, list[Model]]:
    """Score the saved maps or masks of every folder."""
    models = find_models(args.predictions, cases, resize=args.resize)
    results = ResultFolder(
        args.img_save_folder,
        table="scores.csv",
        inputs=[case.truth for case in cases],
        made_by={"predictions": [str(folder) for folder in args.predictions], "threshold": args.threshold},
        reads=args.reads,
    )
    for row in score_all(models, cases, threshold=args.threshold, empty=args.empty):
        results.add_row(row)
    leave_out_for_all(models)
    if args.save_type == "compare":
        for index, case in enumerate(cases):
            masks = {}
            for model in models:
                mask = lesion_mask(model.read(index, case.size()), args.threshold)
                masks[f"{model.name}, Dice {dice_in_words(model.rows[index])}"] = mask
            draw_case(results.path_of(case.truth, "compare"), case, masks)
    return results, models


if __name__ == "__main__":
    run(main)
