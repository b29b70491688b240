"""Courses in time of `DeepMixedEffects`: straight or bent, with or without a process.

Every freedom beyond intercept and slope is kept only if held-out tasks are predicted better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from ehrmeta.nn import TaskRows
from ehrmeta.nn.mixed_model import MixedModel, fit_mixed_model, not_collinear
from ehrmeta.nn.mixed_process import (
    MixedProcess,
    fit_mixed_process,
    held_out_errors,
    held_out_log_likelihood,
)

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
MANY_TASKS = 5_000  # enough to estimate variances
FEW_TASKS = 50  # with fewer, the process must improve held-out tasks
N_KNOTS = 6
_LEAST_TIMES = 4  # distinct times for a curve
_LEAST_ROWS = 4  # for each coefficient of a curved mean
MOST_ROWS = 100_000  # that describe the clock
_EARLY = 0.1  # quantile of the elapsed times that is the unit of their logarithm
_N_FOLDS = 5
_SHOTS = (0, 1, 3, 5)
MOST_TASKS = 300  # that curves are chosen on
_LEVEL = 0.01  # of the test that a curve must pass before it is cross-validated


@dataclass(frozen=True)
class Form:
    """Clock and terms of a mixed model, beside intercept and slope."""

    log: bool = False  # the clock is the logarithm of the elapsed time
    bends: bool = False  # a curve in the mean
    own: bool = False  # for each task a multiple of the curve of mean and offset
    process: bool = False

    @property
    def is_straight(self) -> bool:
        """Whether courses are straight lines in time."""
        return not (self.log or self.bends or self.own)


@dataclass(frozen=True, eq=False)
class Design:
    """Rows of a mixed model, in task order.

    Attributes
    ----------
    x : (row, feature)
        Ones, the features and s, without collinear columns.
    kept : (column,)
        Which of the columns are in x.
    z : (row, effect)
        Ones and s.
    s : (row,)
        Standardised time since the task's first row, or its logarithm.
    y, offset : (row,)
        The outcome minus the offset, and the offset.
    starts : (task + 1,)
    log_unit, mean, scale : float
        Of `standard_time`.
    knots : (N_KNOTS,)
        Quantiles of the distinct times, as stored; zeros if there are too few.
    """

    x: Array
    kept: npt.NDArray[np.bool_]
    z: Array
    s: Array
    y: Array
    offset: Array
    starts: Index
    log_unit: float
    mean: float
    scale: float
    knots: Array

    @classmethod
    def of(cls, rows: TaskRows, y: Array, *, random_slope: bool, log: bool) -> Design:
        """Design of encoded rows and their outcome on a normal scale."""
        elapsed = elapsed_time(rows)
        log_unit = torch.zeros((), dtype=elapsed.dtype)
        if log:
            early = np.quantile(elapsed[elapsed > 0.0][:MOST_ROWS].numpy(), _EARLY)
            log_unit = log_unit + float(early)
        time = standard_time(elapsed, log_unit, 0.0, 1.0)
        mean, scale = float(time.mean()), float(time.std()) or 1.0
        s = ((time - mean) / scale).numpy()
        one = np.ones(rows.n_rows)
        columns = np.column_stack([one, rows.x.double().numpy(), s])
        kept = not_collinear(columns)
        kept[-1] &= rows.timed
        return cls(
            x=columns[:, kept],
            kept=kept,
            z=np.column_stack([one, s] if random_slope and rows.timed else [one]),
            s=s,
            y=y,
            offset=rows.offset.double().numpy(),
            starts=rows.starts.numpy(),
            log_unit=float(log_unit),
            mean=mean,
            scale=scale,
            knots=_knots(s[:MOST_ROWS]),
        )

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.starts) - 1

    def sample(self) -> Design:
        """Rows of at most 5,000 tasks."""
        if self.n_tasks <= MANY_TASKS:
            return self
        order = np.random.default_rng(0).permutation(self.n_tasks)
        return self._tasks(np.isin(np.arange(self.n_tasks), order[:MANY_TASKS]))

    def folds(self, n_folds: int = _N_FOLDS) -> Iterator[tuple[Design, Design]]:
        """Training and held-out tasks, with the same knots."""
        for fold in range(min(n_folds, self.n_tasks)):
            held_out = np.arange(self.n_tasks) % n_folds == fold
            yield self._tasks(~held_out), self._tasks(held_out)

    def _tasks(self, chosen: npt.NDArray[np.bool_]) -> Design:
        sizes = np.diff(self.starts)
        rows = np.repeat(chosen, sizes)
        columns = {name: getattr(self, name)[rows] for name in ("x", "z", "s", "y", "offset")}
        starts = np.concatenate([[0], np.cumsum(sizes[chosen])])
        return replace(self, starts=starts, **columns)


@dataclass(frozen=True, eq=False)
class Curve:
    """Two natural splines: of the mean, and the one that tasks have a multiple of.

    Attributes
    ----------
    knots : (N_KNOTS,)
        Zeros without a curve.
    coefficients : (2, N_KNOTS - 2)
        Of `natural_basis`.
    """

    knots: Array
    coefficients: Array

    def at(self, s: Array) -> Array:
        """The curves at times s, (2, row)."""
        return np.asarray(self.coefficients @ _basis(s, self.knots).T)


@dataclass(frozen=True, eq=False)
class Course:
    """A fitted mixed model.

    Attributes
    ----------
    fit : MixedProcess
        Its effects are intercept, slope and, if ``form.own``, a multiple of the second curve.
    form : Form
    curve : Curve
    """

    fit: MixedProcess
    form: Form
    curve: Curve

    def errors(self, design: Design) -> Array:
        """Squared errors (task, shot) of held-out tasks."""
        return held_out_errors(self.fit, *self._rows(design), shots=_SHOTS)

    def log_likelihood(self, design: Design) -> float:
        """Log-likelihood of held-out tasks."""
        return held_out_log_likelihood(self.fit, *self._rows(design))

    def _rows(self, design: Design) -> tuple[Array, Array, Array, Array, Index]:
        bend, own = self.curve.at(design.s)
        z = np.column_stack([design.z, own]) if self.form.own else design.z
        return design.x, z, design.s, design.y - bend, design.starts


def _knots(s: Array) -> Array:
    times = np.unique(s)
    if len(times) < _LEAST_TIMES:
        return np.zeros(N_KNOTS)
    knots = np.quantile(times, np.linspace(0.0, 1.0, N_KNOTS))
    return np.asarray(knots.astype(np.float32), np.float64)


def elapsed_time(rows: TaskRows) -> Tensor:
    """Time since the task's first row, (row,)."""
    first = rows.time[rows.starts[:-1].clamp(max=len(rows.time) - 1)]
    return rows.time - first[rows.codes]


