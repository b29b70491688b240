"""Unshrunk estimates from doubly robust scores: effects, policies, rankings, diagnostics.

Effects of tasks are pooled by a random-effects model: mean, heterogeneity, prediction interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from ehrmeta.errors import DataError
from ehrmeta.ranges import check_level
from ehrmeta.treatment import policy as policies
from ehrmeta.treatment.arms import AnyArray, Array, Index
from ehrmeta.treatment.diagnostics import Diagnostics, diagnose
from ehrmeta.treatment.effect_model import EffectModel, TaskEffects
from ehrmeta.treatment.learners import PseudoOutcomes, Scoring, arm_scores, gains, usable_rows
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.treated_rows import TreatedRows


@dataclass(frozen=True)
class PooledEffect:
    """Mean effect over tasks; see `pool_effects`.

    Parameters
    ----------
    effect, se : float
    interval : (low, high)
        Confidence interval for the mean over tasks.
    prediction_interval : (low, high)
        Interval for the effect in a new task; infinite with fewer than three tasks.
    tau : float
        Standard deviation of effects over tasks.
    n_tasks : int
    """

    effect: float
    se: float
    interval: tuple[float, float]
    prediction_interval: tuple[float, float]
    tau: float
    n_tasks: int

    def __str__(self) -> str:
        low, high = self.interval
        new = "in a new task {:.3g} to {:.3g}".format(*self.prediction_interval)
        return (
            f"effect {self.effect:.3g} ({low:.3g} to {high:.3g}), {new}; "
            f"sd over {self.n_tasks:,} tasks {self.tau:.2g}"
        )


def pool_effects(
    effect: ArrayLike, se: ArrayLike, *, confidence_level: float = 0.95
) -> PooledEffect:
    r"""Random-effects mean with the Paule-Mandel variance and the Hartung-Knapp interval.

    .. math:: \sum_j w_j (\hat\theta_j - \hat\theta)^2 = J - 1, \qquad w_j = 1 / (s_j^2 + \tau^2)

    Parameters
    ----------
    effect, se : (task,)
        Estimates and their standard errors.
    confidence_level : float, default 0.95

    References
    ----------
    Paule and Mandel (1982), doi:10.6028/jres.087.022; Knapp and Hartung (2003),
    doi:10.1002/sim.1482; Higgins, Thompson, Spiegelhalter (2009),
    doi:10.1111/j.1467-985X.2008.00552.x (prediction).

    Examples
    --------
    >>> pooled = pool_effects([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    >>> round(pooled.effect, 3), round(pooled.tau, 3)
    (2.0, 0.995)
    """
    theta, s = np.asarray(effect, dtype=np.float64), np.asarray(se, dtype=np.float64)
    n = len(theta)
    if n < 1 or theta.shape != s.shape or not (s > 0).all():
        raise DataError(
            f"pooling needs an effect and a positive standard error for each task, got shapes "
            f"{theta.shape} and {s.shape}. Remove tasks that lack either."
        )
    level = 0.5 + 0.5 * check_level(confidence_level)
    if n == 1:
        wide = float(stats.norm.ppf(level) * s[0])
        centre = float(theta[0])
        interval, everything = (centre - wide, centre + wide), (-np.inf, np.inf)
        return PooledEffect(centre, float(s[0]), interval, everything, 0.0, 1)
    tau2 = _paule_mandel(theta, s)
    weight = 1.0 / (s**2 + tau2)
    mean = float(np.average(theta, weights=weight))
    spread = np.sqrt(np.sum(weight * (theta - mean) ** 2) / (n - 1))
    se_mean = float(1.0 / np.sqrt(weight.sum()) * max(spread, 1.0))
    wide = float(stats.t.ppf(level, n - 1)) * se_mean
    beyond = (
        float(stats.t.ppf(level, n - 2) * np.hypot(se_mean, np.sqrt(tau2))) if n > 2 else np.inf
    )
    return PooledEffect(
        mean,
        se_mean,
        (mean - wide, mean + wide),
        (mean - beyond, mean + beyond),
        float(np.sqrt(tau2)),
        n,
    )


def mean_by_task(
    values: Array, task: Index, labels: AnyArray | None = None, confidence_level: float = 0.95
) -> pd.DataFrame:
    """Mean of the values in each task with three rows or more, with Student's t interval.

    Returns
    -------
    DataFrame
        By task label or number: `n` rows, `effect`, `se`, `low` and `high`.

    Examples
    --------
    >>> mean_by_task(np.array([1.0, 2.0, 3.0, 9.0]), np.array([0, 0, 0, 1])).effect.to_dict()
    {0: 2.0}
    """
    n = np.bincount(task)
    tasks = np.flatnonzero(n > 2)
    mean, square = (np.bincount(task, of)[tasks] / n[tasks] for of in (values, values**2))
    se = np.sqrt((square - mean**2) / (n[tasks] - 1))
    wide = stats.t.ppf(0.5 + 0.5 * check_level(confidence_level), n[tasks] - 1) * se
    columns = {"n": n[tasks], "effect": mean, "se": se, "low": mean - wide, "high": mean + wide}
    names = tasks if labels is None else labels[tasks]
    return pd.DataFrame(columns, index=pd.Index(names, name="task"))


def _paule_mandel(theta: Array, s: Array) -> float:
    """Variance over tasks; 0 if the standard errors alone explain how effects differ."""

    def excess(tau2: float) -> float:
        weight = 1.0 / (s**2 + tau2)
        mean = np.average(theta, weights=weight)
        return float(np.sum(weight * (theta - mean) ** 2)) - (len(theta) - 1)

    if excess(0.0) <= 0:
        return 0.0
    high = float(np.var(theta, ddof=1)) + 1e-12
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-12 * high))


class RowScores:
    """Mixin: estimates from the doubly robust scores of the adapted tasks' rows."""

    model: EffectModel
    support: TreatedRows
    state: TaskEffects
    is_training: bool  # whether these are the training rows
    labels_: AnyArray | None

    def task_effects(
        self, *, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> pd.DataFrame:
        """Average effect in each task from its rows alone (AIPW), with 95 % intervals by default.

        Returns
        -------
        DataFrame
            By task: `n` rows, `effect`, `se`, `low` and `high`. Tasks without rows of both arms,
            or with fewer than 3 rows, are omitted.
        """
        pair, arms = self.model.arms.codes_of(T0, T1), self.model.arms
        gain = self.gains(*pair)
        usable = usable_rows(self.support, pair, arms.n_arms)
        task = self.support.task[usable]
        return mean_by_task(gain[usable], task, self.labels_, confidence_level)

    def pooled_effect(
        self, *, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> PooledEffect:
        """Random-effects mean of `task_effects`, with intervals for it and for a new task.

        The intervals are 95 % by default.
        """
        by_task = self.task_effects(T0=T0, T1=T1)
        if by_task.empty:
            raise DataError(
                "no task has rows of both arms and at least 3 rows, so there is no effect to pool. "
                "Add rows."
            )
        return pool_effects(by_task.effect, by_task.se, confidence_level=confidence_level)

    def policy_value(
        self, policy: Any, *, method: str = "dr", confidence_level: float = 0.95
    ) -> policies.PolicyValue:
        """Mean outcome of the support rows if all followed a policy.

        Parameters
        ----------
        policy : array, (row,), or label
            Arm of every support row, or one for all. The value is optimistic if the policy was
            learned from these rows.
        method : {"dr", "ipw"}
        confidence_level : float, default 0.95
        """
        scores, nuisances, support = self.arm_scores(), self._arm_nuisances(), self.support
        labels = np.full(support.n_rows, policy) if np.ndim(policy) == 0 else policy
        codes = self.model.arms.codes(labels)
        if len(codes) != support.n_rows:
            raise DataError(
                f"policy has {len(codes):,} rows, the support has {support.n_rows:,}. Pass one arm "
                "per support row."
            )
        rows = scores, support.y, support.arm, nuisances.e, nuisances.clipped, codes
        return policies.policy_value(*rows, method=method, confidence_level=confidence_level)

    def policy_tree(
        self,
        *,
        higher_is_better: bool,
        costs: Mapping[Any, float] | None = None,
        max_depth: int = 2,
        min_rows: int = 20,
    ) -> policies.PolicyTree:
        """Shallow decision tree of the best arm, fitted to the doubly robust scores.

        Parameters
        ----------
        higher_is_better : bool
        costs : mapping of arm to float, optional
            In the unit of the outcome.
        max_depth : int
            Largest depth of the tree.
        min_rows : int
            Smallest number of rows in a leaf.
        """
        scores, arms = self.arm_scores(), self.model.arms
        gain = (scores if higher_is_better else -scores) - arms.costs(costs)
        names = self.model.encoder.features.fixed_names
        return policies.fit_policy_tree(
            self.support.x, gain, arms.labels, names, max_depth=max_depth, min_rows=min_rows
        )

    def rate(
        self,
        *,
        kind: str = "autoc",
        T0: Any = None,
        T1: Any = None,
        confidence_level: float = 0.95,
        n_bootstrap: int = 200,
    ) -> policies.Ranking:
        """How well the population's effect ranks these rows by their gain (AUTOC or Qini).

        The interval is 95 % by default.

        Raises
        ------
        DataError
            These are the training rows.
        """
        ranked = self._ranked(T0, T1) | {"kind": kind, "n_bootstrap": n_bootstrap}
        return policies.rate(**ranked, confidence_level=confidence_level)

    def effects_by_rank(
        self, *, n_groups: int = 5, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> pd.DataFrame:
        """Average effect by quantile group of the predicted effect, from these rows' scores.

        If the model ranks rows correctly, the estimated effect rises from group to group. Intervals
        are 95 % by default.

        Returns
        -------
        DataFrame
            By group, from the lowest predictions: `n` rows, `predicted` and estimated `effect`,
            `se` (clustered by task where there are ten or more), `low` and `high`. Tied
            predictions give fewer groups.

        Raises
        ------
        DataError
            These are the training rows.

        References
        ----------
        Chernozhukov, Demirer, Duflo, Fernandez-Val (2018), arXiv:1712.04802.
        """
        ranked = self._ranked(T0, T1)
        return policies.effects_by_rank(
            **ranked, n_groups=n_groups, confidence_level=confidence_level
        )

    def diagnostics(self, *, T0: Any = None, T1: Any = None) -> Diagnostics:
        """Overlap, balance, and the strength of confounding that would explain away the effect."""
        nuisances, arms = self._arm_nuisances(), self.model.arms
        zero, one = arms.codes_of(T0, T1)
        return diagnose(
            self.support,
            nuisances,
            (zero, one),
            names=self.model.encoder.features.fixed_names,
            labels=(arms.labels[zero], arms.labels[one]),
        )

    def arm_scores(self) -> Array:
        """Doubly robust scores of every arm, (row, arm).

        A row's nuisances are estimated from other tasks and from the other rows of its task.
        """
        return arm_scores(self.support, self._arm_nuisances())

    def gains(self, zero: int, one: int) -> Array:
        """Score of arm number `one` minus that of `zero`, (row,)."""
        return gains(self.support, self._arm_nuisances(), (zero, one))

    def pseudo_outcomes(self, learner: str, zero: int, one: int) -> PseudoOutcomes:
        """The rows' pseudo-outcomes for the effect of arm number `one` over `zero`."""
        nuisances = self._arm_nuisances()
        scoring = Scoring(learner, self.model.nuisances.noise)
        return scoring.pair(self.support, nuisances, (zero, one))

    def _ranked(self, T0: Any, T1: Any) -> dict[str, Any]:
        """For each row: predicted effect in the population, doubly robust score, and task."""
        nuisances, arms = self._arm_nuisances(), self.model.arms
        if self.is_training:
            raise DataError(
                "the model was trained on these rows, so its ranking of them is optimistic. Adapt "
                "to rows of other tasks and rank those."
            )
        zero, one = arms.codes_of(T0, T1)
        rows, vectors = self.support.in_one_task(), arms.vectors
        effect, _ = self.model.contrast(rows, self.model.population, vectors[zero], vectors[one])
        gain = gains(self.support, nuisances, (zero, one))
        return {"effect": effect, "scores": gain, "task": self.support.task}

    def _arm_nuisances(self) -> TaskNuisances:
        """Nuisances of the rows; raises `DataError` for a dose or without rows."""
        nuisances = self.state.nuisances
        if not isinstance(nuisances, TaskNuisances):
            raise DataError(
                "this method compares arms, but the treatment is a dose. Bin the dose into arms "
                "first."
            )
        if self.support.n_rows == 0:
            raise DataError("there are no rows to score. Adapt to rows first.")
        return nuisances
