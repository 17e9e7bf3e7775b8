"""Cross-validate a training setting on labeled slices: ``python -m benchmarks.crossval NAME [options] -- FLAGS``.

FLAGS go to the trainer. No epoch is chosen on the slices that are scored: the weights of the last one, or of the best
on other slices that FLAGS keep for validation, predict them, at their own sizes. Slices that look alike, as
neighbours in one scan do, are kept in one fold. What is done is not done again; an interrupted fold goes on.
A --pretrained_model among FLAGS must not have learned labeled slices: some of them are held out here.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from PIL import Image

from data.errors import InputError
from data.folders import Pair, pair_by_stem
from data.io.images import read_all, read_image
from utils.checkpoint import read_checkpoint
from utils.cli.parser import Parser, number, run
from utils.config import DEFAULT_FOLDERS
from utils.evaluation.statistics import confidence_interval

ROOT = Path(__file__).parent.parent
TABLE = "scores.csv"  # of a fold; the last thing that is written there
THUMBNAIL = 64  # pixels a side
# What is set here, for each fold; set otherwise, slices that are held out might be learned, or others be scored.
SET_FOR_TRAINER = {"data_root", "train_img_path", "train_msk_path", "val_img_path", "val_msk_path"}
SET_FOR_TRAINER |= {"semi_img_path", "semi_msk_path", "seed", "save_folder", "resume"}
SET_FOR_GENERATOR = {"model_path", "data_root", "Image_dir", "Mask-dir"}
SET_FOR_TEST = {"pretrained_model", "predictions", "data_root", "test_img_path", "test_msk_path", "img_save_folder"}
at_work: set[subprocess.Popen] = set()  # scripts that are to end with this one


def stop(*_: object) -> None:
    """End by a signal, and the scripts with it: a trainer that went on alone would meet the next call's."""
    for script in at_work.copy():
        script.terminate()
    raise KeyboardInterrupt


def main() -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    own, flags = split_at_dashes(sys.argv[1:])
    args = parse_options(own, flags)

    pairs = pair_by_stem(args.train_img_path, args.train_msk_path)
    groups = alike([image for image, _ in pairs], args.alike)
    folds = split_in_folds(pairs, groups, args.folds)
    print(f"slices      {len(pairs)} in {len(set(groups))} groups of neighbours; folds of {[len(f) for f in folds]}")
    names = [sorted(image.name for image, _ in fold) for fold in folds]
    work = [(seed, fold) for seed in args.seeds for fold in range(args.folds)]
    if args.only:
        work = [job for job in work if job[1] in args.only or is_scored(args, *job)]
    for other in {args.teacher, args.trained_by, args.against} - {None, args.name}:
        stop_if_other_folds(args, names, other)
    if source := args.teacher or args.trained_by:
        left = [job for job in work if not is_scored(args, *job)]
        stop_if_untrained([fold_folder(args, source, *job) / "run" for job in left], source)
    stop_if_another_setting(args, flags, names)

    with ThreadPoolExecutor(args.jobs) as pool:
        in_turn = pool.map if args.jobs > 1 else map  # a pool would begin the next fold after one that failed
        scores = list(in_turn(lambda job: run_fold(args, flags, folds, *job), work))
    report(args, flags, names, {f"{seed}": merge(scores, work, seed) for seed in args.seeds})


