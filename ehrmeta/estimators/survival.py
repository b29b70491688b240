"""Time to an event: discrete-time hazards, and what a forecaster knows at a landmark."""

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

from ehrmeta.data.columns import read_column, read_columns, take_rows
from ehrmeta.data.labels import PersonPeriods, interval_edges, person_period, read_survival
from ehrmeta.errors import DataError, DataWarning, GroupError, NotFittedError, SchemaError
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.predictions import Predictive

Array = NDArray[np.float64]


class DiscreteTimeHazard(BaseEstimator):
    r"""Time to an event, with competing events, by a classifier on person-period rows.

    The cause-specific hazard of cause c in interval j,

    .. math:: \lambda_c(j \mid x) = P(T \in \text{interval } j, \text{cause } c \mid
              T \text{ not before } j, x),

    is what a classifier predicts from the interval's time and the features: one row per person and
    interval. Survival and cumulative incidence follow as in the Aalen-Johansen estimator,

    .. math:: S(j) = \prod_{l \le j} \bigl(1 - {\textstyle\sum_c \lambda_c(l)}\bigr), \quad
              F_c(j) = \sum_{l \le j} S(l - 1) \, \lambda_c(l).

    A competing event such as death is an outcome, not censoring: treated as censoring,
    ``1 - Kaplan-Meier`` answers what would happen if nobody died.

    Parameters
    ----------
    classifier : classifier, optional
        Any scikit-learn classifier with ``predict_proba``, over the time in the first column and
        the features in the others. By default a (multinomial) logistic regression on a cubic
        spline of time and on standardised features, missing values imputed and marked.
    intervals : int or array-like
        Number of intervals of equal length up to the longest time, or their edges, from 0 on.

    Attributes
    ----------
    classifier_ : classifier
    edges_ : ndarray, (interval + 1,)
    causes_ : ndarray of int, (cause,)
        Codes of the events seen.

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
            What is known of every patient at entry.
        y : structured array, (row,)
            Event code and time since entry, from `survival_array`.

        Raises
        ------
        DataError
            A column is no number, y is no such array, or nobody has an event.
        """
        features = _numbers(X)
        event, time = read_survival(y)
        if len(event) != len(features):
            raise DataError(f"X has {len(features)} rows and y {len(event)}: pass one each.")
        edges = interval_edges(self.intervals, time)
        rows = person_period(event, time, edges)
        causes = np.unique(rows.event[rows.event > 0])
        if len(causes) == 0:
            raise DataError(
                f"nobody of {len(event):,} has an event by time {edges[-1]:g}, so there is no "
                "hazard to learn. Check the event codes and the unit of time."
            )
        classifier = clone(self.classifier) if self.classifier is not None else _spline_logistic()
        self.classifier_ = classifier.fit(_design(features, rows, edges), rows.event)
        self.edges_, self.causes_ = edges, causes
        _check_feature_names(self, X, reset=True)
        _check_n_features(self, X, reset=True)
        return self

    def predict_hazard(self, X: Any) -> Array:
        """Cause-specific hazard of every interval, (row, cause, interval), as in `causes_`."""
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
        """Probability that the event of a cause comes first and by each time.

        Parameters
        ----------
        X : frame or array, (row, feature)
        times : array-like, (time,), optional
            Since entry; the ends of the intervals by default. Incidence is linear between them.
        cause : int
            Event code.

        Returns
        -------
        ndarray, (row, time)

        Raises
        ------
        DataError
            No such event was seen in training, or a time lies beyond its follow-up.
        """
        hazard = self.predict_hazard(X)
        if cause not in self.causes_:
            raise DataError(f"cause {cause} was not seen in training, but {self.causes_.tolist()}.")
        before = np.cumprod(1.0 - hazard.sum(axis=1), axis=1)
        before = np.column_stack([np.ones(len(before)), before[:, :-1]])
        of_cause = hazard[:, np.searchsorted(self.causes_, cause)]
        return self._at(np.cumsum(before * of_cause, axis=1), times)

    def predict_survival_function(self, X: Any, times: ArrayLike | None = None) -> Array:
        """Probability that none of the events has come by each time, (row, time).

        Parameters
        ----------
        X, times
            As in `predict_cumulative_incidence`.
        """
        hazard = self.predict_hazard(X)
        return 1.0 - self._at(1.0 - np.cumprod(1.0 - hazard.sum(axis=1), axis=1), times)

    def score(self, X: Any, y: Any) -> float:
        """Log likelihood of the discrete times, per row of X: higher is better."""
        features = self._read(X)
        event, time = read_survival(y)
        if len(event) != len(features):
            raise DataError(f"X has {len(features)} rows and y {len(event)}: pass one each.")
        rows = person_period(event, time, self.edges_)
        p = self.classifier_.predict_proba(_design(features, rows, self.edges_))
        known = np.isin(rows.event, self.classifier_.classes_)
        columns = np.searchsorted(self.classifier_.classes_, np.where(known, rows.event, 0))
        likelihood = np.where(known, p[np.arange(len(p)), columns], 0.0)
        return float(np.log(np.maximum(likelihood, 1e-300)).sum() / len(features))

    def _at(self, incidence: Array, times: ArrayLike | None) -> Array:
        """Incidence at the ends of the intervals (row, interval), read at times (row, time)."""
        if times is None:
            return incidence
        since = np.atleast_1d(np.asarray(times, dtype=np.float64))
        if not np.all((since >= 0) & (since <= self.edges_[-1])):
            raise DataError(
                f"times must lie between 0 and {self.edges_[-1]:g}, the longest follow-up in "
                "training."
            )
        curves = np.column_stack([np.zeros(len(incidence)), incidence])
        at = np.clip(np.searchsorted(self.edges_, since) - 1, 0, None)
        share = (since - self.edges_[at]) / np.diff(self.edges_)[at]
        between: Array = (1.0 - share) * curves[:, at] + share * curves[:, at + 1]
        return between

    def _read(self, X: Any) -> Array:
        if not hasattr(self, "classifier_"):
            raise NotFittedError("This DiscreteTimeHazard instance is not fitted yet. Call 'fit'.")
        features = _numbers(X)
        try:
            _check_feature_names(self, X, reset=False)
            _check_n_features(self, X, reset=False)
        except ValueError as error:
            raise SchemaError(f"{error} Pass the columns of fit, in their order.") from error
        return features

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _spline_logistic() -> ClassifierMixin:
    """Time as a spline, all else linear; scaled, so that the penalty is light on all."""
    others = SimpleImputer(add_indicator=True, keep_empty_features=True)
    time = SplineTransformer(extrapolation="constant")
    design = ColumnTransformer([("time", time, [0])], remainder=others)
    return make_pipeline(design, StandardScaler(), LogisticRegression(max_iter=1000))


def _design(features: Array, rows: PersonPeriods, edges: Array) -> Array:
    """The interval's middle and the person's features, (row, 1 + feature)."""
    middles = 0.5 * (edges[:-1] + edges[1:])
    return np.column_stack([middles[rows.interval], features[rows.person]])


def _numbers(X: Any) -> Array:
    columns = read_columns(X)
    text = [name for name, values in columns.items() if values.dtype.kind not in "biuf"]
    if text:
        raise SchemaError(f"column(s) {text} hold text or dates. Encode them as numbers first.")
    return np.column_stack(list(columns.values())).astype(np.float64)


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
    """Mean and standard deviation on the scale that the learner works on."""
    with warnings.catch_warnings():  # the landmark may be the time of the last value: no forecast
        warnings.filterwarnings("ignore", ".*not later than the last row", DataWarning)
        predicted = adapted.predict_distribution(X, **rows)
    if not isinstance(predicted, Predictive):
        raise DataError("classes have no level and slope. Adapt a regressor.")
    outcome = predicted.outcome
    scale = None if predicted.scale is None else outcome.scale * predicted.scale
    return outcome.center + outcome.scale * predicted.loc, scale
