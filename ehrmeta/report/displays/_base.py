"""What all pictures share: the base class, colours, axes, numbers in words."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import pandas as pd

from ehrmeta.data.schema import Schema
from ehrmeta.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes as _Axes
    from matplotlib.figure import Figure

Axes: TypeAlias = "_Axes"  # matplotlib is slow to load, and is only needed to draw
# Okabe and Ito's palette: distinct under every common colour blindness, and in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (1.2, 1.2)))
INK, MUTED = "#222222", "#777777"


class Display(ABC):
    """A picture made by one of its ``from_...`` methods; `plot` draws it again.

    These methods draw on the matplotlib axes `ax`, by default on a new figure. A display is a
    dataclass of what is drawn, with the method `_draw`.

    Attributes
    ----------
    ax_, figure_
        What was drawn last.
    """

    ax_: Axes
    figure_: Figure

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw on `ax`, or on a new figure."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=self._size, dpi=120, layout="constrained")[1]
        self._draw(ax)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(MUTED)
        ax.tick_params(color=MUTED)
        self.ax_, self.figure_ = ax, cast("Figure", ax.get_figure(root=True))
        return self

    @property
    def _size(self) -> tuple[float, float]:
        """Width and height of a new figure in inches."""
        return 6.4, 4.0

    @abstractmethod
    def _draw(self, ax: Axes) -> None:
        """Draw all marks and words on the axes."""


def legend_below(ax: Axes, gap: float, *, ncols: int = 2) -> None:
    """A legend in columns below the axes; `gap` is in shares of their height."""
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -gap), ncols=ncols)


def small_title(ax: Axes, words: str, **where: Any) -> None:
    """A remark above the axes."""
    ax.set_title(words, fontsize="small", color=INK, **where)


def of_row(table: pd.DataFrame, row: int) -> pd.DataFrame:
    """The part of a table that belongs to one row of X."""
    part = table[table["row"] == row]
    if part.empty:
        raise DataError(f"row={row}, but X has {table['row'].nunique()} rows.")
    return part


def outcome_label(schema: Schema | None) -> str:
    """The outcome in words, with its unit."""
    if schema is None or schema.outcome is None:
        return "y"
    outcome = schema.outcome  # UCUM writes what is no unit in braces
    return with_unit(outcome.label or outcome.name, outcome.unit.strip("{}"))


def with_unit(words: str, unit: str) -> str:
    """Words with a unit in brackets, where there is one."""
    return f"{words} [{unit}]" if unit else words


def number(value: float) -> str:
    """Three significant digits, with trailing zeros; numbers from 1000 on without decimals.

    Examples
    --------
    >>> number(9.6), number(0.01234), number(12345.6)
    ('9.60', '0.0123', '12,346')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def ranged(value: float, low: float, high: float, *, digits: int | None = None) -> str:
    """A value with its interval, all with the same decimals.

    Examples
    --------
    >>> ranged(9.648, 9.31, 10.02)
    '9.6 (9.3 to 10.0)'
    """
    if digits is None:
        digits = decimals(max(abs(value), abs(low), abs(high)))
    return f"{value:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def row_range(row: Any, digits: int = 2) -> str:
    """A value with its interval, from a row with `value`, `low`, `high`, any of them NaN."""
    if math.isnan(row["value"]):
        return "not defined"
    if math.isnan(row["low"]):
        return f"{row['value']:.{digits}f}"
    return ranged(row["value"], row["low"], row["high"], digits=digits)


def decimals(largest: float) -> int:
    """Number of decimals with which the largest of some values has three digits.

    Examples
    --------
    >>> decimals(16.2), decimals(0.4), decimals(12345.0)
    (1, 3, 0)
    """
    if not 0.0 < largest < math.inf:
        return 2
    return max(0, 2 - math.floor(math.log10(largest)))
