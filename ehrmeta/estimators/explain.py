"""Explanations of adapted predictions: contributions of support rows and of features."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.func import jacrev

from ehrmeta.data.columns import collected, take_rows
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
_NODES = (1, 4, 16, 64)  # of the quadrature; one node is exact for linear predictions
_TOLERANCE = 1e-4  # for the sum of contributions, in standard deviations of the outcome
Game: TypeAlias = Callable[[npt.NDArray[np.bool_], npt.NDArray[np.int64]], Array]
_AT_ONCE = 2000  # predictions in one call


def explain_rows(
    model: TaskModel, support: TaskRows, state: Any, query: TaskRows, target: Any
) -> pd.DataFrame:
    """Contributions to the prediction of every query row; see `Adapted.explain`."""
    label = _label_number(model.table, target)
    parts = []
    for task in np.flatnonzero(query.sizes.numpy()):
        given, rows = (all_rows.select(torch.tensor([task])) for all_rows in (support, query))
        response = model.response(given, rows) if label is None else None
        if response is None:
            parts.append(_by_leaving_out(model, given, rows, label))
        else:
            parts.append(_by_weight(response, model.table, given, rows))
    if not parts:
        raise DataError("X has no rows. Pass the rows whose predictions are to be explained.")
    weights = model.own_weight(support, state, query)
    own_weight = pd.Series(weights, index=query.origin.numpy(), name="own_weight")
    table = pd.concat(parts, ignore_index=True).join(own_weight, on="row")
    return table.sort_values("row", kind="stable", ignore_index=True)


def _path_weights(predict: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    r"""Integrated gradients: mean derivative of predictions along the line between two supports.

    .. math:: w_j = \int_0^1 \frac{\partial f}{\partial y_j}(m + a (y - m))\, da, \qquad
       f(y) - f(m) = \sum_j w_j (y_j - m_j)

    Parameters
    ----------
    predict : callable
        Maps outcomes of the support, (point,), to predictions, (query,).
    start, end : (point,)
        m and y.

    Returns
    -------
    Tensor, (query, point)
        The weights w. If f is linear, these are its coefficients.

    References
    ----------
    Sundararajan, Taly, Yan (2017), Axiomatic attribution, arXiv:1703.01365.

    Examples
    --------
    >>> y = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> _path_weights(lambda y: y.square().sum()[None], torch.zeros_like(y), y)
    tensor([[1., 3.]], dtype=torch.float64)
    """
    change, step = predict(end) - predict(start), end - start
    for n_nodes in _NODES:
        weight = change.new_zeros((len(change), len(step)))
        for node, share in zip(*np.polynomial.legendre.leggauss(n_nodes), strict=True):
            weight = weight + 0.5 * share * jacrev(predict)(start + 0.5 * (node + 1.0) * step)
        if bool(((weight @ step - change).abs() <= _TOLERANCE).all()):
            break
    return weight


def _by_weight(
    response: OutcomeResponse, table: TableEncoder, support: TaskRows, query: TaskRows
) -> pd.DataFrame:
    """Contributions of the population, of the visit times, and of each value.

    The contribution of a value is its difference from the expected value times its weight.
    """
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
    """Contributions of the population and of each row by leaving it out, and the remainder."""

    def predicted(rows: TaskRows) -> Array:  # (task, query)
        repeated = query.select(torch.zeros(rows.n_tasks, dtype=torch.int64))
        prediction = model.predict(rows, model.adapt(rows), repeated)
        return _explained_value(prediction, label).reshape(rows.n_tasks, -1)

    none = torch.empty(0, dtype=torch.int64)
    adapted, population = predicted(support)[0], predicted(support.take(none, none, 1))[0]
    parts, rest = [_part("population", query, population)], adapted - population
    if support.n_rows:
        others = ~torch.eye(support.n_rows, dtype=torch.bool)  # (omitted row, row)
        codes, index = others.nonzero(as_tuple=True)
        without = predicted(support.take(index, codes, support.n_rows))
        for at, (row, time) in enumerate(_rows(support)):
            value = _part("value", query, adapted - without[at])
            parts.append(value.assign(support_row=row, before=query.time.numpy() - time))
        rest = rest - (adapted - without).sum(0)
    return pd.concat([*parts, _part("rest", query, rest)], ignore_index=True)


def _explained_value(prediction: Prediction, label: int | None) -> Array:
    """The value that is explained, (row,): class probability, or mean on the transformed scale."""
    if isinstance(prediction, ClassPredictive) and label is not None:
        return np.asarray(prediction.probabilities()[:, label])
    if not isinstance(prediction, Predictive):
        raise DataError("only predictions of numbers and classes can be explained.")
    loc = prediction.loc
    if isinstance(prediction, CarriedPredictive):
        loc = prediction.unchanged * prediction.last + (1.0 - prediction.unchanged) * loc
    return np.asarray(prediction.outcome.center + prediction.outcome.scale * loc)


def _label_number(table: TableEncoder, target: Any) -> int | None:
    """Column of the class to explain; None for numbers."""
    classes = getattr(table.outcome, "labels", None)
    if classes is None:
        if target is not None:
            raise DataError("target= selects a class, but the outcome is a number. Omit target=.")
        return None
    if target is None and len(classes) == 2:
        return 1
    matches = np.flatnonzero(np.asarray(classes == target))
    if len(matches) != 1:
        raise DataError(
            f"target= must be one of the model's {len(classes)} classes. See model.classes_."
        )
    return int(matches[0])


def _part(name: str, query: TaskRows, contribution: Array) -> pd.DataFrame:
    columns = {"row": query.origin.numpy(), "part": name, "support_row": -1, "before": np.nan}
    blank = {"surprise": np.nan, "weight": np.nan}
    return pd.DataFrame({**columns, **blank, "contribution": contribution})


def _rows(support: TaskRows) -> Iterator[tuple[int, float]]:
    """Row number in the user's table, and time, of each support row, sorted by time."""
    times = support.time.tolist() if support.timed else [np.nan] * support.n_rows
    return zip(support.origin.tolist(), times, strict=True)


