r"""Disclosure control: what a published page may show of few patients.

1. **Threshold.** No count of 1 to 10 patients is shown, nor a score of so few (the rule of CMS; its
   policy covers excluded cases and percentages, too). A page needs at least 11 patients.
2. **Merging.** Levels of few patients are merged into "other", so no withheld cell can be computed
   from a total.
3. **Differencing.** All tables of subgroups on a page are checked together: levels are merged
   further, or a column is left out, until no sum and difference of groups leaves few patients.
4. **Rounding.** Counts are rounded to multiples of 5. This alone would not protect, as the handbook
   says of conventional rounding, but it hides how many were left out.

References
----------
Hundepool et al. (2024), Handbook on Statistical Disclosure Control, 2nd edition, sections 5.3, 5.5
and 5.7, https://sdctools.github.io/HandbookSDC/; CMS Cell Size Suppression Policy (2024),
https://resdac.org/node/1506.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

MIN_CELL = 11  # patients; the scores of smaller groups are not published
BASE = 5  # of rounded counts
OTHER = "other"
_TRIES = 32  # random bases of the search for small differences
_ZERO = 1e-9


def rounded(n: ArrayLike) -> Any:
    """Counts rounded to the nearest multiple of 5."""
    return (BASE * np.round(np.asarray(n) / BASE)).astype(np.int64)


def count_text(n: float) -> str:
    """A count as a page may show it.

    Examples
    --------
    >>> count_text(0), count_text(3), count_text(1203)
    ('0', 'under 11', '1,205')
    """
    if 0 < n < MIN_CELL:
        return f"under {MIN_CELL}"
    return f"{int(rounded(n)):,}"


def left_out_text(n_tested: int, n_scored: int, k: int) -> str:
    """Sentence on the numbers of patients tested and left out, and the reason.

    Examples
    --------
    >>> left_out_text(63, 60, k=5)[:78]
    'It was tested on 60 of 65 patients; under 11 were left out, as they have no va'
    """
    why = f"{count_text(n_tested - n_scored)} were left out, as they have no value after the"
    left_out = f"{why} first {k}" if n_scored < n_tested else "none was left out"
    return (
        f"It was tested on {count_text(n_scored)} of {count_text(n_tested)} patients; {left_out}. "
        f"Counts are rounded to multiples of {BASE}."
    )


def share_text(rows: NDArray[np.bool_], patient: NDArray[Any]) -> str:
    """Percentage of rows in a mask; withheld if these or the other rows have few patients."""
    n_with, n_without = (len(np.unique(patient[mask])) for mask in (rows, ~rows))
    if 0 < n_with < MIN_CELL:
        return f"under {MIN_CELL} patients"
    if 0 < n_without < MIN_CELL:
        return f"all but under {MIN_CELL} patients"
    percent = 100 * float(np.mean(rows))
    if percent in (0.0, 100.0):
        return f"{percent:.0f} %"
    return "under 1 %" if percent < 1 else "over 99 %" if percent > 99 else f"{percent:.0f} %"


def protect_levels(
    patient: NDArray[Any], columns: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Merge levels until groups of all columns, and their differences, have 11 patients or more.

    The smallest levels of a column become "other". A column that would be left with one level is
    omitted.

    Parameters
    ----------
    patient : (row,)
    columns : mapping of str to (row,)
        A level for every row, as text.

    Examples
    --------
    Ward a has 5 patients. Drug x is given in wards a and c, so that x minus c would reveal them.

    >>> ward = np.repeat(["a", "b", "c"], [5, 40, 60])
    >>> drug = np.where(ward == "b", "y", "x")
    >>> safe = protect_levels(np.arange(105), {"ward": ward, "drug": drug})
    >>> {name: sorted(set(levels)) for name, levels in safe.items()}
    {'ward': ['c', 'other']}
    """
    safe: dict[str, NDArray[Any]] = {}
    for name, levels in columns.items():
        merged = np.asarray(levels, dtype=object).copy()
        while True:
            sizes = pd.Series(patient).groupby(merged).nunique().sort_values(kind="stable")
            if list(sizes.index) == [OTHER]:
                break
            if sizes.iloc[0] >= MIN_CELL and not _leaves_few(patient, {**safe, name: merged}):
                safe[name] = merged
                break
            others = [OTHER] if OTHER in sizes.index[1:] else list(sizes.index[1:2])
            merged[np.isin(merged, [sizes.index[0], *others])] = OTHER
    return safe


def _leaves_few(patient: NDArray[Any], columns: Mapping[str, NDArray[Any]]) -> bool:
    """Whether adding and subtracting groups can leave a contrast of fewer than 11 patients.

    Groups are vectors over the joint cells of all columns, and contrasts are vectors in their span.
    The search is information-set decoding: random cells, mostly large ones, are eliminated, so that
    the reduced basis contains contrasts of few cells. Several random bases are checked.
    """
    codes = [pd.factorize(levels)[0] for levels in columns.values()]
    joint, cell = np.unique(np.column_stack(codes), axis=0, return_inverse=True)
    pairs = np.unique(np.column_stack([cell.ravel(), pd.factorize(patient)[0]]), axis=0)
    counts = np.bincount(pairs[:, 0])  # patients in each cell
    most_cells = int(np.bincount(pairs[:, 1]).max())  # of a patient
    levels = [np.unique(of_column, return_inverse=True)[1] for of_column in joint.T]
    groups = np.concatenate([np.eye(at.max() + 1)[at] for at in levels], axis=1).T
    rng = np.random.default_rng(0)
    for _ in range(_TRIES):
        order = np.argsort(rng.exponential(size=len(counts)) / counts)
        supports = np.abs(_eliminate(groups[:, order])) > _ZERO
        for support in supports[supports @ counts[order] < MIN_CELL * most_cells]:
            cells = order[support]
            if len(np.unique(pairs[np.isin(pairs[:, 0], cells), 1])) < MIN_CELL:
                return True
    return False


def _eliminate(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduced row echelon form, without zero rows."""
    rows, done = rows.copy(), 0
    for column in range(rows.shape[1]):
        pivot = done + int(np.argmax(np.abs(rows[done:, column])))
        if np.abs(rows[pivot, column]) < _ZERO:
            continue
        rows[[done, pivot]] = rows[[pivot, done]]
        rows[done] /= rows[done, column]
        others = np.arange(len(rows)) != done
        rows[others] -= np.outer(rows[others, column], rows[done])
        done += 1
        if done == len(rows):
            break
    return rows[:done]
