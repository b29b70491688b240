r"""Meta-learners: pseudo-outcomes whose regression on x is the effect of one arm over another.

With outcome models :math:`\mu_a(x)`, propensities :math:`e_a(x)` and t the arm given:

DR: :math:`\psi = \Gamma_1 - \Gamma_0` with :math:`\Gamma_a = \mu_a + 1\{t=a\}(y-\mu_a)/e_a`, of
variance :math:`\sigma_1^2/e_1 + \sigma_0^2/e_0`.
R: :math:`\psi = (y - m) / (1\{t=1\} - e)` with :math:`m = e\mu_1 + (1-e)\mu_0`, of variance
:math:`\sigma_t^2 / (1\{t=1\} - e)^2`.
X: :math:`\psi = y - \mu_0` where treated and :math:`\mu_1 - y` where not, with the weights
:math:`1 - e` and :math:`e`.

R and X use the rows of the two arms only, with :math:`e = e_1 / (e_0 + e_1)`. The S- and T-learners
have no pseudo-outcomes: their effect is :math:`\mu_1 - \mu_0`.

The X-learner can also regress the imputed effects of each arm separately,
:math:`\tau(x) = e(x)\, \tau_0(x) + (1 - e(x))\, \tau_1(x)`. If few rows are treated,
:math:`\tau_1` has most of the weight, because its imputed effects use the outcome model of the many
controls.

References
----------
Kuenzel et al. (2019), doi:10.1073/pnas.1804597116 (S, T, X); Nie and Wager (2021),
doi:10.1093/biomet/asaa076 (R); Kennedy (2023), doi:10.1214/23-EJS2157 (DR).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_regressor
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Array, Index, Mask
from ehrmeta.treatment.cross_fitting import CrossFitted, Stack, cross_fit, fit_model, model_outputs
from ehrmeta.treatment.nuisances import (
    Nuisances,
    TaskDoseNuisances,
    TaskNuisances,
    rows_of_varied_dose,
)
from ehrmeta.treatment.treated_rows import TreatedRows

_SMALLEST_RESIDUAL = 1e-3  # of a dose, in its standard deviations; other rows are dropped
_PSEUDO_LEARNERS = ("dr", "r", "x")
LEARNERS = ("s", "t", *_PSEUDO_LEARNERS)


class PseudoOutcomes(NamedTuple):
    """Pseudo-outcomes of some rows."""

    rows: Index  # (n,): row numbers
    psi: Array  # (n,)
    variance: Array  # (n,): given x (for R and X also the arm); its inverse is the weight


@dataclass(frozen=True, eq=False)
class Scoring:
    """A learner's pseudo-outcomes of rows, one set per non-control arm."""

    learner: str  # {"dr", "r", "x"}
    noise: Array  # (arm,), or (1,) for a dose: variance of the outcome

    def __call__(
        self, cases: TreatedRows, nuisances: TaskNuisances | TaskDoseNuisances
    ) -> list[PseudoOutcomes]:
        """Pseudo-outcomes for the effect of each non-control arm, or of one unit of dose."""
        if isinstance(nuisances, TaskDoseNuisances):
            return [_dose_pseudo_outcomes(cases, nuisances, self.noise)]
        return [self.pair(cases, nuisances, (0, arm)) for arm in range(1, len(self.noise))]

    def pair(
        self, cases: TreatedRows, nuisances: TaskNuisances, pair: tuple[int, int]
    ) -> PseudoOutcomes:
        """Pseudo-outcomes for the effect of the second arm of a pair over the first.

        Rows of tasks without both arms have none.
        """
        zero, one = pair
        e, usable = nuisances.e, usable_rows(cases, pair, len(self.noise))
        if self.learner == "dr":
            rows = np.flatnonzero(usable)
            variance = self.noise[one] / e[:, one] + self.noise[zero] / e[:, zero]
            return PseudoOutcomes(rows, gains(cases, nuisances, pair)[rows], variance[rows])
        rows = np.flatnonzero(usable & ((cases.arm == zero) | (cases.arm == one)))
        y, treated = cases.y[rows], cases.arm[rows] == one
        mu0, mu1 = nuisances.mu[rows, zero], nuisances.mu[rows, one]
        p = share_of_pair(e[rows], pair)
        noise_of_row = np.where(treated, self.noise[one], self.noise[zero])
        if self.learner == "x":
            psi = np.where(treated, y - mu0, mu1 - y)
            return PseudoOutcomes(rows, psi, noise_of_row / np.where(treated, 1 - p, p))
        residual = treated - p
        psi = (y - p * mu1 - (1 - p) * mu0) / residual
        return PseudoOutcomes(rows, psi, noise_of_row / residual**2)


def arm_scores(cases: TreatedRows, nuisances: TaskNuisances) -> Array:
    """Doubly robust scores, (row, arm). Their mean over rows estimates the arm's mean outcome."""
    given, scores = (np.arange(cases.n_rows), cases.arm), nuisances.mu.copy()
    scores[given] += (cases.y - nuisances.mu[given]) / nuisances.e[given]
    return scores


