"""The report of test.py: tables of the models and their comparison."""

import math
from collections.abc import Sequence
from typing import Any

from data.errors import printable
from utils.evaluation.cases import Model
from utils.evaluation.metrics import THRESHOLD_MEAN
from utils.evaluation.statistics import compare_paired, summarise, summarise_scores
from utils.evaluation.tables import aligned, in_litres, publication_table, text_table
from utils.output.console import report_shares
from utils.output.folder import ResultFolder

EMPTY_RULE_IN_WORDS = {
    "one": "counts as perfect",
    "zero": "counts as the worst",
    "skip": "is left out of the mean, for all models if for one",
}


def report_scores(
    results: ResultFolder, models: Sequence[Model], *, threshold: float, empty: str, table: str | None
) -> dict[str, Any]:
    """Print the tables of both protocols and of the burden, and write them to ``summary.json``, which is returned, and
    ``table.*``."""
    rows = models[0].rows
    burden = {
        model.name: {name: summarise([row[name] for row in model.rows]) for name in rows[0] if "share" in name}
        for model in models
    }
    print(f"{'results':<11} {len(rows)} slices; {results.table}")
    report_shares(rows, of="true_lesion_share")
    for model in models:
        report_shares(model.rows, of="lesion_share")
    for model in models:
        shares = ", ".join(f"{_label_of(name)} {_percent(found)}" for name, found in burden[model.name].items())
        print(f"{'burden':<11} {model.name}: {shares}; mean (std)")
    if "dice" not in rows[0]:
        print(f"{'scores':<11} none: no truth was given")
        summary: dict[str, Any] = {"images": len(rows)}
        summary["models"] = {name: {"burden": found} for name, found in burden.items()}
        results.write_summary(summary)
        return summary

    touched = sum(row["empty_rule"] for row in rows)
    protocols = {
        f"fixed {threshold:g}": (
            "",
            f"pixels above {threshold:g} are lesion; 0/0 {EMPTY_RULE_IN_WORDS[empty]} (--empty {empty}), "
            f"which applies to scores of {touched} of {len(rows)} images",
        ),
        "threshold mean": (
            THRESHOLD_MEAN,
            "maps stretched to their range, mean over 256 thresholds, 0/0 counts as 0",
        ),
    }
    summary = {"images": len(rows), "images_touched_by_empty_rule": touched, "rules": {}, "models": {}}
    publication = []
    for protocol, (prefix, rule) in protocols.items():
        summaries = {model.name: summarise_scores(model.rows, prefix=prefix) for model in models}
        summary["rules"][protocol] = rule
        for name, found in summaries.items():
            summary["models"].setdefault(name, {"burden": burden[name]})[protocol] = found
        if table:
            caption = f"Mean (standard deviation) over {len(rows)} images; {protocol}: {rule}."
            publication.append(publication_table(summaries, table, caption=caption))
    _print_tables(summary)
    summary["comparisons"] = _compare({model.name: model.rows for model in models})
    results.write_summary(summary)
    if table:
        path = results.folder / {"markdown": "table.md", "latex": "table.tex"}[table]
        path.write_text("\n\n".join(publication) + "\n", encoding="utf-8")
        print(f"\n{path.read_text(encoding='utf-8')}\n{'table':<11} {path}")
    return summary


def report_scans(results: ResultFolder) -> None:
    """Print a row for each scan and the mean (std) over scans, which also goes to ``summary.json``.

    Rows that have a ``model`` are reported by model, and models compared.
    """
    if not results.rows:
        return
    count = len({row["image"] for row in results.rows})
    print(f"\n{'results':<11} {count} scan{'s' * (count > 1)} in {results.folder}; {results.table}")
    models: dict[str, list[dict]] = {}
    for row in results.rows:
        models.setdefault(row.get("model", ""), []).append(row)
    found = {name: _report_rows(name, rows) for name, rows in models.items()}
    if "" in found:
        results.write_summary({"scans": len(results.rows), **found[""]})
    else:
        scans = len(next(iter(models.values())))
        results.write_summary({"scans": scans, "models": found, "comparisons": _compare(models)})


def _report_rows(model: str, rows: Sequence[dict]) -> dict[str, dict]:
    """Print the rows of a model. Returns the mean and the deviation of each column."""
    columns = [name for name in rows[0] if name not in ("model", "image", "slices", "note")]
    summary = {name: summarise([row[name] for row in rows]) for name in columns}
    lines = [[printable(model) or "scan", *(name.removesuffix("_ml") for name in columns)]]
    lines += [[printable(row["image"]), *(_shown(name, row[name]) for name in columns)] for row in rows]
    lines.append(["mean (std)", *(_mean_shown(name, found) for name, found in summary.items())])
    print(aligned(lines))
    return summary


def _mean_shown(name: str, found: dict) -> str:
    if found["mean"] is None:
        return "-"
    if name.endswith("_ml"):
        return f"{in_litres(found['mean'])} ({in_litres(found['std'])})"
    return f"{found['mean']:.3f} ({found['std']:.3f})"


def _shown(name: str, value: float) -> str:
    if name.endswith("_ml"):
        return in_litres(value)
    return "unknown" if math.isnan(value) else f"{value:.4g}"


def _print_tables(summary: dict) -> None:
    rules, models = summary["rules"], summary["models"]
    if len(models) == 1:  # its two protocols side by side
        (found,) = models.values()
        print("\n" + text_table({protocol: found[protocol] for protocol in rules}))
        for protocol, rule in rules.items():
            print(f"{protocol}: {rule}")
    else:
        for protocol, rule in rules.items():
            print(f"\n{protocol}: {rule}")
            print(text_table({name: found[protocol] for name, found in models.items()}))
    print("mean (std) [95 % bootstrap interval of the mean] over images, each at the size of its true mask")


def _compare(models: dict[str, list[dict]]) -> list[dict]:
    """Compare the Dice of each model with that of the first, by their rows."""
    comparisons = []
    (first, reference), *others = models.items()
    for name, rows in others:
        found = compare_paired(reference, rows, "dice")
        comparisons.append({"models": [first, name], "score": "dice", **found})
        if found["difference"] is not None:
            low, high = found["ci95"]
            print(
                f"{name} against {first}: Dice {found['difference']:+.3f} [{low:+.3f}, {high:+.3f}], "
                f"p = {found['wilcoxon_p']:.2g} (Wilcoxon signed-rank, paired by image)"
            )
    return comparisons


def _label_of(name: str) -> str:
    words = {"lesion_share": "lesion share of the slice", "share_of_lung": "lesion share of the lungs"}
    true = "true " if name.startswith("true_") else ""
    return true + words[name.removeprefix("true_")]


def _percent(found: dict) -> str:
    return "-" if found["mean"] is None else f"{found['mean']:.2%} ({found['std']:.2%})"
