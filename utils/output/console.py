"""What the start of a run prints on its slices, so that a mistake shows at once."""

from data.datasets import LesionSlices, UnlabeledSlices

NEARLY_BLACK = 0.05  # chest CT in a lung window has a mean gray of about 0.4


def report_pairs(name: str, slices: LesionSlices | None) -> None:
    """Say how many pairs there are and how much of them is lesion, so that a wrong mask folder shows at once."""
    if slices is None:
        print(f"{name:<11} none, all slices are trained on: the last epoch becomes best.pth")
        return
    image_folder, mask_folder = (path.parent for path in slices.files[0])
    share = slices.lesion_share()
    print(f"{name:<11} {len(slices)} pairs from {image_folder} and {mask_folder}, {share:.2%} of the pixels are lesion")
    if share == 0:
        warn(f"not one lesion pixel; is {mask_folder} the right folder?")
    elif share > 0.5:
        warn("more lesion than background; are the masks inverted?")
    _report_looks(slices)


def report_images(slices: UnlabeledSlices) -> None:
    """Say how many slices there are, and whether they are too dark to be windowed CT."""
    print(f"{'slices':<11} {len(slices)} from {slices.files[0].parent}")
    _report_looks(slices)


def _report_looks(slices: LesionSlices | UnlabeledSlices) -> None:
    if turned := sum(placement.turns > 0 for placement in slices.placements):
        print(f"{'':<11} {turned} of them turned, to lie as those that were trained on")
    gray = slices.mean_gray()
    if gray < NEARLY_BLACK:
        warn(f"nearly black images (mean gray {gray:.3f} of 1); window them first (README.md, Your own data)")


def warn(message: str) -> None:
    """Print a warning in line with the rest of a report."""
    print(f"{'':<11} WARNING: {message}")