def gains(cases: TreatedRows, nuisances: TaskNuisances, pair: tuple[int, int]) -> Array:
    """Doubly robust score of the second arm of a pair minus that of the first, (row,)."""
    zero, one = pair
    scores = arm_scores(cases, nuisances)
    return np.asarray(scores[:, one] - scores[:, zero])


def usable_rows(cases: TreatedRows, pair: tuple[int, int], n_arms: int) -> Mask:
    """Rows of tasks with rows of both arms."""
    has_both = np.asarray((cases.counts(n_arms)[:, list(pair)] > 0).all(axis=1))
    return np.asarray(has_both[cases.task])


def _dose_pseudo_outcomes(
    cases: TreatedRows, nuisances: TaskDoseNuisances, noise: Array
) -> PseudoOutcomes:
    """The R-learner's pseudo-outcomes for the effect of one unit of dose."""
    residual = cases.arm - nuisances.dose
    large = np.abs(residual) > _SMALLEST_RESIDUAL * np.std(cases.arm)
    rows = np.flatnonzero(large & rows_of_varied_dose(cases))
    residual = residual[rows]
    return PseudoOutcomes(rows, (cases.y - nuisances.m)[rows] / residual, noise[0] / residual**2)


@dataclass(frozen=True, eq=False)
class CrossedEffect(CrossFitted):
    """The X-learner's two regressions of an arm's effect, weighted by propensity."""

    # zero, one: regressions of the effects imputed in the control's rows and in the arm's rows
    zero: Stack
    one: Stack
    nuisances: Nuisances
    arm: int

    def by_fold(self, x: Array) -> Array:
        """Predictions of each fold's models, (fold, row)."""
        p = share_of_pair(self.nuisances.propensities(x), (0, self.arm))
        return np.asarray(p * self.zero.by_fold(x) + (1 - p) * self.one.by_fold(x))


def fit_crossed(
    cases: TreatedRows,
    nuisances: Nuisances,
    adapted: TaskNuisances,
    fold: Index,
    random_state: int,
    arm: int,
    model: Any,
) -> tuple[CrossedEffect, Array]:
    """Cross-fit the X-learner's two regressions of an arm's effect.

    A fold's values do not depend on the outcomes of its rows: neither the regressions nor the
    outcome models used for imputation are trained on them. A row's effect is imputed by the outcome
    model of the other arm, so the row is not in the training data of that model.

    Returns
    -------
    effect : CrossedEffect
    values : (row,)
        Out-of-fold values of the effect at all rows.
    """
    zero: list[tuple[Any]] = []
    one: list[tuple[Any]] = []
    values = np.empty(cases.n_rows)
    for k, mu in enumerate(nuisances.by_fold(cases.x)):
        imputed = nuisances.in_tasks(mu, adapted.e, cases)
        rows, psi, _ = Scoring("x", nuisances.noise).pair(cases, imputed, (0, arm))
        for side, models in ((0, zero), (arm, one)):
            train = (fold[rows] != k) & (cases.arm[rows] == side)
            x, target = cases.x[rows[train]], psi[train]
            models.append((fit_model(model, x, target, np.ones(len(x)), random_state),))
        inside = fold == k
        at_zero, at_one = (model_outputs(models[-1][0], cases.x[inside]) for models in (zero, one))
        p = share_of_pair(adapted.e[inside], (0, arm))
        values[inside] = p * at_zero + (1 - p) * at_one
    weight = np.ones(1)
    effect = CrossedEffect(Stack(tuple(zero), weight), Stack(tuple(one), weight), nuisances, arm)
    return effect, values


def share_of_pair(e: Array, pair: tuple[int, int]) -> Array:
    """Probability of the second arm of a pair, given that a row got one of the two, (row,)."""
    zero, one = pair
    return np.asarray(e[:, one] / (e[:, zero] + e[:, one]))


Crossed = Callable[[int, Any], tuple[CrossedEffect, Array]]  # `fit_crossed` of an arm and a model


class EffectForm(NamedTuple):
    """Chosen form of one arm's effect."""

    name: str
    stack: Stack | CrossedEffect | None  # None for constant and linear forms
    values: Array | None  # (row,): out-of-fold predictions of the stack
    scores: dict[str, float]  # R-score of every candidate form: 1 - loss / loss of a constant


