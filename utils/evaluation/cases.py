"""The slices of a test, and the predictions and scores of each model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.errors import FileError, InputError, listed
from data.folders import list_slices, pair_by_stem
from data.io.images import has_floats, read_all, read_image, read_lungs, read_map, read_mask, size_of
from data.io.reading import AS_STORED, Reading
from data.labels import IGNORED_GRAY
from utils.evaluation.metrics import evaluate, follows_empty_rule
from utils.lesions import lesion_mask

MOST_CLASSES = 8  # of class indices


@dataclass
class Case:
    """A test slice: its image, its true mask and its lung mask, as far as they exist, all of one size."""

    image: Path | None
    truth: Path | None
    lungs: Path | None = None
    reading: Reading = AS_STORED

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def path(self) -> Path:
        """The image or, if there is none, the truth."""
        path = self.image or self.truth
        assert path is not None, "a case has an image or a truth"
        return path

    def read_truth(self) -> np.ndarray:
        """The lesions, bool ``(H, W)``."""
        assert self.truth is not None, "the case has no truth"
        return np.asarray(read_mask(self.truth, self.reading)) > 0

    def read_image(self) -> np.ndarray:
        """The slice, uint8 ``(H, W)``; black if there is none."""
        if self.image:
            return np.asarray(read_image(self.image, self.reading))
        return np.zeros(self.size()[::-1], np.uint8)

    def size(self) -> tuple[int, int]:
        """Width and height."""
        return size_of(self.truth or self.path)

    def check(self) -> None:
        """Raise FileError if a file can't be read or differs in size, before the first slice is scored."""
        sizes = {}
        if self.truth:
            sizes[self.truth] = read_mask(self.truth, self.reading).size
        if self.image:
            sizes[self.image] = read_image(self.image, self.reading).size
        if self.lungs:
            sizes[self.lungs] = read_lungs(self.lungs).size
        (reference, expected), *others = sizes.items()
        for path, size in others:
            if size != expected:
                detail = "{}x{} and {}x{}".format(*size, *expected)
                raise FileError(
                    path, f"differs in size from the same file in {reference.parent}", "make the sizes equal", detail
                )


