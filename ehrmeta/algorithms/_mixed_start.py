"""Start values in closed form: the mixed model, with a process in time where that helps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.nn.class_likelihoods import ClassLikelihood
from ehrmeta.nn.generalised_mixed_model import fit_generalised_mixed_model
from ehrmeta.nn.likelihoods import Likelihood, StudentT
from ehrmeta.nn.mixed_model import fit_mixed_model
from ehrmeta.nn.mixed_process import MixedProcess, fit_mixed_process, held_out_log_likelihood
from ehrmeta.nn.near_copies import apart
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["FEW_TASKS", "MixedStart", "fit_mixed_start"]

Array = npt.NDArray[np.float64]

FEW_TASKS = 50  # below this the process must show itself on held-out tasks
_N_FOLDS = 5
_OUTLYING = 4.0  # robust sds from the task's median


@dataclass(frozen=True)
class MixedStart:
    """Estimates in the units of `DeepMixedEffects`' parameters."""

    intercept: float
    beta: Array  # (feature,)
    beta_elapsed: float
    root: Array  # (2, 2) of G
    process_var: float
    tau: float
    noise_var: float
    time_scale: float
    mean_elapsed: float

    @property
    def remembers(self) -> bool:
        """Whether there is a process."""
        return self.process_var > 0.0

    def steadier(self, share: float) -> MixedStart:
        """With a share of the variances in time, and as much more of the intercept's."""
        scale = np.sqrt([1.0, share])
        root = scale[:, None] * self.root
        root[0, 0] = np.sqrt(self.root[0, 0] ** 2 + (1.0 - share) * self.process_var)
        return replace(self, root=root, process_var=share * self.process_var)

    def params(self, n_features: int) -> dict[str, Any]:
        """The parameters by their names."""
        beta = np.zeros(n_features)
        beta[: len(self.beta)] = self.beta
        return {
            "intercept": self.intercept,
            "beta": beta,
            "beta_elapsed": self.beta_elapsed,
            "root": self.root,
            "log_ou": 0.5 * np.log(max(self.process_var, 1e-6 * self.noise_var)),
            "log_tau": np.log(self.tau),
            "time_scale": self.time_scale,
            "mean_elapsed": self.mean_elapsed,
            "likelihood.log_within": 0.5 * np.log(self.noise_var),
            "likelihood.log_between": 0.5 * np.log(max(self.root[0, 0] ** 2, 1e-6)),
        }


@dataclass(frozen=True)
class _Design:
    x: Array
    z: Array
    s: Array
    y: Array
    starts: npt.NDArray[np.int64]

    def tasks(self, chosen: npt.NDArray[np.bool_]) -> _Design:
        """The rows of some tasks."""
        sizes = np.diff(self.starts)
        rows = np.repeat(chosen, sizes)
        starts = np.concatenate([[0], np.cumsum(sizes[chosen])])
        return _Design(self.x[rows], self.z[rows], self.s[rows], self.y[rows], starts)


def fit_mixed_start(
    tasks: TaskRows,
    likelihood: Likelihood,
    *,
    random_slope: bool,
    process: bool,
    certain: bool = False,
) -> MixedStart:
    """Random intercept (and slope) by REML, then with an Ornstein-Uhlenbeck process.

    Student's t starts at the fit to outcomes without their outlying parts. Of classes the fit to
    working outcomes, the log-odds' first Newton step, says how variances share; their sum and the
    fixed effects are those of a logistic model with random intercepts. Unless it is `certain`, a
    process must show itself where tasks are few.
    """
    elapsed = tasks.time - tasks.time[tasks.starts[:-1].clamp(max=len(tasks.time) - 1)][tasks.codes]
    mean_elapsed, scale = float(elapsed.mean()), float(elapsed.std()) or 1.0
    s = ((elapsed - mean_elapsed) / scale).numpy()
    one = np.ones(tasks.n_rows)
    columns = np.column_stack([one, tasks.x.double().numpy(), s])
    kept = apart(columns)
    kept[-1] &= tasks.timed
    x = columns[:, kept]
    z = np.column_stack([one, s] if random_slope and tasks.timed else [one])
    y = _working_outcome(tasks, likelihood)
    found = _fit(_Design(x, z, s, y, tasks.starts.numpy()), process and tasks.timed, certain)
    if isinstance(likelihood, ClassLikelihood):
        found = _rescaled(found, x, tasks)
    root = np.zeros((2, 2))
    root[: z.shape[1], : z.shape[1]] = _root(found.G)
    beta = np.zeros(len(kept))
    beta[kept] = found.beta
    return MixedStart(
        intercept=float(beta[0]),
        beta=beta[1:-1],
        beta_elapsed=float(beta[-1]),
        root=root,
        process_var=found.process_var,
        tau=found.tau,
        noise_var=found.noise_var,
        time_scale=scale,
        mean_elapsed=mean_elapsed,
    )


