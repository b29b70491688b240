"""Survival analysis: a discrete-time hazard model, and features from forecasts at a landmark."""

import warnings
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.utils import Tags
from sklearn.utils.validation import _check_feature_names, _check_n_features

from ehrmeta.data.columns import collected, read_column, read_columns, take_rows
from ehrmeta.data.labels import PersonPeriods, interval_edges, person_period, read_survival
from ehrmeta.errors import DataError, DataWarning, GroupError, NotFittedError, SchemaError
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.predictions import Predictive

Array = NDArray[np.float64]


class DiscreteTimeHazard(BaseEstimator):
    r"""Discrete-time survival model with competing events: a classifier of person-periods.

    The cause-specific hazard of cause c in interval j,

    .. math:: \lambda_c(j \mid x) = P(T \in \text{interval } j, \text{cause } c \mid
              T \text{ not before } j, x),

    is predicted by a classifier from the interval's time and the features, with one row per person
    and interval. Survival and cumulative incidence are computed as in the Aalen-Johansen estimator:

    .. math:: S(j) = \prod_{l \le j} \bigl(1 - {\textstyle\sum_c \lambda_c(l)}\bigr), \quad
              F_c(j) = \sum_{l \le j} S(l - 1) \, \lambda_c(l).

    Competing events such as death are outcomes, not censoring. If death is treated as censoring,
    ``1 - Kaplan-Meier`` estimates the risk that there would be if nobody died.

    Parameters
    ----------
    classifier : classifier, optional
        Any scikit-learn classifier with ``predict_proba``; time is its first column. By default a
        (multinomial) logistic regression on a cubic spline of time and standardised features, with
        imputation of missing values and missingness indicators.
    intervals : int or array-like
        Number of intervals of equal length up to the longest time, or the edges, starting at 0.

    Attributes
    ----------
    classifier_ : classifier
    edges_ : ndarray, (interval + 1,)
    causes_ : ndarray of int, (cause,)
        Codes of the events in the training data.

    References
    ----------
    Tutz, Schmid (2016), doi:10.1007/978-3-319-28158-2. Singer, Willett (1993),
    doi:10.3102/10769986018002155.

    Examples
    --------
    >>> from ehrmeta import DiscreteTimeHazard, survival_array
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 1))
    >>> time = rng.exponential(np.exp(-X[:, 0]))
    >>> y = survival_array(time < 2, np.minimum(time, 2))
    >>> model = DiscreteTimeHazard().fit(X, y)
    >>> model.predict_survival_function([[-1.0], [1.0]], times=[1.0]).round(1)
    array([[0.7],
           [0.1]])
    """

    def __init__(
        self, classifier: ClassifierMixin | None = None, *, intervals: int | ArrayLike = 20
    ) -> None:
        self.classifier = classifier
        self.intervals = intervals

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the hazards.

        Parameters
        ----------
        X : frame or array of numbers, (row, feature)
            Features known at entry, one row per patient.
        y : structured array, (row,)
            Event code and time since entry, from `survival_array`.

        Raises
        ------
        DataError
            A column is not numeric, y is not an array of `survival_array`, or there are no events.
        """
        X = collected(X)
        features = _numbers(X)
        event, time = _events(y, len(features))
        edges = interval_edges(self.intervals, time)
        rows = person_period(event, time, edges)
        causes = np.unique(rows.event[rows.event > 0])
        if len(causes) == 0:
            raise DataError(
                f"none of the {len(event):,} patients has an event by time {edges[-1]:g}. Check "
                "the event codes and the unit of time."
            )
        classifier = clone(self.classifier) if self.classifier is not None else _spline_logistic()
        self.classifier_ = classifier.fit(_design(features, rows, edges), rows.event)
        self.edges_, self.causes_ = edges, causes
        _check_feature_names(self, X, reset=True)
        _check_n_features(self, X, reset=True)
        return self

    def predict_hazard(self, X: Any) -> Array:
        """Cause-specific hazards, (row, cause, interval), with causes in the order of `causes_`."""
        features = self._read(X)
        n_rows, n_intervals = len(features), len(self.edges_) - 1
        person = np.repeat(np.arange(n_rows), n_intervals)
        interval = np.tile(np.arange(n_intervals), n_rows)
        rows = PersonPeriods(person, interval, np.zeros_like(person))
        p = self.classifier_.predict_proba(_design(features, rows, self.edges_))
        columns = np.searchsorted(self.classifier_.classes_, self.causes_)
        hazard: Array = p[:, columns].reshape(n_rows, n_intervals, -1).swapaxes(1, 2)
        return hazard

    def predict_cumulative_incidence(
        self, X: Any, times: ArrayLike | None = None, *, cause: int = 1
    ) -> Array:
        """Cumulative incidence: probability, by each time, that the first event is of a cause.

        Parameters
        ----------
        X : frame or array, (row, feature)
        times : array-like, (time,), optional
            Times since entry, interpolated linearly; by default the ends of the intervals.
        cause : int
            Event code.

        Returns
        -------
        ndarray, (row, time)

        Raises
        ------
        DataError
            The training data have no event of this cause, or a time lies beyond their follow-up.
        """
        hazard = self.predict_hazard(X)
        if cause not in self.causes_:
            raise DataError(f"unknown cause {cause}. Use one of {self.causes_.tolist()}.")
        before = np.cumprod(1.0 - hazard.sum(axis=1), axis=1)
        before = np.column_stack([np.ones(len(before)), before[:, :-1]])
        of_cause = hazard[:, np.searchsorted(self.causes_, cause)]
        return self._at(np.cumsum(before * of_cause, axis=1), times)

    def predict_survival_function(self, X: Any, times: ArrayLike | None = None) -> Array:
        """Probability of no event by each time, as in `predict_cumulative_incidence`."""
        hazard = self.predict_hazard(X)
        return 1.0 - self._at(1.0 - np.cumprod(1.0 - hazard.sum(axis=1), axis=1), times)

    def score(self, X: Any, y: Any) -> float:
        """Log likelihood of the discrete times, averaged over rows of X; higher is better."""
        features = self._read(X)
        event, time = _events(y, len(features))
        rows = person_period(event, time, self.edges_)
        p = self.classifier_.predict_proba(_design(features, rows, self.edges_))
        known = np.isin(rows.event, self.classifier_.classes_)
        columns = np.searchsorted(self.classifier_.classes_, np.where(known, rows.event, 0))
        likelihood = np.where(known, p[np.arange(len(p)), columns], 0.0)
        return float(np.log(np.maximum(likelihood, 1e-300)).sum() / len(features))

    def _at(self, incidence: Array, times: ArrayLike | None) -> Array:
        """Interpolate from the ends of the intervals, (row, interval), to times, (row, time)."""
        if times is None:
            return incidence
        since = np.atleast_1d(np.asarray(times, dtype=np.float64))
        if not np.all((since >= 0) & (since <= self.edges_[-1])):
            raise DataError(
                f"times must lie between 0 and {self.edges_[-1]:g}, the longest training follow-up."
            )
        curves = np.column_stack([np.zeros(len(incidence)), incidence])
        at = np.clip(np.searchsorted(self.edges_, since) - 1, 0, None)
        share = (since - self.edges_[at]) / np.diff(self.edges_)[at]
        between: Array = (1.0 - share) * curves[:, at] + share * curves[:, at + 1]
        return between

    def _read(self, X: Any) -> Array:
        if not hasattr(self, "classifier_"):
            raise NotFittedError("this DiscreteTimeHazard is not fitted yet. Call fit first.")
        X = collected(X)
        features = _numbers(X)
        try:
            _check_feature_names(self, X, reset=False)
            _check_n_features(self, X, reset=False)
        except ValueError as error:
            raise SchemaError(f"{error} Pass the columns of fit in the same order.") from error
        return features

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _spline_logistic() -> ClassifierMixin:
    """Logistic regression on a spline of time and linear features, all standardised."""
    features = SimpleImputer(add_indicator=True, keep_empty_features=True)
    time = SplineTransformer(extrapolation="constant")
    design = ColumnTransformer([("time", time, [0])], remainder=features)
    return make_pipeline(design, StandardScaler(), LogisticRegression(max_iter=1000))


def _events(y: Any, n_rows: int) -> tuple[NDArray[np.int64], Array]:
    """Event codes and times of a structured array, (row,) each."""
    event, time = read_survival(y)
    if len(event) != n_rows:
        raise DataError(f"X has {n_rows} rows and y {len(event)}. Pass one event per row.")
    return event, time


def _design(features: Array, rows: PersonPeriods, edges: Array) -> Array:
    """Midpoint of the interval and features of the person, (row, 1 + feature)."""
    middles = 0.5 * (edges[:-1] + edges[1:])
    return np.column_stack([middles[rows.interval], features[rows.person]])


def _numbers(X: Any) -> Array:
    columns = read_columns(X)
    text = [name for name, values in columns.items() if values.dtype.kind not in "biuf"]
    if text:
        raise SchemaError(f"column(s) {text} contain text or dates. Encode them as numbers first.")
    return np.column_stack(list(columns.values())).astype(np.float64)


def landmark_posterior(
    adapted: Adapted, X: Any, *, groups: Any, time: Any, step: float
) -> pd.DataFrame:
    """Level, slope and spread of each patient's laboratory value at a landmark.

    They are features for a risk model such as `DiscreteTimeHazard`, predicted from the values
    before the landmark.

    Parameters
    ----------
    adapted : Adapted
        A regressor adapted to the values known at the landmark, but not to later values.
    X : frame or array, (row, feature)
        One row per patient: features that are known ahead, such as age at the landmark.
    groups : array, (row,)
        Patient of every row. Patients that were not adapted get the population prediction.
    time : array, (row,)
        Landmarks, on the time scale of the regressor.
    step : float
        Time step. The slope is the expected change over the next step, per unit of time.

    Returns
    -------
    DataFrame
        ``level``, ``slope`` and ``spread`` (predictive standard deviation, if the regressor has
        one) on the scale of the outcome transform.

    Raises
    ------
    DataError
        A classifier was adapted, groups were not passed to `adapt`, or `step` is not positive.

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
        raise GroupError("the model was adapted without groups. Pass groups= to adapt.")
    patients, at = read_column(groups, "groups"), np.asarray(time, dtype=np.float64)
    known = np.isin(patients, adapted.labels_)
    table = pd.DataFrame(index=range(len(patients)), columns=["level", "slope", "spread"])
    for rows, tasks in ((known, adapted), (~known, adapted.unadapted())):
        if not rows.any():
            continue
        names = {"groups": patients[rows]} if tasks is adapted else {}
        now, scale = _predicted(tasks, take_rows(X, rows), time=at[rows], **names)
        later, _ = _predicted(tasks, take_rows(X, rows), time=at[rows] + step, **names)
        spread = np.full(len(now), np.nan) if scale is None else scale
        table.loc[rows] = np.column_stack([now, (later - now) / step, spread])
    return table.astype(np.float64).dropna(axis="columns", how="all")


def _predicted(adapted: Adapted, X: Any, **rows: Any) -> tuple[Array, Array | None]:
    """Predictive mean and standard deviation on the scale of the outcome transform."""
    with warnings.catch_warnings():  # the landmark may be the time of the last value
        warnings.filterwarnings("ignore", ".*not later than the last row", DataWarning)
        predicted = adapted.predict_distribution(X, **rows)
    if not isinstance(predicted, Predictive):
        raise DataError("a classifier has no level and slope. Adapt a regressor.")
    outcome = predicted.outcome
    scale = None if predicted.scale is None else outcome.scale * predicted.scale
    return outcome.center + outcome.scale * predicted.loc, scale
