"""Checks of effects without counterfactuals: refutation tests, and a scorer to select models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import clone

from ehrmeta.data import index_tasks, random_k
from ehrmeta.data.columns import take_rows
from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.policy import rank_score
from ehrmeta.treatment.response import TreatmentResponse
from ehrmeta.treatment.treated_rows import TreatedRows

if TYPE_CHECKING:
    from ehrmeta.treatment.response import TreatmentResponse


_KINDS = ("r", "dr", "autoc", "qini")


@dataclass(frozen=True)
class EffectScorer:
    r"""Scorer of estimated effects on held-out rows, for ``scoring=``.

    The scorer's own nuisance models are cross-fitted on the held-out rows. They are the same for
    every candidate, so that scores of different learners can be compared. Larger is better:

    - "r": :math:`1 - L / L_{constant}` with the R-loss
      :math:`L = \sum (y - m(x) - (t - e(x)) \tau(x))^2`; 0 for the best constant effect;
    - "dr": the same with the weighted squared distance to the doubly robust scores;
    - "autoc", "qini": how well the effect ranks rows by their gain.

    The candidate is adapted to `shots` rows of each task and scored on the other rows.

    Parameters
    ----------
    kind : {"r", "dr", "autoc", "qini"}
    shots : int
        Random rows of every held-out task that the candidate adapts to; 0 scores the population's
        effect. Tasks without other rows are omitted.
    T0, T1 : labels of arms, optional
        The contrast to score.
    outcome, propensity : optional
        Nuisance models of the scorer, as in `TreatmentResponse`.
    random_state : int

    References
    ----------
    Nie and Wager (2021), doi:10.1093/biomet/asaa076; Schuler et al. (2018), arXiv:1804.05146.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.model_selection import GridSearchCV
    >>> from ehrmeta import PatientKFold
    >>> from ehrmeta.treatment import EffectScorer, TreatmentResponse
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"age": rng.normal(size=300), "site": np.repeat(np.arange(10), 30)})
    >>> X["arm"] = rng.integers(0, 2, 300)
    >>> y = X.age + X.arm * (1 + X.age) + rng.normal(size=300)
    >>> model = TreatmentResponse(propensity=0.5, task="site", treatment="arm", random_state=0)
    >>> search = GridSearchCV(
    ...     model,
    ...     {"final": ["constant", "linear"]},
    ...     scoring=EffectScorer("r", propensity=0.5),
    ...     cv=PatientKFold(2, task="site", random_state=0),
    ... )
    >>> search.fit(X, y).best_params_
    {'final': 'linear'}
    """

    kind: Literal["r", "dr", "autoc", "qini"] = "r"
    shots: int = 0
    T0: Any = None
    T1: Any = None
    outcome: Any = None
    propensity: Any = None
    random_state: int = 0

    def __call__(
        self,
        estimator: TreatmentResponse,
        X: Any,
        y: Any,
        *,
        treatment: Any = None,
        groups: Any = None,
    ) -> float:
        """Score of a fitted estimator on held-out rows."""
        if self.kind not in _KINDS:
            raise DataError(f"kind must be one of {_KINDS}, got {self.kind!r}.")
        model = estimator.fitted_model()
        table = model.encoder.read(X, y, groups=groups, treatment=treatment)
        inputs, treatment = table.inputs, np.asarray(table.treatment)
        tasks = inputs.groups
        frame = pd.DataFrame(dict(inputs.columns))
        support, query = np.zeros(len(frame), bool), np.ones(len(frame), bool)
        if self.shots and tasks is not None:
            support, query = random_k(index_tasks(tasks), self.shots, self.random_state)
        names = {"T0": self.T0, "T1": self.T1}
        if support.any() and tasks is not None:
            adapted = estimator.adapt(
                take_rows(frame, support),
                inputs.outcome()[support],
                treatment=treatment[support],
                groups=tasks[support],
            )
            effect = adapted.effect(take_rows(frame, query), groups=tasks[query], **names)
        else:
            effect = estimator.effect(take_rows(frame, query), **names)
        scorer = TreatmentResponse(
            propensity=self.propensity,
            outcome=self.outcome,
            final="constant",
            control=model.arms.labels[0],
            clip=estimator.clip,
            random_state=self.random_state,
        ).fit(
            take_rows(frame, query),
            inputs.outcome()[query],
            treatment=treatment[query],
            groups=None if tasks is None else tasks[query],
        )
        rows = scorer.tasks_
        pair = rows.model.arms.codes_of(self.T0, self.T1)
        if self.kind in ("autoc", "qini"):
            return rank_score(effect, rows.gains(*pair), kind=self.kind)
        pseudo = rows.pseudo_outcomes(self.kind, *pair)
        weight = 1.0 / pseudo.variance
        constant = np.average(pseudo.psi, weights=weight)
        loss = np.sum(weight * (pseudo.psi - effect[pseudo.rows]) ** 2)
        return 1.0 - float(loss / np.sum(weight * (pseudo.psi - constant) ** 2))


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
