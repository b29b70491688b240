"""Why a task is predicted as it is: what each of its own rows moved the prediction by."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.func import jacrev

from ehrmeta.errors import DataError
from ehrmeta.estimators.predictions import (
    CarriedPredictive,
    ClassPredictive,
    Prediction,
    Predictive,
)
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.estimators.task_model import OutcomeResponse, TaskModel
from ehrmeta.nn.batch import TaskRows

Array = npt.NDArray[np.float64]
_NODES = (1, 4, 16, 64)  # of the quadrature; one is exact where the prediction is linear
_CLOSED = 1e-4  # standard deviations of the outcome that a sum may miss the prediction by
_COLUMNS = ("x", "measured", "time", "y", "origin", "offset")
Game: TypeAlias = Callable[[npt.NDArray[np.bool_], npt.NDArray[np.int64]], Array]
_AT_ONCE = 2000  # predictions


def explain_rows(
    model: TaskModel, support: TaskRows, state: Any, query: TaskRows, target: Any
) -> pd.DataFrame:
    """Parts of the prediction of every query row; see `Adapted.explain`."""
    label = _label_number(model.table, target)
    parts = []
    for task in np.flatnonzero(query.sizes.numpy()):
        shown, later = (rows.select(torch.tensor([task])) for rows in (support, query))
        response = model.response(shown, later) if label is None else None
        if response is None:
            parts.append(_by_leaving_out(model, shown, later, label))
        else:
            parts.append(_by_weight(response, model.table, shown, later))
    if not parts:
        raise DataError("explain got no rows: pass the rows whose prediction is to be explained.")
    weights = model.own_weight(support, state, query)
    own_weight = pd.Series(weights, index=query.origin.numpy(), name="own_weight")
    table = pd.concat(parts, ignore_index=True).join(own_weight, on="row")
    return table.sort_values("row", kind="stable", ignore_index=True)


def _path_weights(predict: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    r"""Mean derivative of a prediction by each value, on the straight way between two supports.

    .. math:: w_j = \int_0^1 \frac{\partial f}{\partial y_j}(m + a (y - m))\, da, \qquad
       f(y) - f(m) = \sum_j w_j (y_j - m_j)

    Parameters
    ----------
    predict : callable
        From outcomes of the support, (point,), to predictions, (query,).
    start, end : (point,)
        m and y.

    Returns
    -------
    Tensor, (query, point)
        Where f is linear, its coefficients.

    References
    ----------
    Sundararajan, Taly, Yan (2017), Axiomatic attribution, arXiv:1703.01365.

    Examples
    --------
    >>> y = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> _path_weights(lambda y: y.square().sum()[None], torch.zeros_like(y), y)
    tensor([[1., 3.]], dtype=torch.float64)
    """
    gain, way = predict(end) - predict(start), end - start
    weight = gain.new_zeros((len(gain), len(way)))
    for n_nodes in _NODES:
        nodes, shares = np.polynomial.legendre.leggauss(n_nodes)
        slopes = [jacrev(predict)(start + 0.5 * (node + 1.0) * way) for node in nodes]
        weight = sum(
            (0.5 * share * slope for share, slope in zip(shares, slopes, strict=True)),
            start=torch.zeros_like(weight),
        )
        if bool(((weight @ way - gain).abs() <= _CLOSED).all()):
            break
    return weight


def _by_weight(
    response: OutcomeResponse, table: TableEncoder, support: TaskRows, query: TaskRows
) -> pd.DataFrame:
    """Population, what the visits alone change, and each value's surprise times its weight."""
    center, scale = table.outcome.center, table.outcome.scale
    predict, y, expected, population = response
    visits = predict(expected) - population
    weight = _path_weights(predict, expected, y).detach().numpy()
    surprise = (y - expected).numpy() * scale
    parts = [
        _part("population", query, center + scale * population.numpy()),
        _part("visits", query, scale * visits.detach().numpy()),
    ]
    for at, (row, time) in enumerate(_rows(support)):
        value = _part("value", query, weight[:, at] * surprise[at])
        value = value.assign(surprise=surprise[at], weight=weight[:, at])
        parts.append(value.assign(support_row=row, before=query.time.numpy() - time))
    return pd.concat(parts, ignore_index=True)


