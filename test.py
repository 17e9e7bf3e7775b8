"""Predict masks with a trained CARes-UNet, or load saved ones, and score them if there are true masks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data.errors import FileError, InputError, installed, one_note
from data.io.dicom.files import is_dicom
from data.io.dicom.segmentation import write_segmentation
from data.io.volumes import write_like
from data.scans import Scan
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, exit_if_left_out, run
from utils.cli.prediction import (
    add_evaluation_options,
    add_prediction_options,
    add_score_options,
    parse_evaluation_options,
)
from utils.config import EvaluationConfig, PredictionConfig
from utils.evaluation.cases import Case, Model, find_cases, find_models, leave_out_for_all, score, score_all
from utils.evaluation.figures import draw_case, draw_scores, format_dice
from utils.evaluation.report import report_scans, report_scores
from utils.evaluation.saved_scans import find_saved_scans, read_saved_scans, saved_files
from utils.evaluation.scans import draw_scan, scan_row
from utils.inference.predictor import Predictor
from utils.inference.scans import predict_scans, scans_at
from utils.lesions import lesion_mask, uncertainty
from utils.output.console import report_images, report_notes, report_review, warn
from utils.output.folder import ResultFolder


def main() -> None:
    test(*parse())


def parse(arguments: Sequence[str] | None = None) -> tuple[EvaluationConfig, PredictionConfig]:
    parser = Parser(__doc__, prog="test.py")
    add_evaluation_options(parser)
    add_score_options(parser)
    add_prediction_options(parser)
    add_device_options(parser)
    return parse_evaluation_options(parser, arguments)


def test(config: EvaluationConfig, prediction: PredictionConfig) -> None:
    """Predict, or load, the masks of slices or scans, and score them."""
    images = config.test_img_path
    if config.pretrained_model and images and (scans := scans_at(images, config.test_msk_path)):
        refuse_flags_of_slices(config)
        predict_and_score_scans(config, prediction, scans)
        return
    if config.predictions and config.test_msk_path and (saved := find_saved_scans(images, config.test_msk_path)):
        refuse_flags_of_slices(config)
        score_saved_scans(config, prediction, saved)
        return
    if config.save_dicom_seg:
        raise InputError("--save_dicom_seg: applies to DICOM scans; leave it out for slices")
    reading = replace(prediction.reading, mask_threshold=config.mask_threshold)
    cases = find_cases(images, config.test_msk_path, config.lung_mask_path, reading)
    results, models = (
        score_predictions(config, cases) if config.predictions else predict_and_score(config, prediction, cases)
    )
    report_scores(results, models, threshold=config.threshold, empty=config.empty, table=config.table)
    if config.test_msk_path:
        overlay_by = config.sort if config.save_type == "overlay" else None
        draw_scores(results, models, cases, threshold=config.threshold, overlay_by=overlay_by)


def refuse_flags_of_slices(config: EvaluationConfig) -> None:
    given = {
        "--lung_mask_path": config.lung_mask_path,
        "--table": config.table,
        "--save_type": config.save_type != "solo",
    }
    for flag in [flag for flag, value in given.items() if value]:
        raise InputError(f"{flag}: applies to slices; leave it out for scans")


def predict_and_score(
    config: EvaluationConfig, prediction: PredictionConfig, cases: list[Case]
) -> tuple[ResultFolder, list[Model]]:
    """Predict every case, save its mask and, if asked for, its map and picture."""
    predictor = Predictor(*config.pretrained_model, **vars(prediction))
    slices = predictor.read([case.path for case in cases], cache_gb=config.cache_gb)
    results = ResultFolder(
        config.img_save_folder,
        table="scores.csv",
        inputs=slices.files,
        made_by={**predictor.summary(), "threshold": config.threshold},
        reads=config.reads,
    )
    report_images(slices)
    for case, path, found in zip(cases, slices.files, predictor.predict_slices(slices), strict=True):
        soft, mask = found.map, found.mask_at(config.threshold)
        results.save_image(path, mask * np.uint8(255))
        if config.save_prob:
            results.save_image(path, soft, subfolder="prob")
        if config.save_uncertainty:
            results.save_image(path, uncertainty(soft), subfolder="uncertainty")
        row = score(case, soft, threshold=config.threshold, empty=config.empty)
        row |= {"reliability": found.reliability, "note": found.note}
        results.add_row(row)
        if config.save_type == "compare":
            caption = f"Dice {format_dice(row)}" if case.truth else f"{row['lesion_share']:.1%} lesion"
            draw_case(results.path_of(path, "compare"), case, {f"prediction, {caption}": mask})
    report_notes(results.rows)
    report_review(results.rows)
    masks = [results.path_of(path) for path in slices.files]
    return results, [Model(results.folder.resolve().name, masks, rows=results.rows)]


def predict_and_score_scans(config: EvaluationConfig, prediction: PredictionConfig, scans: list[Scan]) -> None:
    """Predict every scan, save its mask in its own space and, if asked for, its map, and score it."""
    if config.save_dicom_seg:  # fails before the first scan is predicted
        installed("highdicom")
        if not any(scan.path.is_dir() or is_dicom(scan.path) for scan in scans):
            raise InputError(f"--save_dicom_seg: needs scans of DICOM files, not {scans[0].path.name}; leave it out")
    predictor = Predictor(*config.pretrained_model, **vars(prediction))
    made_by = {**predictor.summary(), "threshold": config.threshold, "window": prediction.window}
    results = ResultFolder(
        config.img_save_folder,
        table="scores.csv",
        inputs=[scan.label for scan in scans],
        made_by=made_by,
        reads=config.reads,
        suffix=".nii.gz",
    )
    left_out: list[FileError] = []
    for scan, volume, soft, truth, reliability, note in predict_scans(predictor, scans, left_out, labels=config.label):
        mask = lesion_mask(soft, config.threshold)
        write_like(mask.astype(np.uint8), volume, results.path_of(scan.label))
        if config.save_prob:
            write_like((soft / 255).astype(np.float32), volume, results.path_of(scan.label, "prob"))
        if config.save_dicom_seg:
            try:
                write_segmentation(mask, volume, results.path_of(scan.label, "seg", ".dcm"))
            except InputError as error:
                note = one_note(note, str(error))
                warn(str(error))
        if config.save_uncertainty:
            bits = (uncertainty(soft) / 255).astype(np.float32)
            write_like(bits, volume, results.path_of(scan.label, "uncertainty"))
        row = scan_row(scan.label.name, mask, truth, volume.geometry, empty=config.empty)
        results.add_row(row | {"reliability": reliability, "note": note})
        shown = {"prediction": mask} | ({} if truth is None else {"truth": truth})
        draw_scan(results.path_of(scan.label, "figures", ".png"), volume.slices, prediction.window, shown)
    report_scans(results)
    report_review(results.rows)
    exit_if_left_out(left_out, len(scans))


def score_predictions(config: EvaluationConfig, cases: list[Case]) -> tuple[ResultFolder, list[Model]]:
    """Score the saved maps or masks of every folder."""
    models = find_models(config.predictions, cases, resize=config.resize, scale=config.map_max)
    results = ResultFolder(
        config.img_save_folder,
        table="scores.csv",
        inputs=[case.truth for case in cases if case.truth],
        made_by={"predictions": [str(folder) for folder in config.predictions], "threshold": config.threshold},
        reads=config.reads,
    )
    for row in score_all(models, cases, threshold=config.threshold, empty=config.empty):
        results.add_row(row)
    if config.save_type == "compare":
        for index, case in enumerate(cases):
            masks = {}
            for model in models:
                mask = lesion_mask(model.read(index, case.size()), config.threshold)
                masks[f"{model.name}, Dice {format_dice(model.rows[index])}"] = mask
            draw_case(results.path_of(case.truth or case.path, "compare"), case, masks)
    return results, models


def score_saved_scans(config: EvaluationConfig, prediction: PredictionConfig, scans: list[Scan]) -> None:
    """Score the saved masks or maps of scans in every folder."""
    left_out: list[FileError] = []
    files = saved_files(scans, config.predictions)
    results = ResultFolder(
        config.img_save_folder,
        table="scores.csv",
        inputs=[scan.label for scan in scans],
        made_by={"predictions": [str(folder) for folder in config.predictions], "threshold": config.threshold},
        reads=config.reads,
        suffix=".nii.gz",
    )
    options = {"labels": config.label, "most": config.map_max, **prediction.scan_options}
    for saved in read_saved_scans(scans, files, left_out, **options):
        masks = {name: lesion_mask(soft, config.threshold) for name, soft in saved.maps.items()}
        label, truth = saved.scan.label, saved.truth
        geometry = saved.volume.geometry
        rows = {name: scan_row(label.name, mask, truth, geometry, empty=config.empty) for name, mask in masks.items()}
        leave_out_for_all(list(rows.values()))
        for name, row in rows.items():
            results.add_row({"model": name, **row, "note": saved.notes[name]})
        draw_scan(
            results.path_of(label, "figures", ".png"), saved.hu, prediction.window, masks | {"true lesions": truth}
        )
    report_scans(results)
    exit_if_left_out(left_out, len(scans))


if __name__ == "__main__":
    run(main)
