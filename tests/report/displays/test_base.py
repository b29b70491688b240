"""All displays share their axes, their frame, and numbers in words."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from ehrmeta import Outcome, Schema, report
from ehrmeta.errors import DataError
from ehrmeta.report.displays._base import (
    MUTED,
    PALETTE,
    Display,
    decimals,
    number,
    of_row,
    outcome_label,
    ranged,
    row_range,
)


@dataclass
class Dots(Display):
    """As many dots as it is high."""

    n: int

    @property
    def _size(self) -> tuple[float, float]:
        return 5.0, float(self.n)

    def _draw(self, ax) -> None:
        ax.plot(range(self.n), "o")


def test_a_new_figure_has_the_size_of_the_display():
    drawn = Dots(3).plot()
    np.testing.assert_allclose(drawn.figure_.get_size_inches(), [5.0, 3.0])
    assert drawn.ax_ in drawn.figure_.axes


def test_given_axes_are_drawn_on_and_framed_alike():
    figure, (first_axes, second_axes) = plt.subplots(1, 2)
    drawn = Dots(3).plot(ax=second_axes)
    assert (drawn.ax_, drawn.figure_) == (second_axes, figure)
    assert not first_axes.lines
    assert len(second_axes.lines) == 1
    assert not second_axes.spines["top"].get_visible()
    assert to_hex(second_axes.spines["left"].get_edgecolor()) == MUTED


def test_the_figure_of_a_subfigure_is_the_whole_one():
    figure = plt.figure()
    drawn = Dots(2).plot(ax=figure.subfigures(1, 2)[1].subplots())
    assert drawn.figure_ is figure


def test_drawing_again_leaves_the_first_picture():
    display = Dots(2)
    first = display.plot().ax_
    assert display.plot().ax_ is not first
    assert len(first.lines) == 1


def test_every_public_display_is_one():
    names = [name for name in report.__all__ if name.endswith("Display")]
    assert names
    assert all(issubclass(getattr(report, name), Display) for name in names)


def test_colours_are_told_apart_in_grey():
    grey = [np.dot([0.299, 0.587, 0.114], plt.matplotlib.colors.to_rgb(c)) for c in PALETTE]
    assert np.diff(np.sort(grey)).min() > 0.01


@pytest.mark.parametrize("value", [0.0, 0.001234, 0.5, 9.6, 123.4, 999.0])
def test_a_number_keeps_three_digits(value):
    assert float(number(value)) == pytest.approx(value, rel=0.005)
    assert float(number(-value)) == -float(number(value))


def test_ends_of_an_interval_have_the_decimals_of_the_largest():
    assert ranged(-12345.6, -20000, 5) == "-12,346 (-20,000 to 5)"
    assert ranged(0.5, 0.25, 0.75, digits=1) == "0.5 (0.2 to 0.8)"
    assert decimals(0.0) == decimals(np.nan) == decimals(np.inf) == 2


def test_scores_without_value_or_interval_say_so():
    assert row_range({"value": np.nan, "low": np.nan}) == "not defined"
    assert row_range({"value": 0.5, "low": np.nan}) == "0.50"
    assert row_range({"value": 0.5, "low": 0.4, "high": 0.6}, 1) == "0.5 (0.4 to 0.6)"


def test_the_outcome_has_its_label_and_unit():
    assert outcome_label(None) == "y"
    assert outcome_label(Schema((), Outcome("hdl", unit="mg/dL"))) == "hdl [mg/dL]"
    assert (
        outcome_label(Schema((), Outcome("n", unit="{count}", label="Visits"))) == "Visits [count]"
    )


def test_a_row_that_is_not_there_is_refused():
    table = pd.DataFrame({"row": [0, 0, 1], "x": [1, 2, 3]})
    assert list(of_row(table, 0)["x"]) == [1, 2]
    with pytest.raises(DataError, match="row=2, but X has 2 rows"):
        of_row(table, 2)