def choose_forms(
    x: Array,
    pseudo: Sequence[PseudoOutcomes],
    r_pseudo: Sequence[PseudoOutcomes],
    task: Index,
    fold: Index,
    *,
    final: Any = "auto",
    crossed: Crossed | None = None,
    random_state: int = 0,
) -> list[EffectForm]:
    """Cross-fit the candidate forms of the effect, and choose one by the out-of-fold R-loss.

    It chooses the simplest form whose loss is within one standard error of the smallest. The
    standard error is over tasks or, with a single task, over rows. All arms get the same form, so
    that they can be compared with each other.

    Parameters
    ----------
    pseudo : sequence of PseudoOutcomes
        For each arm, the pseudo-outcomes to fit.
    r_pseudo : sequence of PseudoOutcomes
        For each arm, those of the R-learner, for the R-loss.
    final : {"auto", "constant", "linear", "crossed boosting", "boosting"} or regressor
    crossed : callable, optional
        Fits the X-learner's two regressions of an arm with a model; None for a dose.
    """
    if isinstance(final, str) and final == "auto" and not np.ptp(x, axis=0).any():
        final = "constant"  # no feature that the effect could depend on
    models = _models(final, crossed is not None)
    without = [arm for arm, scored in enumerate(pseudo, start=1) if not len(scored.rows)]
    if without:
        raise DataError(
            f"no task has rows of both the control and arm {without[0]}, so no effect can be "
            "learned. Pass larger tasks in groups=, such as sites, or omit groups=."
        )
    fits = [
        _fits(models, x, scored, fold, crossed and partial(crossed, arm), random_state)
        for arm, scored in enumerate(pseudo, start=1)
    ]
    losses = [
        {
            name: (r.psi - values[r.rows]) ** 2 / r.variance for name, (_, values) in fit.items()
        }  # (y - m(x) - (t - e(x)) tau(x))^2 relative to the noise, (n,)
        for fit, r in zip(fits, r_pseudo, strict=True)
    ]
    chosen = next(iter(models))
    if isinstance(final, str) and final == "auto":
        scored_rows = np.concatenate([r.rows for r in r_pseudo])
        by_form = {name: np.concatenate([loss[name] for loss in losses]) for name in models}
        total = {name: np.bincount(scored_rows, loss, len(x)) for name, loss in by_form.items()}
        rows = np.unique(scored_rows)
        chosen = _simplest({name: loss[rows] for name, loss in total.items()}, task[rows])
    forms = []
    for fit, loss in zip(fits, losses, strict=True):
        stack, values = fit[chosen] if chosen not in ("constant", "linear") else (None, None)
        mean = {name: float(part.mean()) for name, part in loss.items()}
        constant = max(mean["constant"], np.finfo(float).tiny)  # 0 where outcomes are constant
        scores = {name: 1.0 - value / constant for name, value in mean.items()}
        forms.append(EffectForm(chosen, stack, values, scores))
    return forms


def _fits(
    models: dict[str, Any],
    x: Array,
    pseudo: PseudoOutcomes,
    fold: Index,
    crossed: Callable[[Any], tuple[CrossedEffect, Array]] | None,
    random_state: int,
) -> dict[str, tuple[Any, Array]]:
    """Candidate forms of one arm's effect, and their out-of-fold values, (row,)."""
    inside = np.zeros(len(x), bool)
    inside[pseudo.rows] = True
    psi, weight = np.zeros(len(x)), np.zeros(len(x))
    psi[pseudo.rows], weight[pseudo.rows] = pseudo.psi, 1.0 / pseudo.variance
    return {
        name: crossed(model)
        if name == "crossed boosting" and crossed is not None
        else cross_fit(
            [model], x, psi, fold, train=inside, weight=weight, random_state=random_state
        )
        for name, model in models.items()
    }


def _simplest(losses: dict[str, Array], task: Index) -> str:
    """The first name whose mean loss is within one standard error, over tasks, of the smallest.

    Examples
    --------
    >>> _simplest(
    ...     {"simple": np.array([1.0, 2.0, 3.0]), "other": np.array([1.0, 2.1, 2.7])}, np.arange(3)
    ... )
    'simple'
    """
    best = min(losses, key=lambda name: float(losses[name].mean()))
    for name, loss in losses.items():
        excess = loss - losses[best]
        counts = np.bincount(task)
        if np.count_nonzero(counts) > 1:
            excess = np.bincount(task, excess)[counts > 0] / counts[counts > 0].mean()
        if excess.mean() <= excess.std(ddof=1) / np.sqrt(len(excess)):
            return name
    return best


def _models(final: Any, arms: bool) -> dict[str, Any]:
    """Candidate forms, simplest first; a constant is always included as reference."""
    boosting = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=100, max_leaf_nodes=6, early_stopping=False
    )
    models: dict[str, Any] = {
        "constant": DummyRegressor(),
        "linear": LinearRegression(),
        "crossed boosting": boosting,
        "boosting": boosting,
    }
    if not arms:
        del models["crossed boosting"]
    if isinstance(final, str) and final == "auto":
        return models
    if isinstance(final, str) and final in models:
        return {final: models[final]} | {"constant": models["constant"]}
    if not isinstance(final, str) and is_regressor(final):
        return {type(final).__name__: final, "constant": models["constant"]}
    raise DataError(
        f"final must be 'auto', 'constant', 'linear', 'crossed boosting', 'boosting' or a "
        f"regressor, got {final!r}."
    )
