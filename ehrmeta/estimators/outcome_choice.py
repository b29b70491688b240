"""Choice of a `Warp` for a bounded or skewed outcome, on held-out training tasks."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import special, stats

from ehrmeta.algorithms import DeepMixedEffects
from ehrmeta.algorithms.deep_mixed_effects.course import FEW_TASKS
from ehrmeta.algorithms.deep_mixed_effects.start import fit_mixed_start
from ehrmeta.data import OutcomeScale, Schema, Warp
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.learner import Learner
from ehrmeta.estimators.predictions import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn import MLP, TaskRows
from ehrmeta.nn.batch import visible_width
from ehrmeta.nn.likelihoods import Normal
from ehrmeta.training import EpisodeSampler

Array = npt.NDArray[np.float64]
_FEWEST_TASKS, _MOST_TASKS, _MOST_ROWS = 20, 400, 20  # tasks, and rows of each
_N_FOLDS, _N_EPISODES = 2, 10
_SHOTS = (0, 1, 3, 5)
_STRONG_SKEW = 1.0  # skewness of the central 98 % of the outcomes
_AT_END = 0.05  # share of the rows on an end of a scale
_FEWEST_VALUES, _MOST_EQUAL = 5, 0.8  # distinct values, and share of the commonest
_OFFSETS = (0.2, 1.0, 5.0)  # relative to the mean distance from the nearest end
_LEAST_GAIN = 0.01  # of the CRPS
_LARGEST_RATIO = 1.02  # of mean squared errors
_LEVELS = (np.arange(20) + 0.5) / 20.0  # of the quantiles that approximate the CRPS


def choose_scale(
    plain: OutcomeScale, inputs: Inputs, schema: Schema | None, known: Sequence[str] | None
) -> OutcomeScale:
    """Scale with the best `Warp` of a bounded or skewed outcome, or the given one.

    A mixed model is fitted to half of at most 400 training tasks and predicts the other half, in
    turn, with each candidate. A warp is chosen if the CRPS, averaged over tasks and numbers of
    shots, is lower by more than its standard error and by 1 %, and the RMSE is not higher by 1 %,
    neither on average nor, beyond its standard error, at any number of shots.

    No model is fitted, and the given scale is kept, where a warp could hardly help: outcomes
    without strong skewness and with less than 5 % of the rows on either end, outcomes of fewer than
    five values, and tables of fewer than 20 tasks.

    Parameters
    ----------
    plain : OutcomeScale
        Scale without a transform, with the declared range.
    inputs : Inputs
        The training table.
    schema, known
        As in `MetaRegressor`.
    """
    every_y = inputs.outcome()
    ends = _ends(every_y, plain)
    if ends is None or inputs.groups is None or inputs.tasks().n_tasks < _FEWEST_TASKS:
        return plain
    inputs = _subsample(inputs)
    y = inputs.outcome()
    if inputs.tasks().n_tasks < _FEWEST_TASKS or np.ptp(y) == 0:
        return plain
    with warnings.catch_warnings():  # they are given for the whole table
        warnings.simplefilter("ignore")
        table = TableEncoder.fit(inputs, schema, plain, known)
        tasks = inputs.tasks()
        rows = table.rows(inputs, tasks.codes, tasks.n_tasks, of_fit=True)
    before = _scores(rows, y, plain, table.time_unit)
    smallest, best = 1.0 - _LEAST_GAIN, plain
    for scale in _candidates(every_y, plain, *ends):
        after = _scores(rows, y, scale, table.time_unit)
        gain, ratio = before.crps - after.crps, after.crps.mean() / before.crps.mean()
        is_better = gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain))
        if (
            is_better
            and keeps_means(before.squared_error, after.squared_error)
            and ratio < smallest
        ):
            smallest, best = ratio, scale
    return best


def keeps_means(before: Array, after: Array) -> bool:
    """Whether squared errors are at most 2 % higher, which is 1 % of the RMSE.

    The limit holds on average over the numbers of shots, and up to a standard error for each.

    Parameters
    ----------
    before, after : (shots, task)
        Mean squared error of every task; NaN where it has no query.

    Examples
    --------
    >>> before = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, np.nan]])
    >>> keeps_means(before, 1.01 * before), keeps_means(before, 1.1 * before)
    (True, False)
    """
    excess = after - _LARGEST_RATIO * before
    error = np.nanstd(excess, 1, ddof=1) / np.sqrt(np.sum(np.isfinite(excess), 1))
    ratio = np.nanmean(after, 1) / np.nanmean(before, 1)
    return bool((np.nanmean(excess, 1) <= error).all() and ratio.mean() <= _LARGEST_RATIO)


@dataclass(frozen=True)
class _Scores:
    crps: Array  # (task,) mean over queries and numbers of shots
    squared_error: Array  # (shots, task) NaN where a task is not scored


def _ends(y: Array, plain: OutcomeScale) -> tuple[float | None, float | None] | None:
    """Ends of the scale where a warp could help; None if the outcome needs none.

    The ends are declared, or evident: many rows on the smallest or largest value, or no outcome
    below zero and a long upper tail.
    """
    values, counts = np.unique(y, return_counts=True)
    if len(values) < _FEWEST_VALUES or counts.max() > _MOST_EQUAL * len(y):
        return None
    first, last = float(values[0]), float(values[-1])
    bottom, top = np.quantile(y, [0.01, 0.99])
    skewness = float(stats.skew(np.clip(y, bottom, top))) if bottom < top else 0.0
    at_first, at_last = counts[0] / len(y), counts[-1] / len(y)
    low = first if plain.low is None and at_first >= _AT_END else plain.low
    high = last if plain.high is None and at_last >= _AT_END else plain.high
    if low is None and first >= 0.0 and (skewness > _STRONG_SKEW or high is not None):
        low = 0.0
    if abs(skewness) <= _STRONG_SKEW and max(at_first, at_last) < _AT_END:
        return None
    if low is None and high is None:
        return None
    return low, high


def _candidates(
    y: Array, plain: OutcomeScale, low: float | None, high: float | None
) -> Iterator[OutcomeScale]:
    """Scales with a warp from the end near which outcomes crowd, and between two ends."""
    pairs = [(low, high)]
    if low is not None and high is not None:
        pairs.append((low, None) if 2.0 * np.mean(y) < low + high else (None, high))
    for ends in pairs:
        below = np.inf if ends[0] is None else y - ends[0]
        above = np.inf if ends[1] is None else ends[1] - y
        distance = float(np.mean(np.minimum(below, above)))
        for share in _OFFSETS if distance > 0.0 else ():
            warp = Warp(share * distance, *ends)
            yield OutcomeScale.fit(y, warp, plain.name, low=low, high=high)


def _subsample(inputs: Inputs) -> Inputs:
    """The first rows of a random sample of tasks with two rows or more."""
    tasks, rng = inputs.tasks(), np.random.default_rng(0)
    if inputs.time is None:
        order = rng.permutation(inputs.n_rows)
        order = order[np.argsort(tasks.codes[order], kind="stable")]
    else:
        order = tasks.order
    several = np.flatnonzero(tasks.sizes > 1)
    chosen = np.sort(rng.permutation(several)[:_MOST_TASKS])
    rows = np.concatenate(
        [order[tasks.starts[i] : tasks.starts[i + 1]][:_MOST_ROWS] for i in chosen]
        or [np.empty(0, np.int64)]
    )
    taken = {
        name: None if (values := getattr(inputs, name)) is None else values[rows]
        for name in ("y", "groups", "time", "dates")
    }
    columns = {name: values[rows] for name, values in inputs.columns.items()}
    return replace(inputs, columns=columns, n_rows=len(rows), **taken)


def _scores(rows: TaskRows, y: Array, scale: OutcomeScale, time_unit: float) -> _Scores:
    """Cross-fitted scores of a mixed model of the outcome on one scale."""
    z = torch.from_numpy(scale.forward(y)).to(rows.y.dtype)
    rows = replace(rows, y=z[rows.origin])
    crps, squared_error = (np.full((len(_SHOTS), rows.n_tasks), np.nan) for _ in range(2))
    numbers = torch.arange(rows.n_tasks)
    for fold in range(_N_FOLDS):
        held_out = numbers[numbers % _N_FOLDS == fold]
        learner = _mixed_model(rows.select(numbers[numbers % _N_FOLDS != fold]), time_unit)
        test = rows.select(held_out)
        nth = torch.arange(test.n_rows) - test.starts[test.codes]
        for at, k in enumerate(_SHOTS):
            support, query = (test.take(part.nonzero()[:, 0]) for part in (nth < k, nth >= k))
            if query.n_rows == 0:
                continue
            predicted = learner.predict(support, learner.adapt(support), query)
            loc, sd = (predicted[name].double().numpy() for name in ("loc", "scale"))
            outcome = y[query.origin.numpy()]
            codes = query.codes.numpy()
            counts = np.bincount(codes, minlength=len(held_out))
            is_scored, tasks = counts > 0, held_out.numpy()
            mean = Predictive(loc, scale, sd).mean()
            losses = _crps(loc, sd, scale, outcome), (mean - outcome) ** 2
            for scores, loss in zip((crps, squared_error), losses, strict=True):
                means = np.bincount(codes, loss, len(held_out))[is_scored] / counts[is_scored]
                scores[at, tasks[is_scored]] = means
    enough = np.isfinite(crps).mean(1) >= 0.5  # as in the k-shot protocol
    return _Scores(np.nanmean(crps[enough], 0), squared_error[enough])


def _crps(loc: Array, sd: Array, scale: OutcomeScale, y: Array) -> Array:
    """CRPS of normal predictions, (row,), as twice the mean quantile loss."""
    z = loc[:, None] + sd[:, None] * special.ndtri(_LEVELS)
    error = y[:, None] - scale.inverse(z)  # (row, level)
    return np.asarray(2.0 * np.maximum(_LEVELS * error, (_LEVELS - 1.0) * error).mean(1))


def _mixed_model(rows: TaskRows, time_unit: float) -> Learner:
    """The mixed model that `DeepMixedEffects` starts from, without its bootstrap."""
    is_small = rows.n_tasks < FEW_TASKS
    algorithm = DeepMixedEffects(
        curves=False, n_deep=0, deep_mean=False, trees=False, correction=not is_small
    )
    spec = algorithm.spec(MLP((1,)), Normal(), visible_width(rows))
    params = dict(algorithm.init(spec, torch.Generator().manual_seed(0)))
    if is_small:
        start = fit_mixed_start(
            rows, spec.likelihood, random_slope=True, process=False, curves=False
        )
        params |= {
            name: torch.as_tensor(value, dtype=params[name].dtype)
            for name, value in start.params(spec.n_features).items()
        }
    else:
        sampler = EpisodeSampler(rows, (0, 10), 10, time_unit)
        generator, tasks = torch.Generator().manual_seed(0), torch.arange(rows.n_tasks)
        episodes = [(tasks, *sampler.draw(tasks, generator)) for _ in range(_N_EPISODES)]
        params = algorithm.warm_start(spec, params, rows, episodes)
    return Learner(algorithm, spec, params, time_unit, torch.device("cpu"))