def _by_leaving_out(
    model: TaskModel, support: TaskRows, query: TaskRows, label: int | None
) -> pd.DataFrame:
    """Population, what leaving each row out takes away, and what no single row explains."""

    def predicted(rows: TaskRows) -> Array:  # (task, query)
        repeated = query.select(torch.zeros(rows.n_tasks, dtype=torch.int64))
        prediction = model.predict(rows, model.adapt(rows), repeated)
        return _explained_value(prediction, label).reshape(rows.n_tasks, -1)

    nothing = _repeated_rows(support, torch.empty(0, dtype=torch.int64), torch.empty(0).long(), 1)
    adapted, population = predicted(support)[0], predicted(nothing)[0]
    parts, rest = [_part("population", query, population)], adapted - population
    if support.n_rows:
        without = predicted(_without_each(support))
        for at, (row, time) in enumerate(_rows(support)):
            value = _part("value", query, adapted - without[at])
            parts.append(value.assign(support_row=row, before=query.time.numpy() - time))
        rest = rest - (adapted - without).sum(0)
    return pd.concat([*parts, _part("rest", query, rest)], ignore_index=True)


def _without_each(rows: TaskRows) -> TaskRows:
    """The n rows of one task as n tasks, each without one of them."""
    codes, index = (~torch.eye(rows.n_rows, dtype=torch.bool)).nonzero(as_tuple=True)
    return _repeated_rows(rows, index, codes, rows.n_rows)


def _repeated_rows(rows: TaskRows, index: Tensor, codes: Tensor, n_tasks: int) -> TaskRows:
    """Some rows, perhaps several times, under new task numbers."""
    columns = {name: getattr(rows, name)[index] for name in _COLUMNS}
    return TaskRows.from_codes(codes, n_tasks, timed=rows.timed, **columns)


def _explained_value(prediction: Prediction, label: int | None) -> Array:
    """What is explained, (row,): a class's probability, or the mean on the transformed scale."""
    if isinstance(prediction, ClassPredictive) and label is not None:
        return np.asarray(prediction.probabilities()[:, label])
    if not isinstance(prediction, Predictive):
        raise DataError("these predictions are neither numbers nor classes, and are not explained.")
    loc = prediction.loc
    if isinstance(prediction, CarriedPredictive):
        loc = prediction.unchanged * prediction.last + (1.0 - prediction.unchanged) * loc
    return np.asarray(prediction.outcome.center + prediction.outcome.scale * loc)


def _label_number(table: TableEncoder, target: Any) -> int | None:
    """Column of the class to explain; None for numbers."""
    classes = getattr(table.outcome, "labels", None)
    if classes is None:
        if target is not None:
            raise DataError("target names a class, but the outcome is a number: leave it out.")
        return None
    if target is None and len(classes) == 2:
        return 1
    places = np.flatnonzero(np.asarray(classes == target))
    if len(places) != 1:
        raise DataError(
            f"target must be one of the model's {len(classes)} classes, see model.classes_."
        )
    return int(places[0])


def _part(name: str, query: TaskRows, contribution: Array) -> pd.DataFrame:
    columns = {"row": query.origin.numpy(), "part": name, "support_row": -1, "before": np.nan}
    blank = {"surprise": np.nan, "weight": np.nan}
    return pd.DataFrame({**columns, **blank, "contribution": contribution})


def _rows(support: TaskRows) -> Iterator[tuple[int, float]]:
    """Number in the user's table and time of every row, in the order of time."""
    times = support.time.tolist() if support.timed else [np.nan] * support.n_rows
    return zip(support.origin.tolist(), times, strict=True)


def explain_features(
    model: TaskModel,
    support: TaskRows,
    query: TaskRows,
    background: TaskRows,
    target: Any,
    *,
    n_samples: int,
    seed: int,
) -> pd.DataFrame:
    """Shares of the prediction of every query row; see `Adapted.explain_features`."""
    label, features = _label_number(model.table, target), model.table.features
    parts = []
    for at, task in enumerate(query.codes.tolist()):
        here = torch.tensor([at])
        row = _repeated_rows(query, here, torch.zeros(1, dtype=torch.int64), 1)
        game = _game(model, support.select(torch.tensor([task])), row, background, label)
        rng = np.random.default_rng(seed)  # the same draws for every row
        base, shares = shapley_shares(game, len(features), n_samples, rng)
        columns = {
            "row": int(query.origin[at]),
            "part": ["base", *["feature"] * len(features)],
            "feature": ["", *(feature.name for feature in features)],
            "contribution": [base.mean(), *shares.mean(0)],
            "error": np.std([base, *shares.T], axis=1, ddof=1) / np.sqrt(n_samples),
        }
        parts.append(pd.DataFrame(columns))
    if not parts:
        raise DataError("explain_features got no rows: pass those that are to be explained.")
    return pd.concat(parts).sort_values("row", kind="stable", ignore_index=True)


