"""Start values where tasks are cohorts: random intercept and slopes in all features."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrmeta.errors import DataError
from ehrmeta.nn.class_likelihoods import ClassLikelihood
from ehrmeta.nn.generalised_mixed_model import fit_generalised_mixed_model
from ehrmeta.nn.likelihoods import Likelihood
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["fit_cohort_start"]

_FLOOR = 1e-10  # of a variance: keeps the root of a singular covariance
# Rates of the priors of sds between cohorts, in sds of a patient's outcome: 95 % of intercepts' sds
# below 1, of slopes' (a feature moved by its sd) below 1/2.
_INTERCEPT_RATE, _SLOPE_RATE = 3.0, 6.0


def fit_cohort_start(tasks: TaskRows, likelihood: Likelihood) -> dict[str, Any]:
    """Parameters of `DeepMixedEffects` by marginal likelihood over the cohorts, with weak priors.

    Above a population model the mean is ``alpha + gamma * offset``; without one it is linear in the
    features, by coefficients that share a prior of learned sd. (Both at once would be told apart by
    the folds of the cross-fitted offsets, which know less of a cohort the more it differs.)

    Raises
    ------
    DataError
        Tasks have time.
    """
    if tasks.timed:
        raise DataError(
            "feature_slopes=True is for cohorts, whose rows have no order. Leave time out (a date "
            "may be a feature), or use feature_slopes=False for tasks that are followed in time."
        )
    x, offset = tasks.x.double().numpy(), tasks.offset.double().numpy()
    one, mean_offset = np.ones((tasks.n_rows, 1)), float(offset.mean())
    away = (offset - mean_offset)[:, None]
    above = bool(away.any())  # a population model
    fixed, n_features = away if above else x, x.shape[1]
    intercept = np.arange(1 + n_features + above) == 0
    found = fit_generalised_mixed_model(
        np.hstack([one, fixed]),
        np.hstack([one, x, away] if above else [one, x]),
        tasks.y.double().numpy(),
        tasks.starts.numpy(),
        binary=isinstance(likelihood, ClassLikelihood),
        offset=offset,
        shrunk=None if above else np.minimum(np.arange(1 + n_features), 1) - 1,
        positive=intercept,
        rate=np.where(intercept, _INTERCEPT_RATE, _SLOPE_RATE),
    )
    covariance = np.zeros((2 + n_features, 2 + n_features))
    covariance[np.diag_indices(len(found.sd))] = found.sd**2
    unknown = [0, 1 + n_features] if above else list(range(1 + n_features))
    covariance[np.ix_(unknown, unknown)] += found.beta_cov
    change = found.beta[1] if above else 0.0
    start = {
        "intercept": found.beta[0] - change * mean_offset,
        "beta": np.zeros(n_features) if above else found.beta[1:],
        "root": np.zeros((2, 2)),
        "slope_root": np.linalg.cholesky(covariance + _FLOOR * np.eye(len(covariance))),
        "offset_gain": 1.0 + change,
        "mean_offset": mean_offset,
        "likelihood.log_between": np.log(found.sd[0]),
    }
    if found.noise_var is not None:
        start["likelihood.log_within"] = 0.5 * np.log(found.noise_var)
    return start
