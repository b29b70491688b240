"""Base class of the displays, with colours and line styles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import pandas as pd

from ehrmeta.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes as _Axes
    from matplotlib.figure import Figure

Axes: TypeAlias = "_Axes"  # matplotlib is slow to load, and is only needed to draw
# Okabe and Ito's palette: distinct with every common form of colour blindness, and in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (1.2, 1.2)))
INK, MUTED = "#222222", "#777777"


class Display(ABC):
    """A dataclass of the data behind one figure.

    The ``from_...`` methods compute the data and draw them on the matplotlib axes `ax`, or on a new
    figure by default. `plot` draws them again. Subclasses implement `_draw`.

    Attributes
    ----------
    ax_, figure_
        Axes and figure of the last drawing.
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
        for text in ax.findobj(_has_dollar):
            text.set_parse_math(False)  # type: ignore[attr-defined]
        self.ax_, self.figure_ = ax, cast("Figure", ax.get_figure(root=True))
        return self

    @property
    def _size(self) -> tuple[float, float]:
        """Width and height of a new figure in inches."""
        return 6.4, 4.0

    @abstractmethod
    def _draw(self, ax: Axes) -> None:
        """Draw the data and all labels on the axes."""


def _has_dollar(artist: Any) -> bool:
    """Whether an artist is text with a dollar sign, which matplotlib would read as a formula."""
    return hasattr(artist, "set_parse_math") and "$" in artist.get_text()


def legend_below(ax: Axes, gap: float, *, ncols: int = 2) -> None:
    """Place the legend below the axes, at a distance of `gap` times their height."""
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -gap), ncols=ncols)


def select_row(table: pd.DataFrame, row: int) -> pd.DataFrame:
    """The part of a table that belongs to one row of X."""
    part = table[table["row"] == row]
    if part.empty:
        raise DataError(f"row={row}, but X has {table['row'].nunique()} rows (counted from 0).")
    return part
