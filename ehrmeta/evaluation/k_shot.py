"""k-shot curves: error on test tasks by the number of support rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from ehrmeta.data import Clock, TaskIndex, first_k
from ehrmeta.data.clock import SECONDS
from ehrmeta.data.columns import collected
from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.estimators.inputs import Inputs, read_inputs, schema_of
from ehrmeta.estimators.k_shot_protocol import (
    adapt_to_rows,
    drop_unscored_tasks,
    scoring_checks,
    shots_to_score,
)
from ehrmeta.evaluation import metrics
from ehrmeta.evaluation.k_shot_classes import k_shot_class_curve
from ehrmeta.evaluation.metrics import METRICS, Array, TaskMean, percentile_limits

Mask = NDArray[np.bool_]
_YEARS = (1.0, 3.0)


def k_shot_curve(
    models: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    groups: Any,
    time: Any = None,
    outcome_time: Any = None,
    shots: Sequence[int] | None = None,
    query: Literal["growing", "fixed"] = "growing",
    by_horizon: bool | Sequence[float] = False,
    reference: str | None = None,
    confidence_level: float = 0.9,
    n_bootstrap: int = 1000,
    allow_training_table: bool = False,
    random_state: int = 0,
) -> pd.DataFrame:
    """Score fitted models on test tasks after k = 0, 1, 3, ... support rows.

    For each k, every model is adapted to the supports of all tasks and predicts later rows.
    Intervals are from a bootstrap over patients. Differences are paired: all methods use the same
    resamples.

    Parameters
    ----------
    models : mapping of str to fitted estimator
        With ``predict(X)`` (k = 0) and ``adapt(X, y, groups=).predict(X, groups=)``.
    X, y, groups : (row, feature), (row,), (row,)
        Test tasks, not used to fit any of the models.
    time : (row,), optional
        If given, the support is the first k rows of a task; otherwise k random rows.
    outcome_time : (row,), optional
        Time at which each outcome becomes known, on the clock of `time`. A query row is never
        earlier than the time at which an outcome of the support becomes known.
    shots : sequence of int, optional
        Sizes k of the support; by default those of 0, 1, 3 and 5 after which at least half of the
        tasks have another row. A warning names those that are left out.
    query : {"growing", "fixed"}
        "growing" scores all rows after the first k. "fixed" scores, for every k, the rows after the
        largest k, so that the points of a curve are comparable.
    by_horizon : bool or sequence of float
        Also score by the time since the last support row (for k = 0, since the task's first row).
        Pass edges in the unit of `time`, or True for edges at 1 and 3 years if X has a schema.
    reference : str, optional
        Name of the model with which the others are compared.
    confidence_level : float, default 0.9
        Level of the bootstrap intervals.
    n_bootstrap : int
        Number of resamples of the patients; with 0, the limits are NaN.
    allow_training_table : bool
        Whether a model may be scored on the table that it was trained on.
    random_state : int
        Seed of the bootstrap and, without time, of the random supports.

    Returns
    -------
    DataFrame
        A row per method, k, horizon and metric, with columns method, k, query, horizon, n_tasks,
        n_excluded (tasks left out, as they have no query row), metric, value, low, high,
        difference, difference_low, difference_high (method - reference; NaN without reference).

    Raises
    ------
    DataError
        No task has a row after the first k, a model was trained on this table, or it predicts NaN.

    Examples
    --------
    >>> import numpy as np
    >>> class Mean:
    ...     def predict(self, X, *, groups=None, time=None):
    ...         return np.full(len(X), 1.0)
    ...
    ...     def adapt(self, X, y, *, groups=None, time=None):
    ...         return self
    >>> y, rows = [0, 2, 1, 1, 2, 1], {"groups": [1, 1, 1, 2, 2, 3], "time": [0, 1, 2, 0, 1, 0]}
    >>> curve = k_shot_curve({"one": Mean()}, np.zeros((6, 1)), y, **rows, shots=(1,))
    >>> curve.loc[curve.metric == "mae_macro", ["k", "value", "n_tasks", "n_excluded"]]
       k  value  n_tasks  n_excluded
    3  1   0.75        2           1
    """
    if not models or (shots is not None and not len(shots)):
        raise DataError("a k-shot curve needs at least one model and one support size.")
    if query not in ("growing", "fixed"):
        raise DataError(f"query must be 'growing' or 'fixed', got {query!r}.")
    if reference is not None and reference not in models:
        known = did_you_mean(reference, models)
        raise DataError(f"reference {reference!r} is not among the models. {known}")
    X = collected(X)
    schema = schema_of(None, X)
    clock = schema.time if schema is not None else None
    inputs = read_inputs(X, y, groups=groups, time=time, clock=clock, clock_is_enough=True)
    if inputs.groups is None or inputs.y is None:
        raise DataError("a k-shot curve needs y, and groups with the task of every row.")
    y = inputs.y
    if inputs.time is None and (by_horizon or outcome_time is not None):
        raise DataError("by_horizon and outcome_time require time=. Pass the time of every row.")
    edges = _edges(by_horizon, clock)
    unit = "" if clock is None else f" {clock.unit}"
    tasks = inputs.tasks()
    order = inputs.time
    if order is None:  # a random order takes the place of time, so that supports are nested
        order = np.random.default_rng(random_state).permutation(inputs.n_rows).astype(np.float64)
    shots, codes = shots_to_score(tasks, shots, (0, 1, 3, 5)), tasks.codes
    _, last_rows = first_k(tasks, max(shots), time=order, outcome_time=outcome_time)

    parts = []
    with scoring_checks(models.values(), X, inputs, allow_training_table=allow_training_table):
        for k in shots:
            support, rows = first_k(tasks, k, time=order, outcome_time=outcome_time)
            rows = last_rows if query == "fixed" else rows
            support = drop_unscored_tasks(tasks, support, rows)
            predictions = {
                name: _predict(name, model, X, inputs, support, rows)
                for name, model in models.items()
            }
            common: dict[str, Any] = {"k": k, "query": query}
            for horizon, part in _horizons(tasks, order, support, rows, edges, unit):
                losses = {
                    (name, metric): metrics.task_mean(metric, y[part], values[part], codes[part])
                    for name, values in predictions.items()
                    for metric in METRICS
                }
                n_scored = len(np.unique(codes[part]))
                common |= {"horizon": horizon, "n_tasks": n_scored}
                common |= {"n_excluded": tasks.n_tasks - n_scored}
                scores = _scores(losses, reference, confidence_level, n_bootstrap, random_state)
                for place, (name, value) in enumerate(common.items(), start=1):
                    scores.insert(place, name, value)
                parts.append(scores)
    return pd.concat(parts, ignore_index=True)


def _predict(name: str, model: Any, X: Any, inputs: Inputs, support: Mask, query: Mask) -> Array:
    """Predictions of the query rows; NaN elsewhere, (row,)."""
    values = np.full(inputs.n_rows, np.nan)
    if not query.any():
        return values
    adapted, rows = adapt_to_rows(model, X, inputs, support, query)
    values[query] = adapted.predict(**rows)
    bad = int(np.count_nonzero(~np.isfinite(values[query])))
    if bad:
        raise DataError(
            f"model '{name}' predicts NaN or infinity in {bad} of {int(query.sum())} query rows. "
            "Correct the model or leave it out."
        )
    return values


def _scores(
    losses: Mapping[tuple[str, str], TaskMean],
    reference: str | None,
    confidence_level: float,
    n_bootstrap: int,
    random_state: int,
) -> pd.DataFrame:
    """Scores and differences from the reference, one row per method and metric."""
    n_tasks = len(next(iter(losses.values())).loss)
    undefined = ("low", "high", "difference", "difference_low", "difference_high")
    rows = [
        {"method": method, "metric": metric, "value": loss.value()}
        | dict.fromkeys(undefined, np.nan)
        for (method, metric), loss in losses.items()
    ]
    if n_tasks == 0:
        return pd.DataFrame(rows)
    counts = metrics.bootstrap_counts(n_tasks, n_bootstrap, random_state)
    samples = {key: loss.resampled(counts) for key, loss in losses.items()}
    for row, (key, sample) in zip(rows, samples.items(), strict=True):
        row["low"], row["high"] = percentile_limits(sample, confidence_level)
        if reference is not None:
            other = (reference, key[1])
            row["difference"] = losses[key].value() - losses[other].value()
            limits = percentile_limits(sample - samples[other], confidence_level)
            row["difference_low"], row["difference_high"] = limits
    return pd.DataFrame(rows)


def _horizons(
    tasks: TaskIndex, time: Array, support: Mask, query: Mask, edges: Array, unit: str
) -> Iterator[tuple[str, Mask]]:
    """Yield all query rows, then those of each interval of time since the last support row."""
    yield "all", query
    if len(edges) == 0:
        return
    since = np.full(tasks.n_tasks, -np.inf)
    np.maximum.at(since, tasks.codes[support], time[support])
    first = np.full(tasks.n_tasks, np.inf)
    np.minimum.at(first, tasks.codes, time)
    since = np.where(np.isfinite(since), since, first)
    interval = np.searchsorted(edges, time - since[tasks.codes], side="left")
    between = [f"{low:g}-{high:g}{unit}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    names = [f"up to {edges[0]:g}{unit}", *between, f"over {edges[-1]:g}{unit}"]
    for number, name in enumerate(names):
        yield name, query & (interval == number)


def _edges(by_horizon: bool | Sequence[float], clock: Clock | None) -> Array:
    if by_horizon is False:
        return np.empty(0)
    if by_horizon is True:
        if clock is None:
            raise DataError(
                "by_horizon=True needs a schema with the unit of time. Pass the X of a Table, or "
                "pass edges in the unit of time, for example by_horizon=(365.25, 1095.75)."
            )
        return np.array(_YEARS) * SECONDS["a"] / SECONDS[clock.unit]
    edges = np.asarray(by_horizon, dtype=np.float64)
    if edges.ndim != 1 or len(edges) == 0 or np.any(np.diff(edges) <= 0):
        raise DataError(f"by_horizon must be increasing edges, got {by_horizon!r}.")
    return edges


@dataclass(frozen=True)
class KShotScorer:
    """Scorer for ``scoring=``: the negative k-shot error, averaged over support sizes.

    Tasks and times are read from the estimator's `task` and `time` columns, or passed as `groups`
    and `time` by metadata routing. The estimator may be the last step of a pipeline.

    Parameters
    ----------
    shots : tuple of int
        Support sizes.
    metric : {"rmse_macro", "rmse_task", "rmse_pooled", "mae_macro", "log_loss", "brier"}
        The last two are for classifiers.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.model_selection import GridSearchCV
    >>> from ehrmeta import KShotScorer, MetaRegressor, MetaSGD, PatientKFold, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=40, n_points=8, random_state=0)
    >>> X = pd.DataFrame({"x": X[:, 0], "patient": groups})
    >>> search = GridSearchCV(
    ...     MetaRegressor(MetaSGD(), task="patient", max_steps=5, random_state=0),
    ...     {"algorithm__inner_lr": [0.01, 0.1]},
    ...     scoring=KShotScorer(shots=(1, 3)),
    ...     cv=PatientKFold(2, task="patient"),
    ... )
    >>> sorted(search.fit(X, y).best_params_)
    ['algorithm__inner_lr']
    """

    shots: tuple[int, ...] = (1, 3, 5)
    metric: str = "rmse_macro"

    def __call__(
        self, estimator: Any, X: Any, y: Any, *, groups: Any = None, time: Any = None
    ) -> float:
        """Negative mean error over `shots`."""
        if isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        of_classes = self.metric in ("log_loss", "brier")
        if of_classes != is_classifier(estimator):
            raise DataError(
                f"metric={self.metric!r} does not fit a {type(estimator).__name__}. Choose "
                f"{'one for numbers' if of_classes else 'log_loss or brier'}."
            )
        read = estimator.fitted_model().read(X, y, groups=groups, time=time)
        rows: dict[str, Any] = {"groups": read.groups, "time": read.time}
        rows |= {"allow_training_table": True}  # scikit-learn may ask for scores of training rows
        curve_of = k_shot_class_curve if of_classes else k_shot_curve
        curve = curve_of({"": estimator}, X, y, **rows, shots=self.shots, n_bootstrap=0)
        return -float(curve.loc[curve.metric == self.metric, "value"].mean())
