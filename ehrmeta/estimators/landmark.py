"""What an adapted forecaster knows of a patient at a landmark, as features of a risk model."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.columns import read_column, take_rows
from ehrmeta.errors import DataError, DataWarning, GroupError
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.predictive import Predictive

__all__ = ["landmark_posterior"]

Array = NDArray[np.float64]


def landmark_posterior(
    adapted: Adapted, X: Any, *, groups: Any, time: Any, step: float
) -> pd.DataFrame:
    """Level, slope and spread of each patient's laboratory value at the landmark.

    The patient's few values become three numbers that any risk model can take, `DiscreteTimeHazard`
    for one: values from before the landmark, weighed by how noisy they are and how old.

    Parameters
    ----------
    adapted : Adapted
        A regressor adapted to the values known at the landmark, and to nothing later.
    X : frame or array, (row, feature)
        One row per patient: what is known ahead, such as age, at the landmark.
    groups : array, (row,)
        Patients; those without any value, who were not adapted, get the population's.
    time : array, (row,)
        Landmarks, on the clock of the forecaster.
    step : float
        The slope is the expected change over this time to come, divided by it.

    Returns
    -------
    DataFrame
        ``level``, ``slope`` and ``spread`` (the predictive standard deviation, where the
        forecaster has one) on the scale it works on: the logarithm, under a log transform.

    Raises
    ------
    DataError
        The forecaster is a classifier, or was adapted to one patient without a name, or the step
        is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.baselines import MixedEffects
    >>> rng = np.random.default_rng(0)
    >>> patients, years = np.repeat(np.arange(50), 6), np.tile(np.arange(6.0), 50)
    >>> y = (1 + years) * rng.normal(2, 1, 50)[patients] + rng.normal(0, 0.1, 300)
    >>> X = np.zeros((300, 1))
    >>> model = MixedEffects().fit(X, y, groups=patients, time=years)
    >>> adapted = model.adapt(X[:2], [3.0, 6.0], groups=["a", "a"], time=[0, 1])
    >>> landmark_posterior(adapted, X[:1], groups=["a"], time=[1.0], step=1.0).round(0)
       level  slope  spread
    0    6.0    3.0     0.0
    """
    if not step > 0:
        raise DataError(f"step must be a positive length of time, got {step}.")
    if adapted.labels_ is None:
        raise GroupError("the forecaster was adapted without groups: adapt it to named patients.")
    patients, at = read_column(groups, "groups"), np.asarray(time, dtype=np.float64)
    known = np.isin(patients, adapted.labels_)
    found = pd.DataFrame(index=range(len(patients)), columns=["level", "slope", "spread"])
    for rows, own in ((known, adapted), (~known, adapted.model.unadapted())):
        if not rows.any():
            continue
        names = {"groups": patients[rows]} if own is adapted else {}
        now, scale = _predicted(own, take_rows(X, rows), time=at[rows], **names)
        later, _ = _predicted(own, take_rows(X, rows), time=at[rows] + step, **names)
        spread = np.full(len(now), np.nan) if scale is None else scale
        found.loc[rows] = np.column_stack([now, (later - now) / step, spread])
    return found.astype(np.float64).dropna(axis="columns", how="all")


def _predicted(adapted: Adapted, X: Any, **rows: Any) -> tuple[Array, Array | None]:
    """Mean and standard deviation on the scale that the learner works on."""
    with warnings.catch_warnings():  # the landmark may be the time of the last value: no forecast
        warnings.filterwarnings("ignore", ".*not later than the last row", DataWarning)
        predicted = adapted.predict_distribution(X, **rows)
    if not isinstance(predicted, Predictive):
        raise DataError("classes have no level and slope. Adapt a regressor.")
    outcome = predicted.outcome
    scale = None if predicted.scale is None else outcome.scale * predicted.scale
    return outcome.center + outcome.scale * predicted.loc, scale
