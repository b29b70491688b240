"""Start values of `DeepMixedEffects` from likelihood fits of mixed models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Episodes, Params
from ehrmeta.algorithms.deep_mixed_effects.course import (
    MOST_ROWS,
    MOST_TASKS,
    Curve,
    Design,
    Form,
    choose_form,
    elapsed_time,
    fit_course,
    standard_time,
)
from ehrmeta.errors import DataError
from ehrmeta.nn import Likelihood, TaskRows, TaskSet
from ehrmeta.nn.generalised_mixed_model import fit_generalised_mixed_model
from ehrmeta.nn.mixed_process import MixedProcess

Array = npt.NDArray[np.float64]
_MAX_DISTANCE = 4.0  # robust sds from the task's median
_FLOOR = 1e-10  # added to variances, so that a singular covariance has a Cholesky factor
# Rates of the exponential priors of the sds between cohorts, relative to the sd of one patient's
# outcome. 95 % of the prior is below 1 for intercepts, and below 1/2 for slopes (per feature sd).
_INTERCEPT_RATE, _SLOPE_RATE = 3.0, 6.0
_N_DRAWS = 20
_MIN_DETERMINED = 0.9  # share of the variance of the elapsed time that a feature must explain


@dataclass(frozen=True)
class MixedStart:
    """Estimates on the scale of the parameters of `DeepMixedEffects`."""

    intercept: float
    beta: Array  # (feature,)
    beta_elapsed: float
    root: Array  # (3, 3) Cholesky factor of G, of intercept, slope and multiple of the curve
    process_var: float
    tau: float
    noise_var: float
    log_unit: float
    time_scale: float
    mean_elapsed: float
    clock: Array  # intercept and slopes of the elapsed time by feature; 0 if unknown
    form: Form
    curve: Curve

    @property
    def has_process(self) -> bool:
        """Whether the Ornstein-Uhlenbeck process has a positive variance."""
        return self.process_var > 0.0

    def steadier(self, share: float) -> MixedStart:
        """Multiply the variances of slope and process by `share`.

        The intercept gains the variance that the process loses.
        """
        scale = np.sqrt([1.0, share, share])
        root = scale[:, None] * self.root
        root[0, 0] = np.sqrt(self.root[0, 0] ** 2 + (1.0 - share) * self.process_var)
        return replace(self, root=root, process_var=share * self.process_var)

    def params(self, n_features: int) -> dict[str, Any]:
        """Values by parameter name."""
        n_visible = n_features - len(self.beta)
        return {
            "intercept": self.intercept,
            "beta": np.pad(self.beta, (0, n_visible)),
            "beta_elapsed": self.beta_elapsed,
            "root": self.root[:2, :2],
            "root_curve": self.root[2],
            "knots": self.curve.knots,
            "curve": self.curve.coefficients,
            "log_ou": 0.5 * np.log(max(self.process_var, 1e-6 * self.noise_var)),
            "log_tau": np.log(self.tau),
            "log_unit": self.log_unit,
            "time_scale": self.time_scale,
            "mean_elapsed": self.mean_elapsed,
            "clock": np.pad(self.clock, (0, n_visible)),
            "likelihood.log_within": 0.5 * np.log(self.noise_var),
            "likelihood.log_between": 0.5 * np.log(max(self.root[0, 0] ** 2, 1e-6)),
        }


def fit_mixed_start(
    tasks: TaskRows,
    likelihood: Likelihood,
    *,
    random_slope: bool,
    process: bool,
    curves: bool = True,
    form: Form | None = None,
) -> MixedStart:
    """Fit random intercepts and slopes by REML, then add an Ornstein-Uhlenbeck process.

    For Student's t, outcomes are clipped before the fit. For classes, the fit is to working
    outcomes (the first Newton step of the log-odds) and gives the ratios of the variances. A
    logistic model with random intercepts gives their sum and the fixed effects. With fewer than 50
    tasks, the process is kept only if it improves held-out tasks; curves always. A known `form`
    omits these checks.
    """
    if form is None:
        some = tasks
        if tasks.n_tasks > MOST_TASKS:
            drawn = np.random.default_rng(0).permutation(tasks.n_tasks)[:MOST_TASKS]
            some = tasks.select(torch.from_numpy(np.sort(drawn)))
        form = choose_form(
            some,
            _working_outcome(some, likelihood),
            random_slope=random_slope,
            process=process and tasks.timed,
            curves=curves and tasks.timed and not likelihood.n_classes,
        )
    y = _working_outcome(tasks, likelihood)
    design = Design.of(tasks, y, random_slope=random_slope, log=form.log)
    course = fit_course(design, form)
    fit = course.fit
    if likelihood.n_classes:
        fit = _rescaled(fit, design.x, tasks)
    floor = 1e-10 * max(float(np.trace(fit.G)), 1e-6)  # for a singular G
    at = np.array([0, *[1] * (design.z.shape[1] - 1), *[2] * form.own])
    root = np.zeros((3, 3))
    root[np.ix_(at, at)] = np.linalg.cholesky(fit.G + floor * np.eye(len(fit.G)))
    beta = np.zeros(len(design.kept))
    beta[design.kept] = fit.beta
    return MixedStart(
        intercept=float(beta[0]),
        beta=beta[1:-1],
        beta_elapsed=float(beta[-1]),
        root=root,
        process_var=fit.process_var,
        tau=fit.tau,
        noise_var=fit.noise_var,
        log_unit=design.log_unit,
        time_scale=design.scale,
        mean_elapsed=design.mean,
        clock=_clock(tasks.x[:MOST_ROWS].double().numpy(), elapsed_time(tasks)[:MOST_ROWS].numpy()),
        form=form,
        curve=course.curve,
    )


def fit_cohort_start(tasks: TaskRows, likelihood: Likelihood) -> dict[str, Any]:
    """Fit a mixed model with random slopes of all features to cohorts, with weak priors.

    With a population model, the mean is ``alpha + gamma * offset``. Without one, it is linear in
    the features, and the coefficients share a normal prior with learned sd. The two means are not
    combined: cross-fitted offsets differ by fold, so their sum would not be identified.

    Raises
    ------
    DataError
        The tasks have time.
    """
    if tasks.timed:
        raise DataError(
            "feature_slopes=True is for sites or trials whose rows have no order in time. Leave "
            "time out (a date may be a feature), or use feature_slopes=False for tasks followed in "
            "time."
        )
    x, offset = tasks.x.double().numpy(), tasks.offset.double().numpy()
    one, mean_offset = np.ones((tasks.n_rows, 1)), float(offset.mean())
    centred = (offset - mean_offset)[:, None]
    above = bool(centred.any())  # whether there is a population model
    fixed, n_features = centred if above else x, x.shape[1]
    intercept = np.arange(1 + n_features + above) == 0
    fit = fit_generalised_mixed_model(
        np.hstack([one, fixed]),
        np.hstack([one, x, centred] if above else [one, x]),
        tasks.y.double().numpy(),
        tasks.starts.numpy(),
        binary=likelihood.n_classes == 2,
        offset=offset,
        shrunk=None if above else np.minimum(np.arange(1 + n_features), 1) - 1,
        positive=intercept,
        rate=np.where(intercept, _INTERCEPT_RATE, _SLOPE_RATE),
    )
    covariance = np.zeros((2 + n_features, 2 + n_features))
    covariance[np.diag_indices(len(fit.sd))] = fit.sd**2
    unknown = [0, 1 + n_features] if above else list(range(1 + n_features))
    covariance[np.ix_(unknown, unknown)] += fit.beta_cov
    change = fit.beta[1] if above else 0.0
    start = {
        "intercept": fit.beta[0] - change * mean_offset,
        "beta": np.zeros(n_features) if above else fit.beta[1:],
        "root": np.zeros((2, 2)),
        "slope_root": np.linalg.cholesky(covariance + _FLOOR * np.eye(len(covariance))),
        "offset_gain": 1.0 + change,
        "mean_offset": mean_offset,
        "likelihood.log_between": np.log(fit.sd[0]),
    }
    if fit.noise_var is not None:
        start["likelihood.log_within"] = 0.5 * np.log(fit.noise_var)
    return start


def simulated_starts(
    tasks: TaskRows, likelihood: Likelihood, estimate: MixedStart, *, random_slope: bool
) -> Iterator[MixedStart]:
    """Parametric bootstrap: refit the model to outcomes simulated from `estimate`."""
    rng = np.random.default_rng(0)
    starts, x = tasks.starts.numpy(), tasks.x.double().numpy()
    log_unit = torch.tensor(estimate.log_unit, dtype=torch.float64)
    scaling = estimate.mean_elapsed, estimate.time_scale
    s = standard_time(elapsed_time(tasks), log_unit, *scaling).numpy()
    bend, own_bend = estimate.curve.at(s)
    effects = np.column_stack([np.ones_like(s), s, own_bend]) @ estimate.root
    roots = []
    for a, b in pairwise(starts):
        process = estimate.process_var * np.exp(-np.abs(s[a:b, None] - s[a:b]) / estimate.tau)
        noise = estimate.noise_var * np.eye(b - a)
        roots.append(np.linalg.cholesky(effects[a:b] @ effects[a:b].T + process + noise))
    mean = estimate.intercept + x @ estimate.beta + estimate.beta_elapsed * s + bend
    for _ in range(_N_DRAWS):
        deviations = [root @ rng.standard_normal(len(root)) for root in roots]
        y = torch.from_numpy(mean + np.concatenate(deviations)).to(tasks.y.dtype)
        simulated = replace(tasks, y=y, offset=torch.zeros_like(y))
        yield fit_mixed_start(
            simulated, likelihood, random_slope=random_slope, process=True, form=estimate.form
        )


def inflation(
    parts: Callable[[Params, TaskSet, TaskSet], Sequence[Tensor]],
    params: Params,
    draws: Sequence[Params],
    episodes: Episodes,
) -> Tensor:
    """Factors (2,) that widen the predictive scale for parameter uncertainty.

    The first is for tasks without support, the second for tasks with support. By the law of total
    variance, the variance over bootstrap draws of the parameters is added to the predictive
    variance. Both are summed over the training tasks.

    Parameters
    ----------
    parts : callable
        Function of the parameters, and of support and query of one task. It returns a sequence:
        the mean is second, the posterior mean third and the predictive variance last.
    """

    def moments(params: Params, support: TaskSet, query: TaskSet) -> tuple[Tensor, Tensor]:
        _, mean, shift, *_, variance = parts(params, support, query)
        return mean + shift, variance

    plain, total, empty = [], [], []
    with torch.no_grad():
        for _, support, query in episodes:
            one_task = [partial(moments, values) for values in (params, *draws)]
            (_, variance), *drawn = (vmap(function)(support, query) for function in one_task)
            locs, variances = (torch.stack(part) for part in zip(*drawn, strict=True))
            total.append((variances.mean(0) + locs.var(0))[query.mask])
            plain.append(variance[query.mask])
            empty.append((support.n == 0)[:, None].expand(query.mask.shape)[query.mask])
    before, after, none = torch.cat(plain), torch.cat(total), torch.cat(empty)
    ratios = [
        after[chosen].sum() / before[chosen].sum().clamp(min=1e-300) for chosen in (none, ~none)
    ]
    return torch.sqrt(torch.stack(ratios)).clamp(min=1.0).to(params["inflation"].dtype)


def query_columns(
    one_task: Callable[[TaskSet, TaskSet], Sequence[Tensor]], episodes: Episodes
) -> list[Tensor]:
    """Evaluate a function on every episode and concatenate its columns over the query rows.

    Padding is removed. A last column holds the task numbers.

    Parameters
    ----------
    one_task : callable
        Function of support and query of one task that returns columns (point, ...).
    """
    parts = []
    with torch.no_grad():
        for tasks, support, query in episodes:
            task = tasks[:, None].expand(query.mask.shape)
            columns = (*vmap(one_task)(support, query), task)
            parts.append([column[query.mask] for column in columns])
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _clock(x: Array, elapsed: Array) -> Array:
    """Intercept and slopes of the elapsed time by the feature that determines it, else zeros.

    Where tasks start at about the same clock time, that feature is the clock.
    """
    clock = np.zeros(1 + x.shape[1])
    centred, mean = x - x.mean(0), elapsed.mean()
    spread = np.maximum((centred**2).sum(0), 1e-12)
    slope = (elapsed - mean) @ centred / spread
    explained = slope**2 * spread
    if explained.max(initial=0.0) > _MIN_DETERMINED * float(((elapsed - mean) ** 2).sum()):
        best = int(explained.argmax())
        clock[[0, 1 + best]] = mean - slope[best] * x[:, best].mean(), slope[best]
    return clock


def _rescaled(fit: MixedProcess, x: Array, tasks: TaskRows) -> MixedProcess:
    """Replace fixed effects and rescale variances by a logistic model with random intercepts."""
    one = np.ones((tasks.n_rows, 1))
    logistic = fit_generalised_mixed_model(
        x,
        one,
        tasks.y.double().numpy(),
        tasks.starts.numpy(),
        binary=True,
        offset=tasks.offset.double().numpy(),
    )
    variance, before = float(logistic.sd[0]) ** 2, float(fit.G[0, 0]) + fit.process_var
    G, process_var = np.zeros_like(fit.G), 0.0
    G[0, 0] = variance
    if before > 1e-6:
        G, process_var = fit.G * variance / before, fit.process_var * variance / before
    return replace(fit, beta=logistic.beta, G=G, process_var=process_var)


def _working_outcome(tasks: TaskRows, likelihood: Likelihood) -> Array:
    """Outcome for the normal model, minus the offset; see `fit_mixed_start`."""
    y: Array = tasks.y.double().numpy()
    offset: Array = tasks.offset.double().numpy()
    if likelihood.n_classes:
        p = 1.0 / (1.0 + np.exp(-offset - np.log(y.mean() / (1.0 - y.mean()))))
        return np.asarray(np.log(p / (1.0 - p)) - offset + (y - p) / (p * (1.0 - p)))
    y = np.asarray(y - offset)
    if not likelihood.robust:
        return y
    codes = tasks.codes.numpy()
    order = np.lexsort((y, codes))
    middle = y[order][(tasks.starts[:-1] + tasks.sizes // 2).numpy()[codes]]
    distance = np.abs(y - middle)
    # Where most values repeat, the median distance is 0; the mean distance is used instead.
    sd = 1.4826 * float(np.median(distance)) or 1.2533 * float(distance.mean())
    limit = _MAX_DISTANCE * sd
    return np.asarray(middle + np.clip(y - middle, -limit, limit))
