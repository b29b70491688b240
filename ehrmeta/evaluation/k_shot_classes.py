"""Scores of class probabilities over the number of rows of a new task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.estimators.k_shot_protocol import (
    adapt_to_rows,
    k_shot_splits,
    scoring_checks,
    shots_to_score,
)
from ehrmeta.evaluation.metrics import Array, TaskMean, bootstrap_counts, percentile_limits, refuse
from ehrmeta.evaluation.risk import risk_score

_UNDEFINED = ("low", "high", "difference", "difference_low", "difference_high")


def k_shot_class_curve(
    models: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    groups: Any,
    time: Any = None,
    shots: Sequence[int] | None = None,
    reference: str | None = None,
    confidence_level: float = 0.9,
    n_bootstrap: int = 1000,
    allow_training_table: bool = False,
    random_state: int = 0,
) -> pd.DataFrame:
    """Log loss, Brier score and AUROC of classifiers after k values of each new task.

    Every task is adapted to its first k rows (k random ones without time) and scored on its later
    rows. Log loss and Brier score are means over tasks; AUROC, of two classes, is over all rows.

    Parameters
    ----------
    models : mapping of str to fitted classifier over tasks
        All with the same classes.
    X, y, groups, time
        Test rows, as in ``MetaClassifier.fit``.
    shots : sequence of int, optional
        Support sizes; by default those of 1, 3 and 5 after which at least half of the tasks have
        another row. A warning names those that are left out.
    reference : str, optional
        Name of the model that the others are compared with.
    confidence_level : float, default 0.9
        Of the bootstrap intervals over tasks.
    n_bootstrap : int
        Resamples of the tasks.
    allow_training_table : bool
        Whether a model may be scored on the table that it was trained on.
    random_state : int

    Returns
    -------
    DataFrame
        A row per method, k and metric, with the columns of `k_shot_curve`.

    Raises
    ------
    DataError
        An outcome is none of the classes, no task has a row after the first k, or a model was
        trained on this table.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskLogistic
    >>> rng = np.random.default_rng(0)
    >>> X, groups = rng.normal(size=(400, 1)), np.repeat(np.arange(50), 8)
    >>> y = np.where(X[:, 0] + rng.normal(size=50)[groups] > 0, "yes", "no")
    >>> train, test = groups < 20, groups >= 20
    >>> model = TaskLogistic().fit(X[train], y[train], groups=groups[train])
    >>> of_test = {"X": X[test], "y": y[test], "groups": groups[test]}
    >>> curve = k_shot_class_curve({"own rows": model}, **of_test, shots=(2, 5))
    >>> curve.loc[curve["metric"] == "auroc", "value"].round(2).tolist()
    [0.8, 0.91]
    """
    first = next(iter(models.values()))
    inputs = first.fitted_model().read(X, y, groups=groups, time=time)
    tasks, classes = inputs.tasks(), np.asarray(first.classes_)
    outcome = np.asarray(inputs.outcome(), dtype=classes.dtype)
    refuse(~np.isin(outcome, classes), "y holds classes unseen at fit", "Pass the labels of fit.")
    codes = np.searchsorted(classes, outcome)
    shots = shots_to_score(tasks, shots, (1, 3, 5))
    rows: list[dict[str, Any]] = []
    with scoring_checks(models.values(), X, inputs, allow_training_table=allow_training_table):
        for k, support, query in k_shot_splits(inputs, shots):
            scored = tasks.codes[query]
            n_tasks = len(np.unique(scored))
            losses: dict[tuple[str, str], TaskMean] = {}
            at_k: list[dict[str, Any]] = []
            common = {"k": k, "query": "growing", "horizon": "all", "n_tasks": n_tasks}
            common |= {"n_excluded": tasks.n_tasks - n_tasks, **dict.fromkeys(_UNDEFINED, np.nan)}
            for name, model in models.items():
                adapted, later = adapt_to_rows(model, X, inputs, support, query)
                p = np.asarray(adapted.predict_proba(**later), np.float64)
                for metric, loss in class_losses(p, codes[query]):
                    losses[name, metric] = _mean_of_tasks(loss, scored)
                    at_k.append({"method": name, "metric": metric, **common})
                if len(classes) == 2:
                    value = risk_score("auroc", codes[query], p[:, 1])
                    at_k.append({"method": name, "metric": "auroc", "value": value, **common})
            counts = bootstrap_counts(n_tasks, n_bootstrap, random_state)
            samples = {key: loss.resampled(counts) for key, loss in losses.items()}
            for row in at_k:
                key, other = (row["method"], row["metric"]), (reference, row["metric"])
                if key in losses:
                    row["value"] = losses[key].value()
                    row["low"], row["high"] = percentile_limits(samples[key], confidence_level)
                if key in losses and other in losses:
                    row["difference"] = losses[key].value() - losses[other].value()
                    ends = percentile_limits(samples[key] - samples[other], confidence_level)
                    row["difference_low"], row["difference_high"] = ends
            rows += at_k
    return pd.DataFrame(rows)


def class_losses(p: Array, codes: NDArray[np.int64]) -> Iterator[tuple[str, Array]]:
    """Log loss and Brier score of every row, from probabilities (row, class)."""
    chosen = p[np.arange(len(codes)), codes]
    yield "log_loss", -np.log(np.maximum(chosen, np.finfo(np.float64).tiny))
    hit = np.eye(p.shape[1])[codes]
    squared = ((p - hit) ** 2).sum(axis=1)
    yield "brier", squared / 2 if p.shape[1] == 2 else squared


def _mean_of_tasks(loss: Array, tasks: NDArray[np.int64]) -> TaskMean:
    counts = np.bincount(tasks)
    means = np.bincount(tasks, loss)[counts > 0] / counts[counts > 0]
    return TaskMean(means, np.ones(len(means)), root=False)
