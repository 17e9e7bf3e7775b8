"""Compare the masks of several models on the same slices: a table of scores and a picture."""

from pathlib import Path

import numpy as np
import torch

from data.command_line import Parser, number, run
from data.files import pair_by_stem, read_image, read_mask
from utils.metrics import EMPTY_RULE, SCORES, scores, summarise
from utils.pictures import Panel, draw_sheet


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of masks that test.py wrote, one a model")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="holds Test-Image and Test-Mask")
    parser.add_argument("--out", type=Path, default=Path("comparison.png"), help="the picture")
    parser.add_argument("--slices", type=number(int, 1), default=5, help="rows of the picture")
    args = parser.parse_args()

    pairs = pair_by_stem(args.data_root / "Test-Image", args.data_root / "Test-Mask")
    truths = [np.array(read_mask(truth)) for _, truth in pairs]
    masks, rows = {}, {}
    for folder in args.folders:
        found = pair_by_stem(args.data_root / "Test-Image", folder)
        masks[folder.name] = [np.array(read_mask(mask)) for _, mask in found]
        rows[folder.name] = [
            scores(torch.from_numpy(mask) > 0, torch.from_numpy(truth))
            for mask, truth in zip(masks[folder.name], truths, strict=True)
        ]

    width = max(len(name) for name in rows)
    print(f"{'':{width}}  " + "  ".join(f"{name:>15}" for name in SCORES))
    for name, scored in rows.items():
        summary = summarise(scored)
        cells = (f"{summary[score]['mean']:.4f} ({summary[score]['std']:.4f})" for score in SCORES)
        print(f"{name:{width}}  " + "  ".join(f"{cell:>15}" for cell in cells))
    print(f"{'':{width}}  mean (std) over {len(pairs)} slices, {EMPTY_RULE}")

    # From the first model's worst slice with a lesion to its best, evenly spaced.
    first = next(iter(rows.values()))
    ranked = sorted((i for i, truth in enumerate(truths) if truth.any()), key=lambda i: first[i]["dice"])
    chosen = [ranked[i] for i in np.linspace(0, len(ranked) - 1, min(args.slices, len(ranked))).round().astype(int)]
    sheet = []
    for index in chosen:
        image = np.asarray(read_image(pairs[index][0])) / 255
        cells = [Panel(image, masks[name][index], f"Dice {rows[name][index]['dice']:.3f}") for name in rows]
        sheet.append([Panel(image, caption=pairs[index][0].stem), Panel(image, truths[index]), *cells])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(args.out, sheet, ["image", "truth", *rows])
    print(f"picture: {args.out}")


if __name__ == "__main__":
    run(main)
