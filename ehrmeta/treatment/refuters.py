"""Refutation tests: refits to data in which the effect is 0 by construction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import clone

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.treated_rows import TreatedRows

if TYPE_CHECKING:
    from ehrmeta.treatment.response import TreatmentResponse


def refute(model: TreatmentResponse, *, n_repeats: int = 5, random_state: int = 0) -> pd.DataFrame:
    """Refit a model to data in which the effect is 0 by construction.

    If the intervals exclude 0 more often than their level allows, the model is biased here.

    Parameters
    ----------
    model : TreatmentResponse
        Fitted, with arms.
    n_repeats : int
        Refits of each kind. A refit takes as long as the original fit.
    random_state : int

    Returns
    -------
    DataFrame
        By `refuter` and `repeat`: pooled `effect`, the limits `low` and `high` of its interval, and
        whether the interval contains 0, `holds_0`. "placebo treatment" permutes the arms within
        every task; "dummy outcome" replaces the outcome by normal noise of the same mean and sd.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.treatment import TreatmentResponse, refute
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    >>> model = TreatmentResponse(propensity=0.5, final="constant", random_state=0)
    >>> refits = refute(model.fit(X, t + rng.normal(size=200), treatment=t), n_repeats=1)
    >>> refits.holds_0.tolist()
    [True, True]
    """
    arms, cases = model.treatment_, model.tasks_.support
    if not isinstance(arms, Arms):
        raise DataError(
            "refute permutes arms, but the treatment is a dose. Bin the dose into arms first."
        )
    random = np.random.default_rng(random_state)
    refits = []
    for repeat in range(n_repeats):
        noise = random.normal(cases.y.mean(), cases.y.std(), cases.n_rows)
        permuted = _permuted_arms(cases, random)
        for name, y, arm in (
            ("placebo treatment", cases.y, permuted),
            ("dummy outcome", noise, cases.arm),
        ):
            fresh = clone(model).set_params(schema=None, task=None, treatment=None)
            if name == "dummy outcome" and fresh.outcome is not None and cases.is_binary:
                fresh.set_params(outcome=None)
            fresh.fit(
                cases.x,
                y,
                treatment=arms.labels[arm],
                groups=cases.task if cases.n_tasks > 1 else None,
                propensity=cases.known,
            )
            pooled = fresh.tasks_.pooled_effect(T1=arms.labels[1])
            low, high = pooled.interval
            refits.append((name, repeat, pooled.effect, low, high, low <= 0 <= high))
    columns = ["refuter", "repeat", "effect", "low", "high", "holds_0"]
    return pd.DataFrame(refits, columns=columns)


def _permuted_arms(cases: TreatedRows, random: np.random.Generator) -> np.ndarray:
    """Arms permuted within every task."""
    by_task = np.argsort(cases.task, kind="stable")
    shuffled = np.lexsort((random.random(cases.n_rows), cases.task))
    arm = np.empty_like(cases.arm)
    arm[by_task] = cases.arm[shuffled]
    return arm
