"""A k-shot curve as aligned text."""

from __future__ import annotations

import math

import pandas as pd

__all__ = ["k_shot_table"]


def k_shot_table(
    curve: pd.DataFrame, *, reference: str, metric: str = "rmse_macro", unit: str = ""
) -> str:
    """Lay out one metric of a curve: a row per method, a column per k, the reference last.

    Parameters
    ----------
    curve : DataFrame
        From `k_shot_curve`, with this `reference`.
    reference : str
        The method that the others are compared with.
    metric : str
        One of the curve's metrics.
    unit : str
        Of the metric, for the heading.

    Returns
    -------
    str
        Lines of equal columns. A star marks a difference whose interval excludes 0.

    Examples
    --------
    >>> curve = pd.DataFrame(
    ...     {
    ...         "method": ["last value", "ours"],
    ...         "k": 1,
    ...         "horizon": "all",
    ...         "metric": "rmse_macro",
    ...         "value": [11.2, 10.4],
    ...         "difference": [0.8, 0.0],
    ...         "difference_low": [0.6, 0.0],
    ...         "difference_high": [1.0, 0.0],
    ...         "n_tasks": 90,
    ...         "n_excluded": 10,
    ...     }
    ... )
    >>> print(k_shot_table(curve, reference="ours", unit="mg/dL"))
    rmse_macro [mg/dL]       k = 1
    ------------------------------------------------
    last value               11.20  +0.60 to +1.00 *
    ours                     10.40
    ------------------------------------------------
    patients scored          90
    too few rows, left out   10
    """
    rows = curve[(curve["metric"] == metric) & (curve["horizon"] == "all")]
    others = [name for name in dict.fromkeys(rows["method"]) if name != reference]
    shots = list(dict.fromkeys(rows["k"]))
    cells = rows.set_index(["method", "k"])
    digits = _digits(rows["value"].max())
    width = len(f"{rows['value'].max():.{digits}f}")

    def cell(method: str, k: int) -> str:
        row = cells.loc[(method, k)]
        value = f"{row['value']:.{digits}f}".rjust(width)
        low, high = row["difference_low"], row["difference_high"]
        if method == reference or math.isnan(low):
            return value
        star = " *" if low > 0 or high < 0 else ""
        return f"{value}  {low:+.{digits}f} to {high:+.{digits}f}{star}"

    heading = f"{metric} [{unit}]" if unit else metric
    per_k = {k: cells.xs(k, level="k").iloc[0] for k in shots}
    lines = [
        [heading, *(f"k = {k}" for k in shots)],
        *([name, *(cell(name, k) for k in shots)] for name in (*others, reference)),
        ["patients scored", *(f"{int(per_k[k]['n_tasks']):,}" for k in shots)],
    ]
    if any(per_k[k]["n_excluded"] for k in shots):
        too_few = (f"{int(per_k[k]['n_excluded']):,}" for k in shots)
        lines.append(["too few rows, left out", *too_few])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "   ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    rule = "-" * max(len(line) for line in text)
    return "\n".join([text[0], rule, *text[1 : len(others) + 2], rule, *text[len(others) + 2 :]])


def _digits(largest: float) -> int:
    """Decimals that show four significant digits of the largest value."""
    return max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 2
