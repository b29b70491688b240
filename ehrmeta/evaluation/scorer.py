"""Scoring by the k-shot protocol, for scikit-learn's searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ehrmeta.evaluation.k_shot import k_shot_curve

__all__ = ["KShotScorer"]


@dataclass(frozen=True)
class KShotScorer:
    """A scorer for ``scoring=``: minus the k-shot error, averaged over support sizes.

    Tasks and times come from the estimator's own `task` and `time` columns, or as `groups` and
    `time` through metadata routing.

    Parameters
    ----------
    shots : tuple of int
        Support sizes.
    metric : {"rmse_macro", "rmse_task", "rmse_pooled", "mae_macro"}
        The error.

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
        """Minus the mean error over `shots`."""
        read = estimator._read_fitted(X, y, groups, time)
        curve = k_shot_curve(
            {"": estimator},
            X,
            y,
            groups=read.groups,
            time=read.time,
            shots=self.shots,
            n_bootstrap=0,
        )
        return -float(curve.loc[curve.metric == self.metric, "value"].mean())
