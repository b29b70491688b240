"""All displays share their axes and their frame."""

import html
import re
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from ehrmeta import report
from ehrmeta.errors import DataError
from ehrmeta.report.displays._base import MUTED, PALETTE, Display, select_row
from ehrmeta.report.document import Picture


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


def test_colours_are_distinguishable_in_grey():
    grey = [np.dot([0.299, 0.587, 0.114], plt.matplotlib.colors.to_rgb(c)) for c in PALETTE]
    assert np.diff(np.sort(grey)).min() > 0.01


def test_a_row_that_is_not_there_is_refused():
    table = pd.DataFrame({"row": [0, 0, 1], "x": [1, 2, 3]})
    assert list(select_row(table, 0)["x"]) == [1, 2]
    with pytest.raises(DataError, match="row=2, but X has 2 rows"):
        select_row(table, 2)


@pytest.mark.parametrize("name", [r"$\frac{$", "cost in $ per $", r"a\$b$"])
@pytest.mark.parametrize("has_axes", [False, True])
def test_a_name_with_dollars_is_drawn_as_text(name, has_axes):
    curve = pd.DataFrame({"method": [name] * 2, "k": [0, 1], "value": [2.0, 1.0], "n_tasks": 40})
    curve = curve.assign(low=curve.value - 0.1, high=curve.value + 0.1, metric="rmse_macro")
    ax = plt.subplots()[1] if has_axes else None
    drawn = report.KShotDisplay(curve, unit=name).plot(ax=ax)
    picture = Picture.of(drawn, "key", "words")
    svg = " ".join(re.sub("<[^>]*>", "", picture.svg).split())
    assert svg.count(html.escape(name, quote=False)) == 2  # legend and axis
