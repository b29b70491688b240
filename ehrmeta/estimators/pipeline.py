"""Adaptation behind a pipeline's transformers."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskEstimator
from ehrmeta.estimators.adapted import Adapted

__all__ = ["adapt"]


def adapt(pipeline: Pipeline, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Adapted:
    """Adapt the estimator at the end of a fitted pipeline.

    The support passes through the fitted transformers, which learn nothing from it, and so do the
    rows that the result predicts for.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted; its last step is a `MetaRegressor` or another task estimator, or a search of one's
        parameters.
    X, y, groups, time
        As in ``MetaRegressor.adapt``.

    Returns
    -------
    Adapted
        Takes rows as they were before the pipeline's transformers.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from ehrmeta import MAML, MetaRegressor, adapt, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> X = pd.DataFrame({"x": X[:, 0], "patient": groups})
    >>> model = MetaRegressor(MAML(inner_steps=1), task="patient", max_steps=20, random_state=0)
    >>> pipeline = make_pipeline(FunctionTransformer(), model).fit(X, y)
    >>> adapt(pipeline, X[10:15], y[10:15]).predict(X[15:20]).shape
    (5,)
    """
    model = getattr(pipeline[-1], "best_estimator_", pipeline[-1])
    if not isinstance(model, TaskEstimator):
        raise DataError(
            f"the pipeline ends in {type(model).__name__}, which cannot adapt. End it in a "
            "MetaRegressor, a MetaClassifier or a baseline of ehrmeta."
        )
    transform = pipeline[:-1].transform if len(pipeline) > 1 else None
    rows = X if transform is None else transform(X)
    adapted = model.adapt(rows, y, groups=groups, time=time)
    adapted.transform = transform
    return adapted
