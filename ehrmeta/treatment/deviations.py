r"""How the effects of a task deviate from the population's: a linear mixed model of what is left.

.. math:: y - m(x) - \sum_a (1\{t=a\} - e_a(x)) \tau_a(x)
          = z' l_{task} + \sum_a 1\{t=a\} z' b_{a,task} + \varepsilon, \quad z = [1, x]

The level l of the task's outcome and the deviations b of its effects are learned together, so
that what a few rows leave open about the level stays open in the effect. Variances are estimated
over the training tasks; effects vary by no more than Akaike's criterion allows, so that where tasks
do not differ every task has the population's effect.
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
_MANY_FEATURES = 12  # more than these slopes only share a variance


@dataclass(frozen=True, eq=False)
class TaskDeviations:
    """Posterior of every task's deviations."""

    # mean, cov (task, effect), (task, effect, effect): of b, arm by arm, and then l
    mean: Array
    cov: Array
    gain: Array  # (task, effect, coefficient): how they fall as the population's coefficients rise


@dataclass(frozen=True, eq=False)
class Deviations:
    """A fitted model of the deviations."""

    # {"none", "level", "common slopes", "slopes"}: how effects differ over tasks: not at all, by a
    # constant, and by slopes too, of one or of each feature's own variance
    variation: Variation
    # of effects, arm by arm, and then levels; None where there was one task
    model: MixedModel | None
    noise: Array  # (arm,) or (1,): variance of the outcome in each arm
    n_effects: int  # arms without the control; 1 for a dose
    width: int = 1  # columns of z

    @property
    def prior_cov(self) -> Array:
        """Prior covariance of the deviations b, arm by arm."""
        q = self.n_effects * self.width
        if self.model is None or self.variation == "none":
            return np.zeros((q, q))
        return self.model.G[:q, :q]

    def design(self, x: Array, factors: Array, *, level: bool = False) -> Array:
        """Columns of b and l in ``sum_a factor_a z'b_a`` (+ the level), (row, effect).

        Parameters
        ----------
        factors : (arm - 1,) or (row, arm - 1)
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
        """Posterior of the tasks' deviations given their rows; the prior without rows.

        Parameters
        ----------
        given : (row, arm - 1)
            Whether each arm was given, or the dose; tasks where it is 0 throughout keep the prior
            of their effects, and learn their level.
        residual : (row,)
            Left side of the model.
        sensitivity : (row, coefficient)
            How much it falls as the population's coefficients rise.
        """
        n_tasks = cases.n_tasks
        if self.model is None:
            gain = np.zeros((n_tasks, 0, sensitivity.shape[1]))
            return TaskDeviations(np.zeros((n_tasks, 0)), np.zeros((n_tasks, 0, 0)), gain)
        order, starts, root = _sorted(cases, self.noise)
        z = root * self.design(cases.x, given, level=True)[order]
        mean, cov = posterior(self.model, root, z, root[:, 0] * residual[order], starts)
        gain = cov @ cross_products(z, root * sensitivity[order], starts) / self.model.noise_var
        silent = np.ones(n_tasks, bool)
        silent[cases.task[(given != 0).any(axis=1)]] = False
        q = len(self.prior_cov) if self.variation != "none" else 0
        mean[silent, :q], gain[silent, :q] = 0.0, 0.0
        cov[silent, :q], cov[silent, :, :q] = 0.0, 0.0
        cov[silent, :q, :q] = self.prior_cov[:q, :q]
        return TaskDeviations(mean, cov, gain)


def fit_deviations(cases: TreatedRows, given: Array, residual: Array, noise: Array) -> Deviations:
    """Estimate the variances over the training tasks.

    Parameters
    ----------
    given : (row, arm - 1)
        Whether each arm was given, 0 in tasks that say nothing of their own effect; or the dose.
    residual : (row,)
    noise : (arm,)
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
    """Structure of L: constants of effects and level go together, slopes are independent."""
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
    """Order by task, offsets of the tasks, and square roots of the weights in that order."""
    order, starts = cases.by_task
    of_row = noise[cases.arm] if len(noise) > 1 else np.full(cases.n_rows, noise[0])
    return order, starts, (1.0 / np.sqrt(of_row[order]))[:, None]
