"""What each feature of a row moved its adapted prediction by: Shapley values by sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from ehrmeta.errors import DataError
from ehrmeta.estimators.explain import explained_value, label_number, repeated_rows
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.task_rows import TaskRows

if TYPE_CHECKING:
    from ehrmeta.estimators.adapted_explained import Explained

__all__ = ["explain_features", "shapley_shares"]

Array = npt.NDArray[np.float64]
Game: TypeAlias = Callable[[npt.NDArray[np.bool_], npt.NDArray[np.int64]], Array]

_AT_ONCE = 2000  # predictions


def explain_features(
    adapted: Explained,
    query: TaskRows,
    background: TaskRows,
    target: Any,
    *,
    n_samples: int,
    seed: int,
) -> pd.DataFrame:
    """Shares of the prediction of every query row; see `Adapted.explain_features`."""
    label, features = label_number(adapted, target), adapted.model.table_.features
    found = []
    for at, task in enumerate(query.codes.tolist()):
        here = torch.tensor([at])
        asked = repeated_rows(query, here, torch.zeros(1, dtype=torch.int64), 1)
        support = adapted._support.select(torch.tensor([task]))
        game = _game(adapted.model, support, asked, background, label)
        rng = np.random.default_rng(seed)  # the same draws for every row
        base, shares = shapley_shares(game, len(features), n_samples, rng)
        parts = pd.DataFrame(
            {
                "row": int(query.origin[at]),
                "part": ["base", *["feature"] * len(features)],
                "feature": ["", *(feature.name for feature in features)],
                "contribution": [base.mean(), *shares.mean(0)],
                "error": np.std([base, *shares.T], axis=1, ddof=1) / np.sqrt(n_samples),
            }
        )
        found.append(parts)
    if not found:
        raise DataError("explain_features got no rows: pass those that are to be explained.")
    return pd.concat(found).sort_values("row", kind="stable", ignore_index=True)


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
    model: Any, support: TaskRows, asked: TaskRows, background: TaskRows, label: int | None
) -> Game:
    """Prediction of one row where some features are those of another patient."""
    of_x, of_measured = _features_of(model.table_, asked)
    known = [feature.role == "known" for feature in model.table_.features]
    stays = torch.tensor([*known, True])  # in the support
    n_shown = support.n_rows

    def predict(joined: npt.NDArray[np.bool_], sample: npt.NDArray[np.int64]) -> Array:
        n, other = len(joined), torch.from_numpy(sample % background.n_rows)
        own = torch.cat([torch.from_numpy(joined), torch.ones(n, 1, dtype=torch.bool)], 1)
        tasks = torch.arange(n)
        query = repeated_rows(asked, torch.zeros_like(tasks), tasks, n)
        query = replace(query, x=torch.where(own[:, of_x], query.x, background.x[other]))
        of_task = tasks.repeat_interleave(n_shown)
        shown = repeated_rows(support, torch.arange(n_shown).repeat(n), of_task, n)
        own, other = (own | stays)[of_task], other[of_task]
        shown = replace(
            shown,
            x=torch.where(own[:, of_x], shown.x, background.x[other]),
            measured=torch.where(own[:, of_measured], shown.measured, background.measured[other]),
        )
        prediction = model._predict_tasks(shown, model._adapt_tasks(shown), query)
        return explained_value(prediction, label)

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
