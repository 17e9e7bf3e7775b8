"""Predict masks with a trained CARes-UNet and, where the truth is at hand, score them."""

from pathlib import Path

import numpy as np
import torch

from data.command_line import Parser, run
from data.files import list_slices, pair_by_stem, read_all, read_image, read_mask, read_pair
from data.slices import UnlabeledSlices
from utils.checkpoint import load_model
from utils.inference import predict
from utils.metrics import scores
from utils.options import add_device_options, add_prediction_options, parse_options
from utils.pictures import Panel, draw_sheet
from utils.reporting import report_images, report_scores
from utils.results import MaskFolder


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--pretrained_model", type=Path, required=True, help="checkpoint of a training script")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder that holds the ones below")
    parser.add_argument("--test_img_path", type=Path, help="slices; default: DATA_ROOT/Test-Image")
    parser.add_argument(
        "--test_msk_path",
        type=Path,
        help="their truth; default: none, or DATA_ROOT/Test-Mask if it is there and --test_img_path is not given",
    )
    parser.add_argument("--img_save_folder", type=Path, default=Path("CARes_Unet"), help="where masks and tables go")
    parser.add_argument(
        "--save_type",
        choices=["solo", "compare"],
        default="solo",
        help="solo: masks alone; compare: also a picture of every slice, its truth and its prediction",
    )
    add_prediction_options(parser)
    add_device_options(parser)
    args = parse_options(parser)

    default_truth = args.data_root / "Test-Mask"
    if args.test_msk_path is None and args.test_img_path == args.data_root / "Test-Image" and default_truth.is_dir():
        args.test_msk_path = default_truth

    truths = {}
    if args.test_msk_path:
        pairs = pair_by_stem(args.test_img_path, args.test_msk_path)
        read_all(lambda pair: read_pair(pair) and None, pairs)  # to stop at a bad file now, not halfway
        truths = dict(pairs)
    model, preprocessing = load_model(args.pretrained_model)
    size = args.image_size or preprocessing["image_size"]
    slices = UnlabeledSlices(list_slices(args.test_img_path), size=size, cache_gb=args.cache_gb)
    masks = MaskFolder(
        args.img_save_folder,
        table="scores.csv",
        slices=slices.files,
        made_by={"checkpoint": str(args.pretrained_model), "image_size": size},
    )
    report_images(slices)
    for path, probabilities in predict(
        model, slices, device=args.device, batchsize=args.batchsize, num_workers=args.num_workers
    ):
        lesion = probabilities.argmax(dim=0) > 0
        row = {"image": path.name, "lesion_share": lesion.float().mean().item()}
        truth = torch.from_numpy(np.array(read_mask(truths[path]))) if truths else None
        if truths:
            row |= scores(lesion, truth)
        masks.add((lesion * 255).to(torch.uint8).numpy(), row)
        if args.save_type == "compare":
            draw_comparison(path, truth, lesion, row, args.img_save_folder / "compare")

    report_scores(masks)


def draw_comparison(path: Path, truth: torch.Tensor | None, lesion: torch.Tensor, row: dict, folder: Path) -> None:
    """Draw a slice, its truth if there is one, and its prediction side by side."""
    image = np.asarray(read_image(path)) / 255
    panels = [Panel(image, caption=path.name), Panel(image, lesion.numpy(), f"prediction, {row['lesion_share']:.1%}")]
    if truth is not None:
        panels[1:] = [Panel(image, truth.numpy(), "truth"), Panel(image, lesion.numpy(), f"Dice {row['dice']:.3f}")]
    folder.mkdir(exist_ok=True)
    draw_sheet(folder / f"{path.stem}.png", [panels])


if __name__ == "__main__":
    run(main)
