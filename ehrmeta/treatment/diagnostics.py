"""Diagnostics of an effect: overlap, balance and sensitivity to unmeasured confounding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ehrmeta.treatment.arms import Array, Mask
from ehrmeta.treatment.learners import arm_scores, gains, share_of_pair
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.treated_rows import TreatedRows

_BINS = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Overlap, balance and sensitivity of a contrast; see `AdaptedResponse.diagnostics`.

    Parameters
    ----------
    arms : (label, label)
        The two arms compared.
    overlap : DataFrame
        Number of rows in each of the two arms, by bin of the second arm's propensity.
    outside : float
        Share of rows in which one of the two arms has a propensity below 0.05.
    clipped : float
        Share of rows with a propensity below the model's clip.
    balance : DataFrame
        Standardised mean difference of each feature between the arms, `before` and `after`
        inverse-propensity weighting.
    effect, se : float
        Average effect in these rows (AIPW), and its standard error.
    e_value, e_value_limit : float
        Smallest risk ratio that an unmeasured confounder would need with both treatment and
        outcome to explain away the effect, and to explain away its 95 % limit.
    robustness_value : float
        Partial R² that an unmeasured confounder would need with both treatment and outcome to
        explain away the effect.
    """

    arms: tuple[Any, Any]
    overlap: pd.DataFrame
    outside: float
    clipped: float
    balance: pd.DataFrame
    effect: float
    se: float
    e_value: float
    e_value_limit: float
    robustness_value: float

    def __str__(self) -> str:
        worst = self.balance.abs().max()
        return (
            f"overlap: propensity below 0.05 in {self.outside:.1%} of rows, clipped in "
            f"{self.clipped:.1%}\n"
            f"balance: largest standardised difference {worst.before:.2f} before weighting, "
            f"{worst.after:.2f} after\n"
            f"effect {self.effect:.3g} (se {self.se:.2g}); E-value {self.e_value:.2f} "
            f"({self.e_value_limit:.2f} for the 95 % limit); robustness value "
            f"{self.robustness_value:.1%}"
        )


def diagnose(
    cases: TreatedRows,
    nuisances: TaskNuisances,
    pair: tuple[int, int],
    *,
    names: tuple[str, ...],
    labels: tuple[Any, Any],
) -> Diagnostics:
    """Diagnostics of the contrast of two arms, from the rows of these arms."""
    rows = np.flatnonzero(np.isin(cases.arm, pair))
    zero, one = pair
    e, treated, x = nuisances.e[rows], cases.arm[rows] == one, cases.x[rows]
    p = share_of_pair(e, pair)
    weight = 1.0 / np.where(treated, e[:, one], e[:, zero])
    arms = {"zero": ~treated, "one": treated}
    counts = {name: np.histogram(p[given], _BINS)[0] for name, given in arms.items()}
    bins = pd.IntervalIndex.from_breaks(_BINS.round(2), name="propensity")
    psi = gains(cases, nuisances, pair)
    effect, se = float(psi.mean()), float(psi.std(ddof=1) / np.sqrt(len(psi)))
    if cases.is_binary:
        base = float(np.clip(arm_scores(cases, nuisances)[:, zero].mean(), 1e-3, 1.0))
        ratio, limit = ((base + shift) / base for shift in (effect, _limit(effect, se)))
    else:
        sd = float(np.std(cases.y - cases.of_arm(nuisances.mu), ddof=1))
        ratio, limit = (float(np.exp(0.91 * s / sd)) for s in (effect, _limit(effect, se)))
    return Diagnostics(
        labels,
        pd.DataFrame(counts, index=bins),
        float((np.minimum(p, 1 - p) < 0.05).mean()),
        float(nuisances.clipped[rows].mean()),
        pd.DataFrame(
            {
                "before": _differences(x, treated, np.ones(len(rows))),
                "after": _differences(x, treated, weight),
            },
            index=pd.Index(names, name="feature"),
        ),
        effect,
        se,
        e_value(ratio),
        e_value(limit),
        robustness_value(effect / se, len(rows) - x.shape[1] - 2),
    )


def e_value(risk_ratio: float) -> float:
    r"""E-value :math:`R + \sqrt{R(R-1)}` of a risk ratio R.

    The smallest risk ratio that a confounder would need with both treatment and outcome to explain
    R away. A standardised mean difference d is converted by :math:`R = e^{0.91 d}`.

    References
    ----------
    VanderWeele and Ding (2017), doi:10.7326/M16-2607.

    Examples
    --------
    >>> round(e_value(3.9), 2), e_value(1.0), e_value(0.5) == e_value(2.0)
    (7.26, 1.0, True)
    """
    if risk_ratio <= 0:
        return float("inf")
    ratio = max(risk_ratio, 1.0 / risk_ratio)
    return float(ratio + np.sqrt(ratio * (ratio - 1.0)))


def robustness_value(t: float, dof: int) -> float:
    r"""Partial R² that a confounder needs with treatment and outcome to explain away an estimate.

    .. math:: RV = \tfrac{1}{2} (\sqrt{f^4 + 4 f^2} - f^2), \qquad f = |t| / \sqrt{\nu}

    References
    ----------
    Cinelli and Hazlett (2020), doi:10.1111/rssb.12348.

    Examples
    --------
    >>> round(robustness_value(4.18, 783), 3)
    0.139
    """
    f2 = t**2 / max(dof, 1)
    return float(0.5 * (np.sqrt(f2**2 + 4 * f2) - f2))


def _limit(effect: float, se: float) -> float:
    """The 95 % limit nearer to 0; 0 if the interval contains 0."""
    return float(np.sign(effect) * max(abs(effect) - 1.96 * se, 0.0))


def _differences(x: Array, treated: Mask, weight: Array) -> Array:
    """Standardised mean difference of each feature, (feature,); 0 for a constant feature."""
    means = [np.average(x[of], axis=0, weights=weight[of]) for of in (~treated, treated)]
    pooled = np.sqrt(0.5 * (x[treated].var(0, ddof=1) + x[~treated].var(0, ddof=1)))
    return np.asarray((means[1] - means[0]) / np.where(pooled > 0, pooled, 1.0))