@dataclass
class Model:
    """The predictions of one model: the files with its maps or masks, and ``rows``, one for each case."""

    name: str
    files: Sequence[Path]
    lesion: int | None = None  # the one gray level of lesions in a folder of masks, None in one of soft maps
    scale: int = 255  # the value of certainty in soft maps
    most: float = 1.0  # the same in maps of floats
    rows: list[dict] = field(default_factory=list)

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The map of a case, uint8 ``(H, W)``, resized if need be to a width and height as the field's tools do."""
        soft = read_map(self.files[index], self.most)
        if self.lesion is not None:
            soft = (soft == self.lesion) * np.uint8(255)
        elif self.scale == 65535:
            soft = (soft // 257).astype(np.uint8)
        elif self.scale != 255:
            soft = np.round(soft.astype(np.float32) * (255 / self.scale)).clip(0, 255).astype(np.uint8)
        if soft.shape == size[::-1]:
            return soft
        return np.asarray(Image.fromarray(soft).resize(size, Image.Resampling.BICUBIC))


def find_cases(
    images: Path | None, truths: Path | None, lungs: Path | None, reading: Reading = AS_STORED
) -> list[Case]:
    """The slices of the folders (None: no such folder), matched by stem.

    Raises InputError that names every file without partner, and every one that can't be used.
    """
    if images and truths:
        cases = [Case(image, truth) for image, truth in pair_by_stem(images, truths)]
    elif images:
        cases = [Case(image, truth=None) for image in list_slices(images)]
    elif truths:
        cases = [Case(image=None, truth=truth) for truth in list_slices(truths)]
    else:
        raise ValueError("neither images nor truths are given")
    if lungs:
        lungs_of = dict(pair_by_stem(cases[0].path.parent, lungs, ("slice", "lung mask")))
        for case in cases:
            case.lungs = lungs_of[case.path]
    if images:
        reading = reading.for_slices([case.path for case in cases])
    for case in cases:
        case.reading = reading
    read_all(Case.check, cases)
    return cases


def find_models(
    folders: Sequence[Path], cases: Sequence[Case], *, resize: bool, scale: int | None = None
) -> list[Model]:
    """The models whose maps or masks are saved in ``folders``, one file for each case.

    scale: the value of certainty in soft maps; by default the largest of their type. Raises InputError that names every
    file without partner, every file that is neither map nor mask and, unless ``resize``, every one whose size differs
    from its true mask; and if soft maps do not seem to have the scale of their type.
    """
    models = []
    most = float(scale or 1)
    for name, folder in zip(names_of(folders), folders, strict=True):
        truths = [case.truth for case in cases if case.truth]
        map_of = dict(pair_by_stem(truths[0].parent, folder, ("truth", "prediction")))

        def look(truth: Path, map_of: dict[Path, Path] = map_of) -> tuple[frozenset[int], bool, int, bool]:
            path, expected = map_of[truth], Case(None, truth).size()
            soft = read_map(path, most)
            size = soft.shape[::-1]
            if size != expected and not resize:
                sizes = "{}x{}, the truth {}x{}".format(*size, *expected)
                raise FileError(path, "differs in size from its true mask", "leave out --no-resize to resize it", sizes)
            limit = int(np.iinfo(soft.dtype).max)
            return frozenset(np.unique(soft).tolist()), size != expected, limit, has_floats(path)

        levels, resized, limits, floats = zip(*read_all(look, truths), strict=True)
        _stop_at_other_scales([map_of[truth] for truth in truths], levels)
        lesion = _level_of_lesions(levels)
        if lesion is None and len(set(floats)) > 1:
            raise InputError(f"{folder}: has maps of floats and of whole numbers; save all in one type")
        scaled = lesion is not None or floats[0]  # read_map scales floats
        certain = 255 if scaled else scale or _scale_of(folder, levels, max(limits))
        model = Model(name, [map_of[truth] for truth in truths], lesion, certain, most)
        models.append(model)
        kind = "soft maps" if lesion is None else f"masks of 0 and {lesion}"
        note = f", {sum(resized)} resized to the size of the true mask" if any(resized) else ""
        print(f"{'predictions':<11} {len(cases)} {kind} from {folder}{note}")
    return models


def _stop_at_other_scales(files: Sequence[Path], levels: Sequence[frozenset[int]]) -> None:
    """Raise InputError for a folder of predictions with 0, 1 and 255, or with files of 0 and 1 among others."""
    found = frozenset().union(*levels)
    if any(own == {0, 1, 255} for own in levels):
        raise InputError(f"{files[0].parent}: has 0, 1 and 255, of which one means ignore; save 0 and 255 alone")
    small = [file.name for file, own in zip(files, levels, strict=True) if own == {0, 1}]
    if small and max(found) > MOST_CLASSES:
        raise InputError(
            f"{files[0].parent}: {listed(small)} of 0 and 1, the others up to {max(found)}; save all on one scale"
        )


def _scale_of(folder: Path, levels: Sequence[frozenset[int]], limit: int) -> int:
    """The value of certainty in a folder of soft maps of a type with this largest value, by the levels of its files.

    Raises InputError if they seem to have another scale, or are no maps: class indices, percent, 8 or 12 of 16 bits.
    """
    found = frozenset().union(*levels)
    if found == {0, IGNORED_GRAY, 255}:
        raise InputError(
            f"{folder}: masks with gray {IGNORED_GRAY}, which fake_labels_generator.py --confidence stores for pixels "
            "to ignore; label without --confidence to score all pixels, or give --truth_path there"
        )
    if max(found) > limit / 2 or max(found) == 0:
        return limit
    most = f"no value above {max(found)} of {limit}"
    if len(found) <= MOST_CLASSES and max(found) < MOST_CLASSES:
        raise InputError(f"{folder}: {most}, as of class indices; save lesions as 255 and all else as 0")
    raise InputError(f"{folder}: {most}; say which value is certainty by --map_max, such as 100, 255 or 4095")


def _level_of_lesions(levels: Sequence[frozenset[int]]) -> int | None:
    """The gray level that a folder of masks has beside 0, by the levels of its files; None if it is one of soft maps.

    A single file is not enough: the map of a slice without lesion may have only 0 and 1.
    """
    found = frozenset().union(*levels)
    if len(found) == 2 and 0 in found and {*found} in levels:
        return max(found)
    return None


def score(case: Case, soft: np.ndarray, *, threshold: float, empty: str) -> dict:
    """The row of a case for a map of lesion probability, uint8 ``(H, W)``: burden, and scores if there is a truth.

    Burden is the share of lesion pixels in the slice and, with a lung mask, in the lungs; of the prediction,
    and of the truth (``true_``).
    """
    masks = {"": lesion_mask(soft, threshold)}
    if case.truth:
        masks["true_"] = case.read_truth()
    row: dict[str, Any] = {"image": case.name}
    lungs = np.asarray(read_lungs(case.lungs)) if case.lungs else None
    for prefix, mask in masks.items():
        row[f"{prefix}lesion_share"] = float(mask.mean())
        if lungs is not None:
            row[f"{prefix}share_of_lung"] = float(mask[lungs].mean()) if lungs.any() else math.nan
    if case.truth:
        row["empty_rule"] = follows_empty_rule(masks["true_"])
        row |= evaluate(soft, masks["true_"], threshold=threshold, empty=empty)
    return row


def score_all(models: Sequence[Model], cases: Sequence[Case], *, threshold: float, empty: str) -> list[dict]:
    """Score saved maps into ``Model.rows``. Returns the rows of all models, each with its ``model`` in front.

    A score that ``empty`` = skip leaves out (NaN) for one model is left out for all: means are of the same images.
    """
    with tqdm(total=len(models) * len(cases), desc="scoring", unit="slice", disable=None) as bar:
        for model in models:
            for index, case in enumerate(cases):
                model.rows.append(score(case, model.read(index, case.size()), threshold=threshold, empty=empty))
                bar.update()
    for rows in zip(*(model.rows for model in models), strict=True):
        leave_out_for_all(rows)
    return [{"model": model.name, **row} for model in models for row in model.rows]


def leave_out_for_all(rows: Sequence[dict]) -> None:
    """Leave out (NaN) what is left out for one model, in the rows of all models for an image or a scan."""
    for name in rows[0]:
        if any(isinstance(row[name], float) and math.isnan(row[name]) for row in rows):
            for row in rows:
                row[name] = math.nan


def names_of(folders: Sequence[Path]) -> list[str]:
    """The part of their paths in which folders differ: a and b for out/a/prob and out/b/prob."""
    parts = [folder.resolve().parts for folder in folders]
    while len(parts) > 1 and len({path[-1] for path in parts}) == 1:
        parts = [path[:-1] for path in parts]
    names = [path[-1] for path in parts]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]
