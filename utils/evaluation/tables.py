"""Tables of scores over images: mean (std), confidence intervals and paired tests; as text, Markdown and LaTeX."""

import math
from collections.abc import Sequence

from tabulate import tabulate

LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "sensitivity": "Sen.",
    "specificity": "Spec.",
    "precision": "Prec.",
    "s_measure": "S-alpha",
    "e_mean": "E-phi mean",
    "e_max": "E-phi max",
    "e_adaptive": "E-phi adaptive",
    "mae": "MAE",
    "hd95": "HD95 (px)",
    "assd": "ASSD (px)",
}
PAPER_COLUMNS = ("dice", "sensitivity", "specificity", "s_measure", "e_mean", "mae")
MOST_ACROSS = 4
LOWER_IS_BETTER = {"mae", "hd95", "assd"}


def text_table(columns: dict[str, dict[str, dict]]) -> str:
    """Scores down, models or protocols across: mean (std) [ci95], from the ``summarise_scores`` of each.

    Of many models: models down, scores across, mean (std) alone.
    """
    names = list(next(iter(columns.values())))
    if len(columns) > MOST_ACROSS:
        rows = [
            [model, *(_cell(name, found[name]) if name in found else "" for name in names)]
            for model, found in columns.items()
        ]
        return aligned([["", *(LABELS[name] for name in names)], *rows])
    images = max(summary["images"] for found in columns.values() for summary in found.values())
    header = ["", *columns]
    lines = [header] + [
        [LABELS[name], *(_long_cell(name, found[name], images) if name in found else "" for found in columns.values())]
        for name in names
    ]
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text, the first column to the left, the others to the right."""
    alignment = ["left"] + ["right"] * (len(lines[0]) - 1)
    return tabulate(lines, tablefmt="plain", colalign=alignment, disable_numparse=True, preserve_whitespace=True)


def in_litres(ml: float) -> str:
    """A volume in mL, or in L from one litre on; "unknown" if it is NaN."""
    if math.isnan(ml):
        return "unknown"
    return f"{ml:.4g} mL" if ml < 1000 else f"{ml / 1000:.3g} L"


def publication_table(models: dict[str, dict[str, dict]], kind: str, *, caption: str) -> str:
    """Models down, the paper's columns across, mean (std) with the best mean in bold; ``kind``: markdown or latex."""
    best = {}  # None where no model has a value
    for name in PAPER_COLUMNS:
        means = [summary[name]["mean"] for summary in models.values() if summary[name]["mean"] is not None]
        best[name] = (min if name in LOWER_IS_BETTER else max)(means, default=None)

    def cell(name: str, summary: dict) -> str:
        text = _cell(name, summary)
        # A tie as printed is a tie.
        is_best = best[name] is not None and text == _cell(name, {**summary, "mean": best[name]})
        if len(models) == 1 or not is_best:
            return text
        return f"**{text}**" if kind == "markdown" else rf"\textbf{{{text}}}"

    body = []
    for model, summary in models.items():
        name = model.replace("|", r"\|") if kind == "markdown" else _for_latex(model)
        body.append([name, *(cell(column, summary[column]) for column in PAPER_COLUMNS)])
    if kind == "markdown":
        header = ["model", *(LABELS[name] for name in PAPER_COLUMNS)]
        return "\n".join([tabulate(body, header, tablefmt="github", disable_numparse=True), "", caption])
    symbols = {"s_measure": r"$S_\alpha$", "e_mean": r"$E_\phi^{\mathrm{mean}}$"}
    header = ["Model", *(symbols.get(name, LABELS[name]) for name in PAPER_COLUMNS)]
    table = tabulate(
        body, header, tablefmt="latex_raw", disable_numparse=True, colalign=["left"] + ["center"] * len(PAPER_COLUMNS)
    )
    return "\n".join([r"\begin{table}", rf"\caption{{{_for_latex(caption)}}}", table, r"\end{table}"])


def _cell(name: str, summary: dict) -> str:
    if summary["mean"] is None:
        return "-"
    return f"{summary['mean']:.{_digits(name)}f} ({summary['std']:.{_digits(name)}f})"


def _long_cell(name: str, summary: dict, images: int) -> str:
    if not summary["ci95"]:
        return _cell(name, summary)
    low, high = summary["ci95"]
    of_fewer = f" n={summary['images']}" if summary["images"] < images else ""
    return f"{_cell(name, summary)} [{low:.{_digits(name)}f}, {high:.{_digits(name)}f}]{of_fewer}"


def _digits(name: str) -> int:
    return 1 if name in ("hd95", "assd") else 4 if name == "mae" else 3


def _for_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
