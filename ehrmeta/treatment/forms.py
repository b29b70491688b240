"""The form of an effect: the simplest that the held-out R-loss does not refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import is_regressor
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from ehrmeta.errors import DataError
from ehrmeta.treatment.crossed import CrossedEffect
from ehrmeta.treatment.learners import PseudoOutcomes
from ehrmeta.treatment.stacking import Stack, cross_fit

__all__ = ["EffectForm", "choose_forms", "r_losses", "simplest"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Crossed = Callable[[Any], tuple[CrossedEffect, Array]]


class EffectForm(NamedTuple):
    """A chosen form.

    Parameters
    ----------
    name : str
    stack : Stack, optional
        None where constant or linear.
    values : (row,), optional
        Cross-fitted predictions of the stack.
    scores : dict of str to float
        R-score of every form tried: 1 - loss / loss of a constant.
    """

    name: str
    stack: Stack | CrossedEffect | None
    values: Array | None
    scores: dict[str, float]


def choose_forms(
    x: Array,
    found: Sequence[PseudoOutcomes],
    judges: Sequence[PseudoOutcomes],
    task: Index,
    fold: Index,
    *,
    final: Any = "auto",
    crossed: Sequence[Crossed] | None = None,
    random_state: int = 0,
) -> list[EffectForm]:
    """Fit every form on the folds without a row's own, and judge it by the R-loss there.

    The simplest within one standard error of the best, over tasks (rows where there is one), is
    taken: one form for all arms, as they are compared with each other too.

    Parameters
    ----------
    found : sequence of PseudoOutcomes
        To learn from, of every arm.
    judges : sequence of PseudoOutcomes
        Those of the R-learner: to judge by, the same for all learners.
    final : {"auto", "constant", "linear", "crossed boosting", "boosting"} or regressor
    crossed : sequence of callable, optional
        Makes the X-learner's two regressions of a model; a dose has none.
    """
    models = _models(final, crossed is not None)
    apart = [arm for arm, own in enumerate(found, start=1) if not len(own.rows)]
    if apart:
        raise DataError(
            f"no task has rows of both arms, the control and number {apart[0]} of the others, so "
            "no effect can be learned within any. Name larger tasks in groups=, such as sites, or "
            "leave it out."
        )
    makers: Sequence[Crossed | None] = crossed or [None] * len(found)
    fits = [
        _fits(models, x, own, fold, maker, random_state)
        for own, maker in zip(found, makers, strict=True)
    ]
    losses = [
        {name: r_losses(values, judge) for name, (_, values) in fit.items()}
        for fit, judge in zip(fits, judges, strict=True)
    ]
    chosen = next(iter(models))
    if isinstance(final, str) and final == "auto":
        judged = np.concatenate([judge.rows for judge in judges])
        every = {name: np.concatenate([loss[name] for loss in losses]) for name in models}
        total = {name: np.bincount(judged, loss, len(x)) for name, loss in every.items()}
        rows = np.unique(judged)
        chosen = simplest({name: loss[rows] for name, loss in total.items()}, task[rows])
    forms = []
    for fit, loss in zip(fits, losses, strict=True):
        stack, values = fit[chosen] if chosen not in ("constant", "linear") else (None, None)
        forms.append(EffectForm(chosen, stack, values, _scores(loss)))
    return forms


def _fits(
    models: dict[str, Any],
    x: Array,
    found: PseudoOutcomes,
    fold: Index,
    crossed: Crossed | None,
    random_state: int,
) -> dict[str, tuple[Any, Array]]:
    """Every form of one arm's effect, and its cross-fitted values, (row,)."""
    inside = np.zeros(len(x), bool)
    inside[found.rows] = True
    psi, weight = np.zeros(len(x)), np.zeros(len(x))
    psi[found.rows], weight[found.rows] = found.psi, 1.0 / found.variance
    return {
        name: crossed(model)
        if name == "crossed boosting" and crossed is not None
        else cross_fit(
            [model], x, psi, fold, train=inside, weight=weight, random_state=random_state
        )
        for name, model in models.items()
    }


def _scores(losses: dict[str, Array]) -> dict[str, float]:
    constant = float(losses["constant"].mean())
    floor = np.finfo(float).tiny  # where outcomes are constant nothing is left to explain
    return {name: 1.0 - float(loss.mean()) / max(constant, floor) for name, loss in losses.items()}


def r_losses(effect: Array, judge: PseudoOutcomes) -> Array:
    """``(y - m(x) - (t - e(x)) tau(x))^2`` relative to the noise, (n,), of an effect (row,)."""
    return np.asarray((judge.psi - effect[judge.rows]) ** 2 / judge.variance)


def simplest(losses: dict[str, Array], task: Index) -> str:
    """The first name whose loss is within one standard error of the smallest, over tasks.

    Examples
    --------
    >>> simplest(
    ...     {"simple": np.array([1.0, 2.0, 3.0]), "other": np.array([1.0, 2.1, 2.7])}, np.arange(3)
    ... )
    'simple'
    """
    best = min(losses, key=lambda name: float(losses[name].mean()))
    for name, loss in losses.items():
        excess = loss - losses[best]
        counts = np.bincount(task)
        if np.count_nonzero(counts) > 1:
            excess = np.bincount(task, excess)[counts > 0] / counts[counts > 0].mean()
        if excess.mean() <= excess.std(ddof=1) / np.sqrt(len(excess)):
            return name
    return best


def _models(final: Any, arms: bool) -> dict[str, Any]:
    """Candidates, the simplest first; a constant always, to compare with."""
    boosting = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=100, max_leaf_nodes=6, early_stopping=False
    )
    models: dict[str, Any] = {
        "constant": DummyRegressor(),
        "linear": LinearRegression(),
        "crossed boosting": boosting,
        "boosting": boosting,
    }
    if not arms:
        del models["crossed boosting"]
    if isinstance(final, str) and final == "auto":
        return models
    if isinstance(final, str) and final in models:
        return {final: models[final]} | {"constant": models["constant"]}
    if not isinstance(final, str) and is_regressor(final):
        return {type(final).__name__: final, "constant": models["constant"]}
    raise DataError(
        f"final must be 'auto', 'constant', 'linear', 'crossed boosting', 'boosting' or a "
        f"regressor, got {final!r}."
    )