def _fit(design: _Design, process: bool, certain: bool) -> MixedProcess:
    n_tasks = len(design.starts) - 1
    plain = fit_mixed_model(design.x, design.z, design.y, design.starts)
    if not process or (n_tasks < FEW_TASKS and not certain and not _process_helps(design)):
        return MixedProcess.without(plain)
    return fit_mixed_process(design.x, design.z, design.s, design.y, design.starts, plain)


def _rescaled(found: MixedProcess, x: Array, tasks: TaskRows) -> MixedProcess:
    """Fixed effects and the sum of the variances from a logistic model with random intercepts."""
    one = np.ones((tasks.n_rows, 1))
    logistic = fit_generalised_mixed_model(
        x,
        one,
        tasks.y.double().numpy(),
        tasks.starts.numpy(),
        binary=True,
        offset=tasks.offset.double().numpy(),
    )
    variance, before = float(logistic.sd[0]) ** 2, float(found.G[0, 0]) + found.process_var
    G, process_var = np.zeros_like(found.G), 0.0
    G[0, 0] = variance
    if before > 1e-6:
        G, process_var = found.G * variance / before, found.process_var * variance / before
    return replace(found, beta=logistic.beta, G=G, process_var=process_var)


def _process_helps(design: _Design) -> bool:
    """Whether the process raises the likelihood of held-out tasks by a standard error."""
    n_tasks = len(design.starts) - 1
    gains = []
    for fold in range(min(_N_FOLDS, n_tasks)):
        held_out = np.arange(n_tasks) % _N_FOLDS == fold
        train, test = design.tasks(~held_out), design.tasks(held_out)
        plain = fit_mixed_model(train.x, train.z, train.y, train.starts)
        full = fit_mixed_process(train.x, train.z, train.s, train.y, train.starts, plain)
        judged = (test.x, test.z, test.s, test.y, test.starts)
        without = held_out_log_likelihood(MixedProcess.without(plain), *judged)
        gains.append(held_out_log_likelihood(full, *judged) - without)
    return bool(np.mean(gains) > np.std(gains, ddof=1) / np.sqrt(len(gains)))


def _working_outcome(tasks: TaskRows, likelihood: Likelihood) -> Array:
    """What a normal model is fitted to, free of the offset."""
    y: Array = tasks.y.double().numpy()
    offset: Array = tasks.offset.double().numpy()
    if isinstance(likelihood, ClassLikelihood):
        p = 1.0 / (1.0 + np.exp(-offset - np.log(y.mean() / (1.0 - y.mean()))))
        return np.asarray(np.log(p / (1.0 - p)) - offset + (y - p) / (p * (1.0 - p)))
    y = np.asarray(y - offset)
    if not isinstance(likelihood, StudentT):
        return y
    codes = tasks.codes.numpy()
    order = np.lexsort((y, codes))
    middle = y[order][(tasks.starts[:-1] + tasks.sizes // 2).numpy()[codes]]
    away = np.abs(y - middle)
    # Where most values repeat, the median distance is 0 and says nothing: take the mean one.
    sd = 1.4826 * float(np.median(away)) or 1.2533 * float(away.mean())
    reach = _OUTLYING * sd
    return np.asarray(middle + np.clip(y - middle, -reach, reach))


def _root(covariance: Array) -> Array:
    """A lower-triangular root; of a singular covariance, of one floored a little."""
    floor = 1e-10 * max(float(np.trace(covariance)), 1e-6)
    root = np.linalg.cholesky(covariance + floor * np.eye(len(covariance)))
    return np.asarray(root, np.float64)
