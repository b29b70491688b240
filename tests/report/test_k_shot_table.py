import numpy as np
import pandas as pd
import pytest

from ehrmeta.report import k_shot_table


def curve(**values):
    """A curve of one metric at k = 1 and 3; each method holds its values and their intervals."""
    rows = [
        {
            "method": method,
            "k": k,
            "horizon": "all",
            "metric": "rmse_macro",
            "value": value,
            "difference": np.nan,
            "difference_low": low,
            "difference_high": high,
            "n_tasks": 1200 - k,
            "n_excluded": k,
        }
        for method, cells in values.items()
        for k, (value, low, high) in zip((1, 3), cells, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def text():
    return k_shot_table(
        curve(
            ours=[(9.5, 0, 0), (8.25, 0, 0)],
            mean=[(10.0, 0.2, 0.8), (8.0, -0.5, -0.1)],
            last=[(11.0, -0.2, 0.9), (9.0, np.nan, np.nan)],
        ),
        reference="ours",
        unit="mg/dL",
    )


def test_the_reference_is_the_last_row_and_has_no_interval(text):
    rows = [line.split()[0] for line in text.splitlines()]
    assert rows[0] == "rmse_macro"
    assert rows[2:5] == ["mean", "last", "ours"]
    assert "to" not in text.splitlines()[4]


def test_a_star_marks_exactly_the_intervals_without_zero(text):
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert lines["mean"].count("*") == 2
    assert "*" not in lines["last"]


def test_columns_are_aligned_and_counts_are_shown(text):
    lines = text.splitlines()
    first, second = lines[0].index("k = 1"), lines[0].index("k = 3")
    assert [line[first : first + 5].strip() for line in lines[2:5]] == ["10.00", "11.00", "9.50"]
    assert [line[second : second + 5].strip() for line in lines[2:5]] == ["8.00", "9.00", "8.25"]
    assert lines[-2].split() == ["patients", "scored", "1,199", "1,197"]
    assert lines[-1].split()[-2:] == ["1", "3"]
    assert all(line == line.rstrip() for line in lines)


def test_small_values_keep_their_digits():
    text = k_shot_table(curve(ours=[(0.0123, 0, 0), (0.011, 0, 0)]), reference="ours")
    assert "0.01230" in text
