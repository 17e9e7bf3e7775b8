"""The result of a setting: means over slices and seeds, compared with another setting slice by slice."""

import json
from statistics import fmean, stdev
from typing import Any

from benchmarks.crossval.setting import Setting
from utils.evaluation.statistics import confidence_interval


def report(setting: Setting, against: str, scores: dict[tuple[int, int], dict[str, float]]) -> None:
    """Write result.json and print the setting's row: means over slices that all seeds have, paired difference.

    scores: the Dice of each slice, by seed and fold.
    """
    dice: dict[str, dict[str, float]] = {}
    for (seed, _), found in scores.items():
        dice.setdefault(f"{seed}", {}).update(found)
    ours = per_slice(dice, list(dice))
    seeds = {seed: fmean(of_seed[image] for image in ours) for seed, of_seed in dice.items()}
    result: dict[str, Any] = {
        "name": setting.name,
        "flags": setting.flags,
        "dice": fmean(ours.values()),
        "seeds": seeds,
    }
    result["folds"] = {
        i: fmean(ours[image] for image in fold) for i, fold in enumerate(setting.folds) if fold[0] in ours
    }
    if len(seeds) > 1:
        result["sd_over_seeds"] = stdev(seeds.values())
    other = setting.out / against / "result.json"
    if against != setting.name and other.exists():
        theirs = json.loads(other.read_text(encoding="utf-8"))["slices"]
        both = [seed for seed in dice if seed in theirs]
        # Networks that are scored together compare with the mean of their own scores, not with one of them.
        together = [str(seed) for seed in setting.ensemble or () if setting.trained_by and str(seed) in theirs]
        result |= paired(per_slice(dice, both), per_slice(theirs, together or both), against)
    result["slices"] = dice
    (setting.out / setting.name / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    spread = f" (sd over seeds {result['sd_over_seeds']:.3f})" if len(seeds) > 1 else ""
    of_folds = ", ".join(f"{mean:.3f}" for mean in result["folds"].values())
    gain = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**result) if "difference" in result else ""
    source = [f"{option} {name}" for option in ("teacher", "trained_by") if (name := getattr(setting, option))]
    source += ["new network"] * setting.new_network
    source += [f"ensemble of seeds {' '.join(map(str, setting.ensemble))}"] if setting.ensemble else []
    flags = " ".join([*source, *setting.flags, setting.test_flags])
    print(f"| {setting.name} | {flags} | {len(ours)} slices | {result['dice']:.3f}{spread} | {of_folds} | {gain} |")


def per_slice(dice: dict[str, dict[str, float]], seeds: list[str]) -> dict[str, float]:
    """Mean Dice over these seeds of each slice that all of them have."""
    first = dice[seeds[0]] if seeds else ()  # keeps its order, on which bootstrap intervals depend
    images = [image for image in first if all(image in dice[seed] for seed in seeds)]
    return {image: fmean(dice[seed][image] for seed in seeds) for image in images}


def paired(ours: dict[str, float], theirs: dict[str, float], name: str) -> dict:
    """Mean difference of the Dice of the slices in both, with a bootstrap interval (95 %) over them; empty if none."""
    differences = [ours[image] - theirs[image] for image in ours if image in theirs]
    if not (interval := confidence_interval(differences)):
        return {}
    low, high = interval
    return {"against": name, "difference": fmean(differences), "low": low, "high": high}