def parse_options(own: list[str], flags: list[str]) -> argparse.Namespace:
    """The options before ``--``; those after it are looked through for what makes no sense with them."""
    parser = Parser(__doc__)
    parser.add_argument("name", help="of the setting; its runs and result.json go to OUT/NAME")
    parser.add_argument("--data_root", type=Path, default=Path("."), help="folder that holds the ones below")
    parser.add_argument("--train_img_path", type=Path, help="default: DATA_ROOT/Train-Image")
    parser.add_argument("--train_msk_path", type=Path, help="default: DATA_ROOT/Train-Mask")
    parser.add_argument("--semi_img_path", type=Path, help="unlabeled slices; default: DATA_ROOT/Unlabeled")
    parser.add_argument("--teacher", metavar="NAME", help="train semi-supervised from the models of this setting")
    parser.add_argument("--new_network", action="store_true", help="with --teacher: its pseudo masks, a new network")
    parser.add_argument("--label_flags", default="", help="for the generator that labels by them: --label_flags='...'")
    parser.add_argument("--trained_by", metavar="NAME", help="train nothing, score the runs of this setting")
    parser.add_argument("--test_flags", default="", help="for test.py, such as --test_flags='--no-tta'")
    parser.add_argument("--against", metavar="NAME", help="setting to compare with; default: default, if it is there")
    parser.add_argument("--folds", type=number(int, 2), default=5, help="parts of the labeled slices")
    parser.add_argument(
        "--alike",
        type=number(float, 0, 1),
        default=0.8,
        help="correlation from which two slices, 64 pixels a side, are kept in one fold, as neighbours in a scan",
    )
    parser.add_argument(
        "--only",
        type=number(int, 0),
        nargs="+",
        metavar="FOLD",
        help="folds to train now, the first is 0; scored are all done",
    )
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0], help="each trains all folds once more")
    parser.add_argument("--jobs", type=number(int, 1), default=1, help="folds at a time; above 1, a CPU thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/crossval"), help="folder of all settings")
    args = parser.parse_args(own)
    if args.trained_by and flags:
        parser.error(f"--trained_by {args.trained_by}: trains nothing; leave {' '.join(flags)} out")
    if args.trained_by and args.teacher:
        parser.error(f"--trained_by {args.trained_by}: trains nothing; leave --teacher {args.teacher} out")
    if (args.label_flags or args.new_network) and not args.teacher:
        parser.error("--label_flags and --new_network: go with --teacher, which makes pseudo masks")
    for place, given, set_here in (
        ("after --", flags, SET_FOR_TRAINER),
        ("of --label_flags", args.label_flags.split(), SET_FOR_GENERATOR),
        ("of --test_flags", args.test_flags.split(), SET_FOR_TEST),
    ):
        if clash := [flag for flag in given if flag.partition("=")[0].removeprefix("--") in set_here]:
            parser.error(f"{clash[0]}: is set for each fold; leave it out {place} (data and --seeds go before --)")
    if (args.out / args.name).resolve().parent != args.out.resolve():
        parser.error(f"{args.name}: is to name a folder in --out; give a plain name")
    if args.name in (args.teacher, args.trained_by):
        parser.error(f"{args.name}: can't take its own models; give the new setting a name of its own")
    if wrong := [fold for fold in args.only or () if fold >= args.folds]:
        parser.error(f"--only {wrong[0]}: there are --folds {args.folds}, the first is 0")
    if args.against and not (args.out / args.against / "result.json").exists():
        parser.error(f"--against {args.against}: {args.out / args.against} has no result.json; run that setting first")
    args.against = args.against or "default"
    for name in ("train_img_path", "train_msk_path", "semi_img_path"):
        setattr(args, name, getattr(args, name) or args.data_root / DEFAULT_FOLDERS[name])
    return args


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What comes before ``--`` and what comes after."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def alike(images: Sequence[Path], correlation: float) -> list[int]:
    """A number for each image, the same for those that chains of thumbnails link which correlate by more than this."""
    from scipy.sparse.csgraph import connected_components  # here, as it takes a quarter of a second

    def thumbnail(path: Path) -> np.ndarray:
        return np.asarray(read_image(path).resize((THUMBNAIL, THUMBNAIL), Image.LANCZOS), dtype=float).ravel()

    linked = np.corrcoef(read_all(thumbnail, images)) > correlation
    return connected_components(linked, directed=False)[1].tolist()


def split_in_folds(pairs: Sequence[Pair], groups: Sequence[int], count: int) -> list[list[Pair]]:
    """Whole groups, dealt out in a random order that never changes, each to the smallest fold so far."""
    if len(set(groups)) < count:
        found = f"the slices are {len(set(groups))} groups of neighbours"
        raise InputError(f"--folds {count}: {found}; ask for fewer, or raise --alike")
    folds = [[] for _ in range(count)]
    names = list(dict.fromkeys(groups))
    for name in np.random.default_rng(0).permutation(names):
        smallest = min(folds, key=len)
        smallest += [pair for pair, group in zip(pairs, groups, strict=True) if group == name]
    return folds


