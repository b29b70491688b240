r"""Policy values, policy trees, and rankings by effect (AUTOC, Qini), from doubly robust scores.

With rows sorted by estimated effect, largest first, and :math:`\Gamma` their doubly robust scores,
the targeting operator characteristic is

.. math:: TOC(q) = \frac{1}{qn} \sum_{i \le qn} \Gamma_i - \frac{1}{n} \sum_i \Gamma_i,

AUTOC is the integral of TOC(q), and Qini that of q TOC(q), over q. Both are 0 in expectation if the
ranking is no better than chance.

References
----------
Yadlowsky, Fleming, Shah, Brunskill, Wager (2025), doi:10.1080/01621459.2024.2393466.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.tree import DecisionTreeRegressor, export_text

from ehrmeta.errors import DataError
from ehrmeta.ranges import check_level
from ehrmeta.treatment.arms import AnyArray, Array, Index, Mask

_FEW_TASKS = 10  # with fewer, rows are the independent units rather than tasks


@dataclass(frozen=True)
class PolicyValue:
    """Mean outcome if all rows followed a policy.

    Parameters
    ----------
    value, se : float
    interval : (low, high)
    n_eff : float
        Effective sample size of the weights (Kish).
    clipped_fraction : float
        Share of clipped propensities among the rows that got the policy's arm.
    """

    value: float
    se: float
    interval: tuple[float, float]
    n_eff: float
    clipped_fraction: float

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"value {self.value:.3g} ({low:.3g} to {high:.3g}), se {self.se:.2g}; "
            f"{self.n_eff:.0f} effective rows, {self.clipped_fraction:.1%} clipped"
        )


def best_arms(gain: Array) -> tuple[Index, Index, Array]:
    """Best arm, second-best arm and the difference of their gains, (row,) each.

    `gain` is (row, arm); ties go to the first arm.

    Examples
    --------
    >>> best_arms(np.array([[0.0, 3.0, 1.0]]))
    (array([1]), array([2]), array([2.]))
    """
    rows = np.arange(len(gain))
    best, second = np.argsort(-gain, axis=1, kind="stable")[:, :2].T
    return best, second, gain[rows, best] - gain[rows, second]


def policy_value(
    scores: Array,
    y: Array,
    given: Index,
    e: Array,
    clipped: Mask,
    policy: Index,
    *,
    method: str = "dr",
    confidence_level: float = 0.95,
) -> PolicyValue:
    r"""Off-policy value of a policy.

    "dr" averages the doubly robust scores :math:`\Gamma_{i,\pi(x_i)}`; "ipw" averages the outcomes
    of the rows that got the policy's arm, with normalised weights :math:`1/e`.

    Parameters
    ----------
    scores, e : (row, arm)
        Doubly robust scores and propensities.
    y, given, policy : (row,)
        Outcome, arm given, and arm of the policy.
    clipped : (row,)
    method : {"dr", "ipw"}

    Examples
    --------
    >>> e = np.full((4, 2), 0.5)
    >>> y, given = np.array([1.0, 3.0, 0.0, 2.0]), np.array([1, 1, 0, 0])
    >>> none = np.zeros(4, bool)
    >>> value = policy_value(np.zeros((4, 2)), y, given, e, none, np.ones(4, int), method="ipw")
    >>> value.value, value.n_eff
    (2.0, 2.0)
    """
    rows, level = np.arange(len(y)), 0.5 + 0.5 * check_level(confidence_level)
    agree = given == policy
    if not agree.any():
        raise DataError(
            f"none of the {len(y):,} rows got the arm that the policy chooses, so its value cannot "
            "be estimated. Pass rows treated as the policy would."
        )
    weight = agree / e[rows, policy]
    if method == "dr":
        of_policy = scores[rows, policy]
        value = float(of_policy.mean())
        se = float(of_policy.std(ddof=1) / np.sqrt(len(of_policy)))
    elif method == "ipw":
        value = float(np.average(y, weights=weight))
        se = float(np.sqrt(np.sum((weight * (y - value)) ** 2)) / weight.sum())
    else:
        raise DataError(f"method must be 'dr' or 'ipw', got {method!r}.")
    wide = float(stats.norm.ppf(level)) * se
    return PolicyValue(
        value,
        se,
        (value - wide, value + wide),
        float(weight.sum() ** 2 / np.sum(weight**2)),
        float(clipped[agree].mean()),
    )


@dataclass(frozen=True, eq=False)
class PolicyTree:
    """Decision tree of the best arm; see ``AdaptedResponse.policy_tree``.

    Parameters
    ----------
    tree : DecisionTreeRegressor
        Predicts the mean score of every arm in a leaf.
    labels : (arm,)
    names : tuple of str
        Encoded features.
    """

    tree: DecisionTreeRegressor
    labels: AnyArray
    names: tuple[str, ...]

    def predict(self, x: Array) -> Index:
        """Arm number of the best arm for each encoded row, (row,)."""
        return np.asarray(self.tree.predict(x).argmax(1), dtype=np.int64)

    def __str__(self) -> str:
        """Rules, with the mean score of every arm in each leaf."""
        arms = ", ".join(str(label) for label in self.labels)
        return f"gain of [{arms}]\n{export_text(self.tree, feature_names=list(self.names))}"


def fit_policy_tree(
    x: Array,
    gain: Array,
    labels: AnyArray,
    names: tuple[str, ...],
    *,
    max_depth: int = 2,
    min_rows: int = 20,
) -> PolicyTree:
    """Fit a regression tree to `gain` (row, arm): scores net of costs, where larger is better."""
    tree = DecisionTreeRegressor(max_depth=max_depth, min_samples_leaf=min_rows, random_state=0)
    return PolicyTree(tree.fit(x, gain - gain.mean(1, keepdims=True)), labels, names)


class Ranking(NamedTuple):
    """Rank-weighted average effect, with a bootstrap interval."""

    value: float
    se: float
    low: float
    high: float


def rank_score(effect: Array, scores: Array, *, kind: str = "autoc") -> float:
    """AUTOC or Qini of an effect (row,), from the scores of the contrast (row,).

    Rows with equal effects get the mean of their scores, so a constant effect has a value of 0.

    Examples
    --------
    >>> rank_score(np.array([3.0, 2.0, 1.0]), np.array([2.0, 1.0, 0.0]))
    0.5
    >>> rank_score(np.ones(3), np.array([2.0, 1.0, 0.0]))
    0.0
    """
    if kind not in ("autoc", "qini"):
        raise DataError(f"kind must be 'autoc' or 'qini', got {kind!r}.")
    n = len(effect)
    _, place = np.unique(-effect, return_inverse=True)
    counts = np.bincount(place)
    shared = (np.bincount(place, scores) / counts)[place]
    ordered = shared[np.argsort(-effect, kind="stable")]
    toc = np.cumsum(ordered) / np.arange(1, n + 1) - scores.mean()
    share = np.arange(1, n + 1) / n
    return float(toc.mean() if kind == "autoc" else (share * toc).mean())


def rate(
    effect: Array,
    scores: Array,
    *,
    kind: str = "autoc",
    task: Index | None = None,
    confidence_level: float = 0.95,
    n_bootstrap: int = 200,
    random_state: int | None = 0,
) -> Ranking:
    """AUTOC or Qini with an interval from a half-sample bootstrap of tasks or rows.

    Parameters
    ----------
    effect, scores : (row,)
    kind : {"autoc", "qini"}
    task : (row,), optional
        With ten tasks or more, whole tasks are resampled; otherwise rows.
    """
    level, random = 0.5 + 0.5 * check_level(confidence_level), np.random.default_rng(random_state)
    n_tasks = 0 if task is None else len(np.unique(task))
    unit = (
        np.arange(len(effect))
        if task is None or n_tasks < _FEW_TASKS
        else np.unique(task, return_inverse=True)[1]
    )
    n_units = int(unit.max()) + 1
    value = rank_score(effect, scores, kind=kind)
    resampled = np.empty(n_bootstrap)
    for at in range(n_bootstrap):
        half = np.zeros(n_units, bool)
        half[random.permutation(n_units)[: n_units // 2]] = True
        rows = half[unit]
        resampled[at] = rank_score(effect[rows], scores[rows], kind=kind)
    se = float(resampled.std(ddof=1))
    wide = float(stats.norm.ppf(level)) * se
    return Ranking(value, se, value - wide, value + wide)


def effects_by_rank(
    effect: Array, scores: Array, *, task: Index, n_groups: int = 5, confidence_level: float = 0.95
) -> pd.DataFrame:
    """Mean score by quantile group of the effect; see `AdaptedResponse.effects_by_rank`.

    Examples
    --------
    >>> effect, scores = np.arange(6.0), np.array([0.0, 2.0, 1.0, 1.0, 2.0, 4.0])
    >>> groups = effects_by_rank(effect, scores, task=np.zeros(6, int), n_groups=2)
    >>> groups[["n", "predicted", "effect"]].to_numpy().round(2).tolist()
    [[3.0, 1.0, 1.0], [3.0, 4.0, 2.33]]
    """
    if not isinstance(n_groups, int | np.integer) or n_groups < 1 or len(effect) < 2 * n_groups:
        raise DataError(
            f"n_groups must be a whole number from 1 to half the number of rows, got {n_groups!r} "
            f"for {len(effect):,} rows."
        )
    level = 0.5 + 0.5 * check_level(confidence_level)
    cuts = np.unique(np.quantile(effect, np.arange(1, n_groups) / n_groups))
    group = np.unique(np.searchsorted(cuts, effect), return_inverse=True)[1]
    unit = task if len(np.unique(task)) >= _FEW_TASKS else np.arange(len(effect))
    rows = pd.DataFrame({"group": group + 1, "unit": unit, "predicted": effect, "effect": scores})
    by_group = rows.groupby("group")
    groups = by_group[["predicted", "effect"]].mean()
    groups.insert(0, "n", by_group.size())
    residuals = rows.assign(residual=rows["effect"] - by_group["effect"].transform("mean"))
    sums = residuals.groupby(["group", "unit"])["residual"].sum().groupby("group")
    n_units = sums.size()
    se = np.sqrt(sums.agg(lambda s: (s**2).sum()) * n_units / (n_units - 1)) / groups["n"]
    wide = stats.t.ppf(level, n_units - 1) * se
    return groups.assign(se=se, low=groups["effect"] - wide, high=groups["effect"] + wide)