def shapley_shares(
    game: Game, n_players: int, n_samples: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """What each player adds on joining those before it, over random orders and their reverses.

    Parameters
    ----------
    game : callable
        From who has joined, (coalition, player), and the sample that stands in for all others,
        (coalition,), to a value, (coalition,).
    n_players, n_samples : int
    rng : Generator

    Returns
    -------
    base : (sample,)
        Value before anyone has joined.
    shares : (sample, player)
        Base and shares add up to the value of all.

    References
    ----------
    Strumbelj, Kononenko (2014), doi:10.1007/s10115-013-0679-x; Mitchell et al. (2022),
    arXiv:2104.12199.

    Examples
    --------
    >>> def product(joined, sample):
    ...     return joined.all(1) * 6.0
    >>> shapley_shares(product, 2, 1, np.random.default_rng(0))
    (array([0.]), array([[3., 3.]]))
    """
    bases, shares = [], []
    sizes = np.arange(n_players + 1)[:, None]
    at_once = max(1, _AT_ONCE // (2 * len(sizes)))
    for first in range(0, n_samples, at_once):
        samples = np.arange(first, min(first + at_once, n_samples))
        forward = rng.permuted(np.tile(np.arange(n_players), (len(samples), 1)), axis=1)
        place = np.stack([forward, n_players - 1 - forward], axis=1)  # (sample, way, player)
        joined = place[:, :, None] < sizes  # (sample, way, size, player)
        shape = (len(samples), 2, len(sizes))
        coalitions = joined.reshape(np.prod(shape), n_players)
        value = game(coalitions, np.repeat(samples, 2 * len(sizes))).reshape(shape)
        gain = np.take_along_axis(np.diff(value, axis=2), place, axis=2)
        bases.append(value[:, 0, 0])
        shares.append(gain.mean(1))
    return np.concatenate(bases), np.concatenate(shares)


def _game(
    model: TaskModel, support: TaskRows, row: TaskRows, background: TaskRows, label: int | None
) -> Game:
    """Prediction of one row where some features are those of another patient."""
    of_x, of_measured = _features_of(model.table, row)
    known = [feature.role == "known" for feature in model.table.features]
    stays = torch.tensor([*known, True])  # in the support
    n_shown = support.n_rows

    def predict(joined: npt.NDArray[np.bool_], sample: npt.NDArray[np.int64]) -> Array:
        n, other = len(joined), torch.from_numpy(sample % background.n_rows)
        kept = torch.cat([torch.from_numpy(joined), torch.ones(n, 1, dtype=torch.bool)], 1)
        tasks = torch.arange(n)
        query = _repeated_rows(row, torch.zeros_like(tasks), tasks, n)
        query = replace(query, x=torch.where(kept[:, of_x], query.x, background.x[other]))
        of_task = tasks.repeat_interleave(n_shown)
        shown = _repeated_rows(support, torch.arange(n_shown).repeat(n), of_task, n)
        kept, other = (kept | stays)[of_task], other[of_task]
        shown = replace(
            shown,
            x=torch.where(kept[:, of_x], shown.x, background.x[other]),
            measured=torch.where(kept[:, of_measured], shown.measured, background.measured[other]),
        )
        prediction = model.predict(shown, model.adapt(shown), query)
        return _explained_value(prediction, label)

    return predict


def _features_of(table: TableEncoder, rows: TaskRows) -> tuple[Tensor, Tensor]:
    """Number of the feature that each column of x and of measured was made from.

    The clock in x is none of them: it has the number after the last, which is always the row's own.
    """
    x = torch.full((rows.x.shape[1],), len(table.features))
    measured = torch.zeros(rows.measured.shape[1], dtype=torch.int64)
    for number, (feature, place) in enumerate(
        zip(table.features, table.encoder.places, strict=True)
    ):
        (measured if feature.role == "measured" else x)[place] = number
    return x, measured