def stop_if_another_setting(args: argparse.Namespace, flags: list[str], folds: list[list[str]]) -> None:
    """A name stands for one setting: with other flags, folds done before would be mixed with new ones."""
    setting = {
        "flags": flags,
        "images": str(args.train_img_path.resolve()),
        "masks": str(args.train_msk_path.resolve()),
        "unlabeled": str(args.semi_img_path.resolve()) if args.teacher else None,
        "folds": folds,
        "teacher": args.teacher,
        "new_network": args.new_network,
        "label_flags": args.label_flags,
        "trained_by": args.trained_by,
        "test_flags": args.test_flags,
    }
    path = args.out / args.name / "setting.json"
    kept = [*path.parent.glob("seed_*/run/last.pth"), *path.parent.glob(f"seed_*/{TABLE}")]
    if kept and path.exists() and (before := json.loads(path.read_text())) != setting:
        changed = [key for key in setting if before.get(key) != setting[key]]
        told = ", ".join(f"other {key}" if key == "folds" else f"{key} {before.get(key)!r}" for key in changed)
        raise InputError(f"{path.parent}: was begun with {told}; give this setting another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(setting, indent=2) + "\n")


def stop_if_other_folds(args: argparse.Namespace, folds: list[list[str]], name: str) -> None:
    """The models of another setting would have seen the slices that are held out here, and its scores not compare."""
    path = args.out / name / "setting.json"
    if path.exists() and json.loads(path.read_text())["folds"] != folds:
        raise InputError(f"{path.parent}: has other folds than these {len(folds)}; name a setting with the same ones")


def stop_if_untrained(runs: list[Path], name: str) -> None:
    """A model that is still being trained has a best.pth already."""
    if missing := [run for run in runs if not is_finished(run)]:
        raise InputError(f"{missing[0]}: is not trained to its end; run the setting {name} with these folds first")


def is_finished(run: Path) -> bool:
    """Whether a training has done all of its epochs."""
    if not (last := run / "last.pth").exists():
        return False
    checkpoint = read_checkpoint(last)
    return checkpoint["epoch"] == checkpoint["run"]["options"]["epoch"]


def fold_folder(args: argparse.Namespace, name: str, seed: int, fold: int) -> Path:
    """Where all goes that a setting makes without a fold and of it."""
    return args.out / name / f"seed_{seed}_fold_{fold}"


def is_scored(args: argparse.Namespace, seed: int, fold: int) -> bool:
    """Whether nothing is left to do for a fold of this setting."""
    return (fold_folder(args, args.name, seed, fold) / TABLE).exists()


def run_fold(
    args: argparse.Namespace, flags: list[str], folds: list[list[Pair]], seed: int, fold: int
) -> dict[str, float]:
    """Train without a fold, predict it, and return the Dice of each of its slices."""
    folder = fold_folder(args, args.name, seed, fold)
    table = folder / TABLE
    if not is_scored(args, seed, fold):
        shutil.rmtree(folder / "slices", ignore_errors=True)
        training = [pair for other in folds if other is not folds[fold] for pair in other]
        labeled, held_out = (
            copy(part, folder / "slices" / kind) for part, kind in ((training, "in"), (folds[fold], "out"))
        )
        if not args.trained_by:
            train(args, flags, labeled, seed, fold)
        model = fold_folder(args, args.trained_by or args.name, seed, fold) / "run" / "best.pth"
        options = [*args.test_flags.split(), "--img_save_folder", folder / "masks"]
        script = [
            "test.py",
            "--pretrained_model",
            model,
            "--test_img_path",
            held_out[0],
            "--test_msk_path",
            held_out[1],
        ]
        call([*script, *options], folder / "test.log", args.jobs)
        shutil.copy(folder / "masks" / table.name, table)
    with table.open(newline="") as file:
        return {row["image"]: float(row["dice"]) for row in csv.DictReader(file)}


def copy(pairs: list[Pair], folder: Path) -> tuple[Path, Path]:
    """Copy pairs into a folder of images and a folder of masks."""
    folders = folder / "image", folder / "mask"
    for kind, target in enumerate(folders):
        target.mkdir(parents=True)
        for pair in pairs:
            shutil.copy(pair[kind], target)
    return folders


def train(args: argparse.Namespace, flags: list[str], labeled: tuple[Path, Path], seed: int, fold: int) -> None:
    """Train on the labeled slices (and, from a teacher, on unlabeled ones), or go on where that was interrupted."""
    folder = fold_folder(args, args.name, seed, fold)
    run, last = folder / "run", folder / "run" / "last.pth"
    if is_finished(run):
        return
    if last.exists():
        options = ["--resume", last]
    else:
        shutil.rmtree(run, ignore_errors=True)  # what was killed before its first last.pth
        options = ["--train_img_path", labeled[0], "--train_msk_path", labeled[1]]
        options += ["--seed", seed, "--save_folder", run]
        if args.teacher:
            teacher, masks = fold_folder(args, args.teacher, seed, fold) / "run" / "best.pth", folder / "Pos-Mask"
            paths = ["--model_path", teacher, "--Image_dir", args.semi_img_path, "--Mask-dir", masks]
            call(["fake_labels_generator.py", *paths, *args.label_flags.split()], folder / "labels.log", args.jobs)
            options += ["--semi_img_path", args.semi_img_path, "--semi_msk_path", masks]
            options += [] if args.new_network else ["--pretrained_model", teacher]
        options += flags
    script = "semi_supervised_train.py" if args.teacher else "supervised_train.py"
    call([script, *options], folder / "train.log", args.jobs)


def call(command: list, log: Path, jobs: int) -> None:
    """Run a script. Raises InputError with its last line if it fails."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})}
    paths = [str(part.resolve() if isinstance(part, Path) else part) for part in command]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, *paths], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as script,
    ):
        at_work.add(script)
        code = script.wait()
        at_work.remove(script)
    if code < 0:
        raise InputError(f"{log}: {command[0]} was ended by {signal.Signals(-code).name}; run this again to go on")
    if code:
        last_line = log.read_text().strip().rpartition("\n")[2] or f"exit code {code}"
        raise InputError(f"{log}: {command[0]} failed: {last_line}")


def merge(scores: list[dict[str, float]], work: list[tuple[int, int]], seed: int) -> dict[str, float]:
    """The Dice of all slices of one seed's folds."""
    return {
        image: dice for found, job in zip(scores, work, strict=True) if job[0] == seed for image, dice in found.items()
    }


def report(
    args: argparse.Namespace, flags: list[str], folds: list[list[str]], dice: dict[str, dict[str, float]]
) -> None:
    """Write result.json and print the setting's row: means over slices that all seeds have, paired difference."""
    ours = per_slice(dice, list(dice))
    seeds = {seed: fmean(of_seed[image] for image in ours) for seed, of_seed in dice.items()}
    result = {"name": args.name, "flags": flags, "dice": fmean(ours.values()), "seeds": seeds}
    result["folds"] = {i: fmean(ours[image] for image in fold) for i, fold in enumerate(folds) if fold[0] in ours}
    if len(seeds) > 1:
        result["sd_over_seeds"] = stdev(seeds.values())
    other = args.out / args.against / "result.json"
    if args.against != args.name and other.exists():
        theirs = json.loads(other.read_text())["slices"]
        both = [seed for seed in dice if seed in theirs]
        result |= paired(per_slice(dice, both), per_slice(theirs, both), args.against)
    result["slices"] = dice
    (args.out / args.name / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    spread = f" (sd over seeds {result['sd_over_seeds']:.3f})" if len(seeds) > 1 else ""
    of_folds = ", ".join(f"{mean:.3f}" for mean in result["folds"].values())
    gain = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**result) if "difference" in result else ""
    source = [f"{option} {name}" for option in ("teacher", "trained_by") if (name := getattr(args, option))]
    source += ["new network"] * args.new_network
    setting = " ".join([*source, *flags, args.test_flags])
    print(f"| {args.name} | {setting} | {len(ours)} slices | {result['dice']:.3f}{spread} | {of_folds} | {gain} |")


def per_slice(dice: dict[str, dict[str, float]], seeds: list[str]) -> dict[str, float]:
    """Mean Dice over these seeds of each slice that all of them have."""
    first = dice[seeds[0]] if seeds else ()  # in its order, on which bootstrap intervals depend
    images = [image for image in first if all(image in dice[seed] for seed in seeds)]
    return {image: fmean(dice[seed][image] for seed in seeds) for image in images}


def paired(ours: dict[str, float], theirs: dict[str, float], name: str) -> dict:
    """Mean difference of the Dice of the slices in both, with a bootstrap interval (95 %) over them; empty if none."""
    differences = [ours[image] - theirs[image] for image in ours if image in theirs]
    if not differences:
        return {}
    low, high = confidence_interval(differences)
    return {"against": name, "difference": fmean(differences), "low": low, "high": high}


if __name__ == "__main__":
    run(main)
