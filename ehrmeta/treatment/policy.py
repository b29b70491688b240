"""What a policy is worth, and a small tree of one, from doubly robust scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.tree import DecisionTreeRegressor, export_text

from ehrmeta.errors import DataError

__all__ = ["PolicyTree", "PolicyValue", "fit_policy_tree", "policy_value"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PolicyValue:
    """Mean outcome if everyone were given what a policy says.

    Parameters
    ----------
    value, se : float
    interval : (low, high)
    n_eff : float
        Rows that the weights amount to (Kish).
    clipped_fraction : float
        Of the rows that were given what the policy says: those whose propensity was raised.
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


def policy_value(
    scores: Array,
    y: Array,
    given: Index,
    e: Array,
    clipped: npt.NDArray[np.bool_],
    policy: Index,
    *,
    method: str = "dr",
    confidence_level: float = 0.95,
) -> PolicyValue:
    r"""Value of a policy from rows that were treated otherwise.

    "dr" averages the doubly robust scores :math:`\Gamma_{i,\pi(x_i)}`; "ipw" averages outcomes of
    rows that were given what the policy says, weighted by :math:`1/e` and normalised.

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
    rows = np.arange(len(y))
    agree = given == policy
    if not agree.any():
        raise DataError(
            f"none of {len(y):,} rows was given what the policy says: the data say nothing of it."
        )
    weight = agree / e[rows, policy]
    if method == "dr":
        own = scores[rows, policy]
        value = float(own.mean())
        se = float(own.std(ddof=1) / np.sqrt(len(own)))
    elif method == "ipw":
        value = float(np.average(y, weights=weight))
        se = float(np.sqrt(np.sum((weight * (y - value)) ** 2)) / weight.sum())
    else:
        raise DataError(f"method must be 'dr' or 'ipw', got {method!r}.")
    wide = float(stats.norm.ppf(0.5 + 0.5 * confidence_level)) * se
    return PolicyValue(
        value,
        se,
        (value - wide, value + wide),
        float(weight.sum() ** 2 / np.sum(weight**2)),
        float(clipped[agree].mean()),
    )


@dataclass(frozen=True, eq=False)
class PolicyTree:
    """A tree that says which arm: made by ``AdaptedResponse.policy_tree``.

    Parameters
    ----------
    tree : DecisionTreeRegressor
        Predicts the mean score of every arm in a leaf.
    labels : (arm,)
    names : tuple of str
        Encoded features.
    """

    tree: DecisionTreeRegressor
    labels: npt.NDArray[Any]
    names: tuple[str, ...]

    def predict(self, x: Array) -> Index:
        """Number of the best arm of encoded rows, (row,)."""
        return np.asarray(self.tree.predict(x).argmax(1), dtype=np.int64)

    def __str__(self) -> str:
        """Rules, with the leaves' mean scores of the arms in their order."""
        arms = ", ".join(str(label) for label in self.labels)
        return f"gain of [{arms}]\n{export_text(self.tree, feature_names=list(self.names))}"


def fit_policy_tree(
    x: Array,
    gain: Array,
    labels: npt.NDArray[Any],
    names: tuple[str, ...],
    *,
    max_depth: int = 2,
    min_rows: int = 20,
) -> PolicyTree:
    """Split the rows so that arms with the best mean score differ between leaves.

    Parameters
    ----------
    gain : (row, arm)
        Doubly robust scores, larger is better, costs deducted.
    """
    tree = DecisionTreeRegressor(max_depth=max_depth, min_samples_leaf=min_rows, random_state=0)
    return PolicyTree(tree.fit(x, gain - gain.mean(1, keepdims=True)), labels, names)
