"""Scores of subgroups are means over patients, and small groups are merged."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta.evaluation import rmse_macro
from ehrmeta.report.subgroups import Score, group_scores, groups_section, protected

N = 30
RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(N), 4)
AT = np.flatnonzero(np.arange(4 * N) % 4)  # rows that are scored
ROWS = pd.DataFrame({"task": GROUPS[AT], "row": AT, "squared": RNG.random(3 * N)})
RMSE = (Score("squared", "RMSE", root=True),)


def scores_of(**columns):
    return group_scores(ROWS, protected(ROWS, columns), RMSE)


def test_a_group_of_everybody_has_the_macro_error_and_small_groups_are_merged():
    one, sizes = np.repeat("x", 4 * N), np.where(GROUPS < 5, "few", np.where(GROUPS < 17, "a", "b"))
    scores = scores_of(all=one, ward=sizes).set_index("level")
    expected = rmse_macro(np.sqrt(ROWS["squared"]), np.zeros(len(AT)), ROWS["task"])
    assert scores.loc["x", "squared"] == pytest.approx(expected)
    assert set(scores.index) == {"x", "b", "other"}
    low, middle, high = scores.loc["b", ["squared_low", "squared", "squared_high"]]
    assert low <= middle <= high
    assert (scores.loc["b", "n"], scores.loc["other", "n"]) == (13, 17)


def test_rows_without_a_group_are_a_level():
    values = np.where(GROUPS < 15, "a", None).astype(object)
    assert list(scores_of(ward=values)["level"]) == ["a", "missing"]


def test_columns_that_cannot_be_shown_are_named():
    ward = np.where(GROUPS < 3, "a", "b")
    section = groups_section(scores_of(ward=ward), ["ward"], RMSE, 1)
    assert not section.tables
    assert "Not shown" in section.paragraphs[0]
    assert "ward" in section.paragraphs[0]