def standard_time(
    elapsed: Tensor, log_unit: Tensor, mean: Tensor | float, scale: Tensor | float
) -> Tensor:
    r"""The model's clock: :math:`s = (t - mean) / scale`, or with log(1 + t / unit) for t.

    The logarithm is for a positive `log_unit`.
    """
    logged = torch.log1p(elapsed.clamp(min=0.0) / log_unit.clamp(min=1e-12))
    return (torch.where(log_unit > 0.0, logged, elapsed) - mean) / scale


def natural_basis(s: Tensor, knots: Tensor) -> Tensor:
    r"""Natural cubic splines beside intercept and line, (point, knot - 2).

    .. math:: N_k(s) = d_k(s) - d_{K-1}(s), \qquad
              d_k(s) = \frac{(s - \xi_k)_+^3 - (s - \xi_K)_+^3}{\xi_K - \xi_k}

    They are linear beyond the last knot, and 0 where all knots are equal.

    References
    ----------
    Hastie, Tibshirani, Friedman (2009), The Elements of Statistical Learning, eq. 5.4.
    """
    cubes = (s[..., None] - knots).clamp(min=0.0) ** 3
    d = (cubes[..., :-1] - cubes[..., -1:]) / (knots[-1] - knots[:-1]).clamp(min=1e-6)
    return d[..., :-1] - d[..., -1:]


