r"""Deviations of tasks' effects from the population's: a linear mixed model of the residuals.

.. math:: y - m(x) - \sum_a (1\{t=a\} - e_a(x)) \tau_a(x)
          = z' l_{task} + \sum_a 1\{t=a\} z' b_{a,task} + \varepsilon, \quad z = [1, x]

The level l of the task's outcome and the deviations b of its effects are estimated jointly, so that
the uncertainty of the effect includes that of the level. Variances are estimated from the training
tasks, and Akaike's criterion selects how the effects vary. If tasks do not differ, every task has
the population's effect.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ehrmeta.nn.mixed_model import MixedModel, cross_products, fit_mixed_model, posterior
from ehrmeta.treatment.arms import Array, Index
from ehrmeta.treatment.treated_rows import TreatedRows

Variation = Literal["none", "level", "common slopes", "slopes"]

_VARIATIONS: tuple[Variation, ...] = ("none", "level", "common slopes", "slopes")
_UNFITTED = MixedModel(np.zeros(1), np.zeros((1, 1)), np.zeros((0, 0)), 1.0, -np.inf, 0)
_MANY_FEATURES = 12  # with more, slopes share one variance


@dataclass(frozen=True, eq=False)
class TaskDeviations:
    """Posterior of every task's deviations."""

    # mean, cov (task, effect), (task, effect, effect): of b by arm, then of l
    mean: Array
    cov: Array
    # (task, effect, coefficient): minus the derivative of `mean` with respect to the population's
    # coefficients
    gain: Array


@dataclass(frozen=True, eq=False)
class Deviations:
    """A fitted model of the deviations."""

    # how effects vary over tasks: not at all, by a constant, or by a constant and slopes, whose
    # variance is shared or one per feature
    variation: Variation
    model: MixedModel | None  # of effects by arm, then levels; None with one training task
    noise: Array  # (arm,) or (1,): variance of the outcome in each arm
    n_effects: int  # non-control arms; 1 for a dose
    width: int = 1  # columns of z

    @property
    def prior_cov(self) -> Array:
        """Prior covariance of the deviations b, by arm."""
        q = self.n_effects * self.width
        if self.model is None or self.variation == "none":
            return np.zeros((q, q))
        return self.model.G[:q, :q]

    def design(self, x: Array, factors: Array, *, level: bool = False) -> Array:
        """Design of ``sum_a factor_a z'b_a``, plus ``z'l`` if `level`, (row, effect).

        Factors are (n_arms - 1,) or (row, n_arms - 1).
        """
        if self.model is None:
            return np.zeros((len(x), 0))
        factors = np.broadcast_to(factors, (len(x), self.n_effects))
        levels = np.column_stack([np.ones(len(x)), x]) * float(level)
        if self.variation == "none":
            return levels
        z = _design(x, self.variation)
        return np.column_stack([*(factor[:, None] * z for factor in factors.T), levels])

    def adapt(
        self, cases: TreatedRows, given: Array, residual: Array, sensitivity: Array
    ) -> TaskDeviations:
        """Posterior of the tasks' deviations given their rows; without rows, the prior.

        Parameters
        ----------
        given : (row, arm - 1)
            Indicators of the non-control arms, or the dose. In a task where it is 0 in all rows,
            only the level is updated; the effects keep their prior.
        residual : (row,)
            Left-hand side of the model.
        sensitivity : (row, coefficient)
            Minus the derivative of `residual` with respect to the population's coefficients.
        """
        n_tasks = cases.n_tasks
        if self.model is None:
            gain = np.zeros((n_tasks, 0, sensitivity.shape[1]))
            return TaskDeviations(np.zeros((n_tasks, 0)), np.zeros((n_tasks, 0, 0)), gain)
        order, starts, root = _sorted(cases, self.noise)
        z = root * self.design(cases.x, given, level=True)[order]
        mean, cov = posterior(self.model, root, z, root[:, 0] * residual[order], starts)
        gain = cov @ cross_products(z, root * sensitivity[order], starts) / self.model.noise_var
        no_contrast = np.ones(n_tasks, bool)
        no_contrast[cases.task[(given != 0).any(axis=1)]] = False
        q = len(self.prior_cov) if self.variation != "none" else 0
        mean[no_contrast, :q], gain[no_contrast, :q] = 0.0, 0.0
        cov[no_contrast, :q], cov[no_contrast, :, :q] = 0.0, 0.0
        cov[no_contrast, :q, :q] = self.prior_cov[:q, :q]
        return TaskDeviations(mean, cov, gain)


def fit_deviations(cases: TreatedRows, given: Array, residual: Array, noise: Array) -> Deviations:
    """Estimate the variance components from the training tasks, and select how effects vary.

    Parameters
    ----------
    given : (row, arm - 1)
        Indicators of the non-control arms, or the dose; 0 in tasks without a contrast.
    residual, noise : (row,), (arm,)
        Left-hand side of the model, and variance of the outcome in each arm.
    """
    n_effects = given.shape[1]
    best = Deviations("none", None, noise, n_effects)
    if cases.n_tasks < 2:
        return best
    order, starts, root = _sorted(cases, noise)
    n_features = cases.x.shape[1]
    best_likelihood, n_before = -np.inf, 0
    for variation in _VARIATIONS[: 3 if n_features > _MANY_FEATURES else 4]:
        trial = Deviations(variation, _UNFITTED, noise, n_effects, _width(variation, n_features))
        z = root * trial.design(cases.x, given, level=True)[order]
        pattern = _pattern(variation, n_effects, n_features)
        model = fit_mixed_model(root, z, root[:, 0] * residual[order], starts, pattern=pattern)
        n_parameters = int(pattern.max()) + 1
        if model.log_likelihood - best_likelihood > n_parameters - n_before:
            best = replace(trial, model=model)
            best_likelihood, n_before = model.log_likelihood, n_parameters
    return best


def _design(x: Array, variation: Variation) -> Array:
    one = np.ones((len(x), 1))
    return one if variation in ("none", "level") else np.column_stack([one, x])


def _width(variation: Variation, n_features: int) -> int:
    return 1 if variation in ("none", "level") else 1 + n_features


def _pattern(variation: Variation, n_effects: int, n_features: int) -> Index:
    """Parameter number of each entry of the Cholesky factor of the prior covariance; -1 for 0.

    The constants of effects and level are correlated; the slopes are independent.
    """
    width = 0 if variation == "none" else _width(variation, n_features)
    q = n_effects * width
    size = q + 1 + n_features
    constants = [*range(0, q, width), q] if width else [q]
    pattern = np.full((size, size), -1)
    count = 0
    for row, i in enumerate(constants):
        for j in constants[: row + 1]:
            pattern[i, j] = count
            count += 1
    slopes = np.arange(q + 1, size)
    pattern[slopes, slopes] = count
    count += 1
    if width > 1:
        numbers = np.arange(n_features) if variation == "slopes" else np.zeros(n_features, int)
        for arm in range(n_effects):
            at = arm * width + 1 + np.arange(n_features)
            pattern[at, at] = count + numbers
    return pattern


def _sorted(cases: TreatedRows, noise: Array) -> tuple[Index, Index, Array]:
    """Row order by task, offsets of the tasks, and square roots of the weights in that order."""
    order, starts = cases.by_task
    of_row = noise[cases.arm] if len(noise) > 1 else np.full(cases.n_rows, noise[0])
    return order, starts, (1.0 / np.sqrt(of_row[order]))[:, None]
