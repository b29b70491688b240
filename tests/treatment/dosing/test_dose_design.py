"""A row of the design is a level plus the scaled dose times a slope."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Schema
from ehrmeta.errors import DataError, SchemaError
from ehrmeta.treatment.dosing.dose_design import DoseDesign

RNG = np.random.default_rng(0)
COLUMNS = {"age": RNG.normal(50, 9, 40), "hours": RNG.uniform(0, 12, 40)}
DOSE, TIME = RNG.uniform(1, 8, 40), np.arange(40.0)


def design(**changes: object) -> DoseDesign:
    features = tuple(Schema.infer(pd.DataFrame(COLUMNS)).features)
    settings = {"log_dose": True, "trend": True, "random_slope": True, "curves": ("hours",)}
    return DoseDesign.fit(COLUMNS, features, DOSE, TIME, groups=None, **settings | changes)


def parts(of: DoseDesign, columns: dict[str, np.ndarray]) -> tuple:
    return of.parts(of.encoded(columns), columns, TIME, np.zeros((40, 0)))


def test_the_scaled_dose_has_mean_0_on_the_log_scale_and_unit_spread() -> None:
    scaled = design().scaled(DOSE)
    assert scaled.mean() == pytest.approx(0.0, abs=1e-12)
    assert scaled.std() == pytest.approx(1.0)
    linear = design(log_dose=False)
    assert linear.scaled(np.zeros(1))[0] == 0.0


def test_level_and_slope_have_no_column_in_common() -> None:
    (fixed, drawn), (tilted, drawn_tilt) = parts(design(), COLUMNS)
    assert not (fixed.any(0) & tilted.any(0)).any()
    assert not (drawn.any(0) & drawn_tilt.any(0)).any()
    assert drawn_tilt.any(0).sum() == 1
    assert not parts(design(random_slope=False), COLUMNS)[1][1].any()


def test_curves_need_numbers_of_a_column_that_is_there() -> None:
    with pytest.raises(SchemaError, match="curve 'hour' is not in X"):
        design(curves=("hour",))
    with pytest.raises(DataError, match="must have a number in every row"):
        missing = COLUMNS | {"hours": np.where(np.arange(40) == 3, np.nan, COLUMNS["hours"])}
        parts(design(), missing)