def choose_form(
    rows: TaskRows, y: Array, *, random_slope: bool, process: bool, curves: bool
) -> Form:
    """Clock, curves and process that predict held-out tasks better than a straight course.

    A curve in the mean is tried first, then a multiple of the curve for each task, then the
    logarithm of time as clock. Those that a likelihood-ratio test finds are cross-validated: each
    must improve the squared error after 0, 1, 3 and 5 rows, relative to that of the straight
    course, by more than one standard error over tasks, and the log-likelihood. Once courses bend,
    the clock only needs to be the better one.

    Parameters
    ----------
    rows : TaskRows
    y : (row,)
        Outcome on a normal scale, minus the offset.
    random_slope : bool
    process, curves : bool
        Whether a process, or curves and the clock, may be chosen.
    """
    form = Form(process=process)
    few = rows.n_tasks < FEW_TASKS
    if not (curves or (process and few)):
        return form

    @cache
    def design(log: bool) -> Design:
        return Design.of(rows, y, random_slope=random_slope, log=log)

    @cache
    def scores(form: Form) -> _Scores:
        return _Scores.of(design(form.log), form, _N_FOLDS if few or not form.process else 2)

    @cache
    def likelihood(form: Form) -> float:
        return _models(design(form.log), form, reml=False)[0].log_likelihood

    def improves(larger: Form, form: Form) -> bool:
        """Likelihood-ratio test, then scores of held-out tasks, without a process first."""
        n_more = (N_KNOTS - 2) * (larger.bends - form.bends) + 3 * (larger.own - form.own)
        plain, other = replace(larger, process=False), replace(form, process=False)
        gain = 2.0 * (likelihood(plain) - likelihood(other))
        if gain <= (stats.chi2.isf(_LEVEL, n_more) if n_more else 0.0):
            return False
        unit = np.maximum(np.nanmean(scores(Form()).errors, axis=0), 1e-12)
        if not (n_more or form.is_straight):
            return scores(larger).better_than(scores(form), unit, 0.0)
        return scores(plain).better_than(scores(other), unit, 0.0) and (
            scores(larger).better_than(scores(form), unit, 1.0)
        )

    n_columns = design(False).x.shape[1] + N_KNOTS
    enough = rows.n_tasks >= _N_FOLDS and rows.n_rows >= _LEAST_ROWS * n_columns
    if curves and enough and design(False).knots.any():
        for term in ("bends", "own", "log", "own"):
            larger = replace(form, **{term: True})
            if improves(larger, form):
                form = larger
    if process and few:
        form = replace(form, process=_process_helps(design(form.log), form))
    return form


def fit_course(design: Design, form: Form) -> Course:
    """Fit a mixed model of a known form."""
    model, bent, own = _models(design, form)
    fit = MixedProcess.without(model)
    if form.process:
        fit = fit_mixed_process(bent.x, bent.z, bent.s, bent.y, bent.starts, model)
    bend = np.zeros_like(own)
    if form.bends:
        bend = fit.beta[-len(bend) :]
        fit = replace(fit, beta=fit.beta[: -len(bend)])
    knots = design.knots if form.bends or form.own else np.zeros(N_KNOTS)
    return Course(fit, form, Curve(knots, np.stack([bend, own])))


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of held-out tasks."""

    errors: Array  # (task, shot) squared errors
    log_likelihood: float

    @classmethod
    def of(cls, design: Design, form: Form, n_folds: int) -> _Scores:
        courses = [(fit_course(train, form), test) for train, test in design.folds(n_folds)]
        errors = np.concatenate([course.errors(test) for course, test in courses])
        return cls(
            errors[:, np.isfinite(errors).any(axis=0)],
            float(sum(course.log_likelihood(test) for course, test in courses)),
        )

    def better_than(self, other: _Scores, unit: Array, n_errors: float) -> bool:
        """Whether errors gain more than `n_errors` standard errors, and the likelihood gains."""
        gain = np.nanmean((other.errors - self.errors) / unit, axis=1)
        is_gain = gain.mean() > n_errors * gain.std(ddof=1) / np.sqrt(len(gain))
        return bool(is_gain and self.log_likelihood > other.log_likelihood)


def _basis(s: Array, knots: Array) -> Array:
    basis: Array = natural_basis(torch.from_numpy(s), torch.from_numpy(knots)).numpy()
    return basis


def _models(design: Design, form: Form, *, reml: bool = True) -> tuple[MixedModel, Design, Array]:
    """The mixed model without process, its design, and the curve that tasks have a multiple of."""
    own: Array = np.zeros(N_KNOTS - 2)
    if form.bends or form.own:
        basis = _basis(design.s, design.knots)
        wide = np.hstack([design.x, basis])
        if form.own:
            beta = np.linalg.lstsq(wide, design.y + design.offset)[0]
            own = np.asarray(beta[-len(own) :], np.float64)
            design = replace(design, z=np.column_stack([design.z, basis @ own]))
        if form.bends:
            design = replace(design, x=wide)
    used = design.sample() if form.process else design  # of all tasks, the process gives beta
    model = fit_mixed_model(used.x, used.z, used.y, used.starts, reml=reml)
    return model, design, own


def _process_helps(design: Design, form: Form) -> bool:
    """Whether the process improves held-out log-likelihoods by more than one standard error."""
    gains = []
    for train, test in design.folds():
        without, full = (fit_course(train, replace(form, process=p)) for p in (False, True))
        gains.append(full.log_likelihood(test) - without.log_likelihood(test))
    return bool(np.mean(gains) > np.std(gains, ddof=1) / np.sqrt(len(gains)))
