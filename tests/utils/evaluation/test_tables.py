import json
import math
import re

import numpy as np
import pytest

from utils.evaluation.metrics import SCORES
from utils.evaluation.statistics import compare_paired, confidence_interval, summarise, summarise_scores
from utils.evaluation.tables import publication_table, text_table


def rows(dice, **others):
    return [{**dict.fromkeys(SCORES, 0.5), "dice": value, **others} for value in dice]


def test_summary_is_mean_and_population_deviation_without_nan():
    assert summarise([0.25, math.nan, 0.75]) == {"mean": 0.5, "std": 0.25, "images": 2}
    assert summarise([math.nan]) == {"mean": None, "std": None, "images": 0}
    json.dumps(summarise_scores(rows([math.nan])), allow_nan=False)


def test_confidence_interval_covers_the_mean_of_the_source():
    """Of 200 samples of 40 images, about 95 % of the intervals hold the mean that they were drawn around."""
    rng = np.random.default_rng(0)
    intervals = [confidence_interval(rng.normal(0.7, 0.2, 40)) for _ in range(200)]
    assert 0.88 < np.mean([low < 0.7 < high for low, high in intervals]) < 0.99
    assert np.mean([high - low for low, high in intervals]) == pytest.approx(2 * 1.96 * 0.2 / 40**0.5, rel=0.1)
    assert confidence_interval([0.5, math.nan]) is None


def test_paired_comparison():
    first = np.linspace(0.2, 0.8, 20)
    found = compare_paired(rows(first), rows(first + 0.1 + 0.01 * np.sin(np.arange(20))), "dice")
    assert found["difference"] == pytest.approx(0.1, abs=0.005)
    assert found["wilcoxon_p"] == pytest.approx(2 / 2**20)  # all 20 differences are positive: exact
    low, high = found["ci95"]
    assert 0.09 < low < 0.1 < high < 0.11
    assert compare_paired(rows(first), rows(first), "dice")["wilcoxon_p"] == 1
    assert compare_paired(rows([math.nan, 1]), rows([0, 1]), "dice")["wilcoxon_p"] is None


def summaries():
    return {
        "A_1": summarise_scores(rows([0.5, 0.7], mae=0.02, specificity=0.9)),
        "B": summarise_scores(rows([0.6, 1.0], mae=0.04, specificity=0.9)),
    }


def test_publication_tables_have_the_best_in_bold():
    lines = publication_table(summaries(), "markdown", caption="Note.").splitlines()
    rows_of_cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows_of_cells[0] == ["model", "Dice", "Sen.", "Spec.", "S-alpha", "E-phi mean", "MAE"]
    cells = {name: others for name, *others in rows_of_cells}
    assert cells["A_1"][0] == "0.600 (0.100)" and cells["B"][0] == "**0.800 (0.200)**"
    assert cells["A_1"][5] == "**0.0200 (0.0000)**" and cells["B"][5] == "0.0400 (0.0000)"  # less error is better
    assert cells["A_1"][2] == cells["B"][2] == "**0.900 (0.000)**"
    assert lines[-1] == "Note."

    latex = publication_table(summaries(), "latex", caption="50 % of x_1")
    latex = re.sub(" +", " ", latex)
    assert r"B & \textbf{0.800 (0.200)}" in latex and r"A\_1 & 0.600 (0.100)" in latex
    assert r"\begin{tabular}{lcccccc}" in latex
    assert r"\caption{50 \% of x\_1}" in latex and latex.count(r"\\") == 3
    empty = summarise_scores(rows([math.nan]))
    nowhere = publication_table({"A|B": empty, "C^2": empty}, "markdown", caption="")
    assert re.search(r"A\\\|B +\| - +\|", nowhere) and "**-**" not in nowhere
    assert r"C\textasciicircum{}2 & " in publication_table({"C^2": summaries()["B"]}, "latex", caption="")
    alone = publication_table({"A": summaries()["A_1"]}, "markdown", caption="")
    assert "**" not in alone


def test_text_table_lines_up_and_says_what_is_missing():
    found = summaries()
    found["B"]["hd95"] = summarise([math.nan]) | {"ci95": None}
    del found["B"]["assd"]
    lines = text_table(found).splitlines()
    assert len({line.rindex("]") for line in lines if line.count("[") == 2}) == 1
    by_label = {line.split("  ")[0]: line for line in lines}
    assert "0.600 (0.100) [0.500, 0.700]" in by_label["Dice"]
    assert by_label["HD95 (px)"].endswith(" -") and by_label["ASSD (px)"].count("[") == 1


def test_many_models_stand_below_each_other():
    found = {f"model {index}": summaries()["B"] for index in range(5)}
    header, *lines = text_table(found).splitlines()
    assert "Dice" in header and "MAE" in header and [line[:7] for line in lines] == list(found)
    assert "[" not in lines[0] and "(" in lines[0]
