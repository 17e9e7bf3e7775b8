"""Predict masks with a trained CARes-UNet, or take saved ones, and score them where the truth is at hand."""

import numpy as np

from data.command_line import Parser, run
from data.slices import UnlabeledSlices
from utils.checkpoint import load_model
from utils.evaluation import Case, Model, find_cases, find_models, score, score_all
from utils.evaluation_options import add_evaluation_options, add_prediction_options, parse_evaluation_options
from utils.evaluation_report import draw_case, draw_scores, report_scores
from utils.inference import lesion_map, predict
from utils.options import add_device_options
from utils.reporting import report_images
from utils.results import ResultFolder


def main() -> None:
    parser = Parser(__doc__)
    add_evaluation_options(parser)
    add_prediction_options(parser)
    add_device_options(parser)
    args = parse_evaluation_options(parser)

    cases = find_cases(args.test_img_path, args.test_msk_path, args.lung_mask_path)
    results, models = score_predictions(args, cases) if args.predictions else predict_and_score(args, cases)
    report_scores(results, models, threshold=args.threshold, empty=args.empty, table=args.table)
    if args.test_msk_path:
        overlay_by = args.sort if args.save_type == "overlay" else None
        draw_scores(results, models, cases, threshold=args.threshold, overlay_by=overlay_by)


def predict_and_score(args, cases: list[Case]) -> tuple[ResultFolder, list[Model]]:
    """Predict every case, save its mask and, if asked for, its map and picture."""
    network, preprocessing = load_model(args.pretrained_model)
    size = args.image_size or preprocessing["image_size"]
    slices = UnlabeledSlices([case.image for case in cases], size=size, cache_gb=args.cache_gb)
    results = ResultFolder(
        args.img_save_folder,
        table="scores.csv",
        slices=slices.files,
        made_by={
            "checkpoint": str(args.pretrained_model),
            "image_size": size,
            "tta": args.tta,
            "threshold": args.threshold,
        },
    )
    report_images(slices)
    maps = predict(
        network, slices, device=args.device, batchsize=args.batchsize, num_workers=args.num_workers, tta=args.tta
    )
    for case, (path, probabilities) in zip(cases, maps, strict=True):
        soft = lesion_map(probabilities)
        mask = soft > 255 * args.threshold
        results.save_image(path, mask * np.uint8(255))
        if args.save_prob:
            results.save_image(path, soft, subfolder="prob")
        row = score(case, soft, threshold=args.threshold, empty=args.empty)
        results.add_row(row)
        if args.save_type == "compare":
            caption = f"prediction, Dice {row['dice']:.3f}" if case.truth else f"prediction, {row['lesion_share']:.1%}"
            draw_case(results.folder / "compare" / f"{path.stem}.png", case, mask, caption)
    masks = [results.folder / f"{path.stem}.png" for path in slices.files]
    return results, [Model(results.folder.name, masks, rows=results.rows)]


def score_predictions(args, cases: list[Case]) -> tuple[ResultFolder, list[Model]]:
    """Score the saved maps or masks of every folder."""
    models = find_models(args.predictions, cases, resize=args.resize)
    results = ResultFolder(
        args.img_save_folder,
        table="scores.csv",
        slices=[case.truth for case in cases],
        made_by={"predictions": [str(folder) for folder in args.predictions], "threshold": args.threshold},
    )
    for row in score_all(models, cases, threshold=args.threshold, empty=args.empty):
        results.add_row(row)
    return results, models


if __name__ == "__main__":
    run(main)
