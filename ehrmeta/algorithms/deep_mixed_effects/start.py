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
from ehrmeta.errors import DataError
from ehrmeta.nn import Likelihood, TaskRows, TaskSet
from ehrmeta.nn.generalised_mixed_model import fit_generalised_mixed_model
from ehrmeta.nn.mixed_model import fit_mixed_model, not_collinear
from ehrmeta.nn.mixed_process import MixedProcess, fit_mixed_process, held_out_log_likelihood

Array = npt.NDArray[np.float64]
MANY_TASKS = 5_000  # enough to estimate variances
FEW_TASKS = 50  # with fewer, the process must improve held-out tasks
_N_FOLDS = 5
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
    root: Array  # (2, 2) Cholesky factor of G
    process_var: float
    tau: float
    noise_var: float
    time_scale: float
    mean_elapsed: float
    clock: Array  # intercept and slopes of the elapsed time by feature; 0 if unknown

    @property
    def has_process(self) -> bool:
        """Whether the Ornstein-Uhlenbeck process has a positive variance."""
        return self.process_var > 0.0

    def steadier(self, share: float) -> MixedStart:
        """Multiply the variances of slope and process by `share`.

        The intercept gains the variance that the process loses.
        """
        scale = np.sqrt([1.0, share])
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
            "root": self.root,
            "log_ou": 0.5 * np.log(max(self.process_var, 1e-6 * self.noise_var)),
            "log_tau": np.log(self.tau),
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
    certain: bool = False,
) -> MixedStart:
    """Fit random intercepts and slopes by REML, then add an Ornstein-Uhlenbeck process.

    For Student's t, outcomes are clipped before the fit. For classes, the fit is to working
    outcomes (the first Newton step of the log-odds) and gives the ratios of the variances. A
    logistic model with random intercepts gives their sum and the fixed effects. With fewer than 50
    tasks, the process is kept only if it improves held-out tasks. `certain` omits that check.
    """
    elapsed = tasks.time - tasks.time[tasks.starts[:-1].clamp(max=len(tasks.time) - 1)][tasks.codes]
    mean_elapsed, scale = float(elapsed.mean()), float(elapsed.std()) or 1.0
    s = ((elapsed - mean_elapsed) / scale).numpy()
    one = np.ones(tasks.n_rows)
    columns = np.column_stack([one, tasks.x.double().numpy(), s])
    kept = not_collinear(columns)
    kept[-1] &= tasks.timed
    x = columns[:, kept]
    z = np.column_stack([one, s] if random_slope and tasks.timed else [one])
    y = _working_outcome(tasks, likelihood)
    fit = _fit(_Design(x, z, s, y, tasks.starts.numpy()), process and tasks.timed, certain)
    if likelihood.n_classes:
        fit = _rescaled(fit, x, tasks)
    root = np.zeros((2, 2))
    floor = 1e-10 * max(float(np.trace(fit.G)), 1e-6)  # for a singular G
    root[: z.shape[1], : z.shape[1]] = np.linalg.cholesky(fit.G + floor * np.eye(len(fit.G)))
    beta = np.zeros(len(kept))
    beta[kept] = fit.beta
    return MixedStart(
        intercept=float(beta[0]),
        beta=beta[1:-1],
        beta_elapsed=float(beta[-1]),
        root=root,
        process_var=fit.process_var,
        tau=fit.tau,
        noise_var=fit.noise_var,
        time_scale=scale,
        mean_elapsed=mean_elapsed,
        clock=_clock(columns[:, 1:-1], s),
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
    first = tasks.time[tasks.starts[tasks.codes]]
    s = ((tasks.time - first - estimate.mean_elapsed) / estimate.time_scale).numpy()
    effects = np.column_stack([np.ones_like(s), s]) @ estimate.root
    roots = []
    for a, b in pairwise(starts):
        process = estimate.process_var * np.exp(-np.abs(s[a:b, None] - s[a:b]) / estimate.tau)
        noise = estimate.noise_var * np.eye(b - a)
        roots.append(np.linalg.cholesky(effects[a:b] @ effects[a:b].T + process + noise))
    mean = estimate.intercept + x @ estimate.beta + estimate.beta_elapsed * s
    for _ in range(_N_DRAWS):
        deviations = [root @ rng.standard_normal(len(root)) for root in roots]
        y = torch.from_numpy(mean + np.concatenate(deviations)).to(tasks.y.dtype)
        simulated = replace(tasks, y=y, offset=torch.zeros_like(y))
        yield fit_mixed_start(
            simulated,
            likelihood,
            random_slope=random_slope,
            process=estimate.has_process,
            certain=True,
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


@dataclass(frozen=True)
class _Design:
    x: Array
    z: Array
    s: Array
    y: Array
    starts: npt.NDArray[np.int64]

    def sample(self) -> _Design:
        """Rows of at most 5,000 tasks."""
        n_tasks = len(self.starts) - 1
        if n_tasks <= MANY_TASKS:
            return self
        order = np.random.default_rng(0).permutation(n_tasks)
        return self.tasks(np.isin(np.arange(n_tasks), order[:MANY_TASKS]))

    def tasks(self, chosen: npt.NDArray[np.bool_]) -> _Design:
        """Rows of the chosen tasks."""
        sizes = np.diff(self.starts)
        rows = np.repeat(chosen, sizes)
        starts = np.concatenate([[0], np.cumsum(sizes[chosen])])
        return _Design(self.x[rows], self.z[rows], self.s[rows], self.y[rows], starts)


def _fit(design: _Design, process: bool, certain: bool) -> MixedProcess:
    n_tasks = len(design.starts) - 1
    used = design if not process else design.sample()  # of all tasks, the process gives beta
    plain = fit_mixed_model(used.x, used.z, used.y, used.starts)
    if not process or (n_tasks < FEW_TASKS and not certain and not _process_helps(design)):
        return MixedProcess.without(plain)
    return fit_mixed_process(design.x, design.z, design.s, design.y, design.starts, plain)


def _clock(x: Array, s: Array) -> Array:
    """Intercept and slopes of s (mean 0) by the feature that determines it, if any, else zeros.

    Where tasks start at about the same clock time, that feature is the clock.
    """
    clock = np.zeros(1 + x.shape[1])
    centred = x - x.mean(0)
    spread = np.maximum((centred**2).sum(0), 1e-12)
    slope = s @ centred / spread
    explained = slope**2 * spread
    if explained.max(initial=0.0) > _MIN_DETERMINED * float(s @ s):
        best = int(explained.argmax())
        clock[[0, 1 + best]] = -slope[best] * x[:, best].mean(), slope[best]
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


def _process_helps(design: _Design) -> bool:
    """Whether the process improves held-out log-likelihoods by more than one standard error."""
    n_tasks = len(design.starts) - 1
    gains = []
    for fold in range(min(_N_FOLDS, n_tasks)):
        held_out = np.arange(n_tasks) % _N_FOLDS == fold
        train, test = design.tasks(~held_out), design.tasks(held_out)
        plain = fit_mixed_model(train.x, train.z, train.y, train.starts)
        full = fit_mixed_process(train.x, train.z, train.s, train.y, train.starts, plain)
        rows = (test.x, test.z, test.s, test.y, test.starts)
        without = held_out_log_likelihood(MixedProcess.without(plain), *rows)
        gains.append(held_out_log_likelihood(full, *rows) - without)
    return bool(np.mean(gains) > np.std(gains, ddof=1) / np.sqrt(len(gains)))


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
