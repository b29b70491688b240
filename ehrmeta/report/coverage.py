"""Whether intervals hold as often as they say, after every k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from ehrmeta.report.style import INK, MUTED, PALETTE, axes_of, clear_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_coverage"]


def plot_coverage(
    coverage: pd.DataFrame, *, confidence_level: float, ax: Axes | None = None
) -> Axes:
    """Draw the share of later values held, by k, beside the level of the intervals.

    Parameters
    ----------
    coverage : DataFrame
        Columns k, value, low, high, n: shares, their 95 % intervals, and patients.
    confidence_level : float
    ax : matplotlib axes, optional

    Examples
    --------
    >>> shares = {"k": [1, 3], "value": [0.9, 0.88], "low": 0.85, "high": 0.93, "n": 200}
    >>> plot_coverage(pd.DataFrame(shares), confidence_level=0.9).get_ylabel()
    'later values inside the interval [%]'
    """
    ax = axes_of(ax, (7.2, 4.0))
    value, low, high = (100 * coverage[name] for name in ("value", "low", "high"))
    words = f"level of the intervals, {100 * confidence_level:g} %"
    ax.axhline(100 * confidence_level, color=MUTED, linestyle="--", linewidth=1, label=words)
    error = [value - low, high - value]
    look: dict[str, Any] = {
        "fmt": "o",
        "color": PALETTE[0],
        "ecolor": INK,
        "elinewidth": 1.4,
        "capsize": 4,
    }
    ax.errorbar(coverage["k"], value, yerr=error, label="share held, 95 % interval", **look)
    ax.set_xticks(sorted(set(coverage["k"])))
    margin = 3.0
    ends = (*low, *high, 100 * confidence_level)
    ax.set_ylim(max(0.0, min(ends) - margin), min(100.0, max(ends) + margin))
    ax.set_xlabel(
        f"observations shown of each new patient, k ({int(coverage['n'].max()):,} patients)"
    )
    ax.set_ylabel("later values inside the interval [%]")
    ax.legend(loc="best", frameon=False)
    clear_frame(ax)
    return ax