def explain_features(
    model: TaskModel,
    support: TaskRows,
    query: TaskRows,
    background: TaskRows,
    target: Any,
    *,
    columns: Mapping[str, npt.NDArray[Any]],
    n_samples: int,
    seed: int,
) -> pd.DataFrame:
    """Shapley values of the features for every query row; see `Adapted.explain_features`.

    `columns` holds the feature values of the user's rows, which are listed in the result.
    """
    label, features = _label_number(model.table, target), model.table.features
    parts = []
    for at, task in enumerate(query.codes.tolist()):
        row = query.take(torch.tensor([at]), torch.zeros(1, dtype=torch.int64), 1)
        game = _game(model, support.select(torch.tensor([task])), row, background, label)
        rng = np.random.default_rng(seed)  # the same draws for every row
        base, shares = shapley_shares(game, len(features), n_samples, rng)
        shapley = {
            "row": int(query.origin[at]),
            "part": ["base", *["feature"] * len(features)],
            "feature": ["", *(feature.name for feature in features)],
            "contribution": [base.mean(), *shares.mean(0)],
            "error": np.std([base, *shares.T], axis=1, ddof=1) / np.sqrt(n_samples),
        }
        parts.append(pd.DataFrame(shapley))
    if not parts:
        raise DataError("X has no rows. Pass the rows whose predictions are to be explained.")
    table = pd.concat(parts).sort_values("row", kind="stable", ignore_index=True)
    measured = {feature.name for feature in features if feature.role == "measured"}
    values = [
        columns[name][row] if name and name not in measured else None
        for row, name in zip(table["row"], table["feature"], strict=True)
    ]
    table.insert(3, "value", pd.Series(values, dtype=object))
    return table


def draw_rows(background: Any, n_samples: int, random_state: int) -> Any:
    """Random rows of other patients, at most `n_samples`."""
    background = collected(background)
    if not len(background):
        raise DataError("background has no rows. Pass rows of other patients.")
    if not isinstance(n_samples, Integral) or n_samples < 2:
        raise DataError(f"n_samples must be a whole number, 2 or more, got {n_samples!r}.")
    n_rows = len(background)
    drawn = np.random.default_rng(random_state).permutation(n_rows)[:n_samples]
    return take_rows(background, np.isin(np.arange(n_rows), drawn))


def encode_background(model: TaskModel, rows: Any) -> TaskRows:
    """Rows of other patients as one task, at the middle of the training times."""
    time = np.full(len(rows), model.table.time_center) if model.table.timed else None
    inputs = model.read(rows, time=time)
    return model.table.rows(inputs, np.zeros(inputs.n_rows, np.int64), 1)


def shapley_shares(
    game: Game, n_players: int, n_samples: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Shapley values by sampling: marginal contributions in random orders and in their reverses.

    Parameters
    ----------
    game : callable
        Maps coalitions, (coalition, player), and the number of each coalition's background sample,
        (coalition,), to values, (coalition,).
    n_players, n_samples : int
    rng : Generator

    Returns
    -------
    base : (sample,)
        Value of the empty coalition.
    shares : (sample, player)
        Contribution of each player. Base and shares sum to the value of the full coalition.

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
        place = np.stack([forward, n_players - 1 - forward], axis=1)  # (sample, direction, player)
        joined = place[:, :, None] < sizes  # (sample, direction, size, player)
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
    """Prediction of one row as a function of the features that keep their values.

    The other features get those of a background row.
    """
    of_x, of_measured = _features_of(model.table, row)
    known = [feature.role == "known" for feature in model.table.features]
    fixed_in_support = torch.tensor([*known, True])
    n_support = support.n_rows

    def predict(joined: npt.NDArray[np.bool_], sample: npt.NDArray[np.int64]) -> Array:
        n, other = len(joined), torch.from_numpy(sample % background.n_rows)
        keeps_value = torch.cat([torch.from_numpy(joined), torch.ones(n, 1, dtype=torch.bool)], 1)
        tasks = torch.arange(n)
        query = row.take(torch.zeros_like(tasks), tasks, n)
        query = replace(query, x=torch.where(keeps_value[:, of_x], query.x, background.x[other]))
        of_task = tasks.repeat_interleave(n_support)
        rows = support.take(torch.arange(n_support).repeat(n), of_task, n)
        keeps_value, other = (keeps_value | fixed_in_support)[of_task], other[of_task]
        rows = replace(
            rows,
            x=torch.where(keeps_value[:, of_x], rows.x, background.x[other]),
            measured=torch.where(
                keeps_value[:, of_measured], rows.measured, background.measured[other]
            ),
        )
        prediction = model.predict(rows, model.adapt(rows), query)
        return _explained_value(prediction, label)

    return predict


def _features_of(table: TableEncoder, rows: TaskRows) -> tuple[Tensor, Tensor]:
    """Feature number of each column of x and of measured.

    The time columns of x have the number after the last feature; they always keep their values.
    """
    x = torch.full((rows.x.shape[1],), len(table.features))
    measured = torch.zeros(rows.measured.shape[1], dtype=torch.int64)
    for number, feature in enumerate(table.features):
        columns = measured if feature.role == "measured" else x
        columns[table.encoder.places[number]] = number
    return x, measured
