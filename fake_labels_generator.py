"""Label unlabeled slices with a trained CARes-UNet, for semi_supervised_train.py."""

from pathlib import Path

import torch
from PIL import Image

from data.command_line import Parser, number, run
from data.slices import IGNORED_GRAY, UnlabeledSlices, list_slices
from utils.checkpoint import load_model
from utils.inference import predict
from utils.options import add_device_options, add_prediction_options, parse_options, prepare_folder
from utils.reporting import append_row, report_images


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
    add_prediction_options(parser)
    add_device_options(parser)
    args = parse_options(parser)

    model, preprocessing = load_model(args.model_path)
    size = args.image_size or preprocessing["image_size"]
    slices = UnlabeledSlices(list_slices(args.image_dir), size=size, cache_gb=args.cache_gb)
    prepare_folder(args.mask_dir, table="pseudo_labels.csv")

    report_images(slices)
    table = args.mask_dir / "pseudo_labels.csv"
    table.write_text("")
    rows = []
    for path, probabilities in predict(
        model, slices, device=args.device, batchsize=args.batchsize, num_workers=args.num_workers
    ):
        confidence, label = probabilities.max(dim=0)
        kept = confidence >= args.confidence
        mask = torch.where(label > 0, 255, 0).where(kept, IGNORED_GRAY).to(torch.uint8)
        Image.fromarray(mask.numpy()).save(args.mask_dir / f"{path.stem}.png")
        row = {
            "image": path.name,
            "lesion_share": (label > 0).float().mean().item(),
            "mean_confidence": confidence.mean().item(),
            "kept_share": kept.float().mean().item(),
        }
        append_row(table, row)
        rows.append(row)

    with_lesion = sum(row["lesion_share"] > 0 for row in rows)
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0] if name != "image"}
    print(f"masks       {len(rows)} in {args.mask_dir}, {with_lesion} of them with a lesion; {table}")
    print(f"mean        lesion {mean['lesion_share']:.2%}, confidence {mean['mean_confidence']:.3f}, ", end="")
    print(f"kept {mean['kept_share']:.2%} of the pixels")


if __name__ == "__main__":
    run(main)
