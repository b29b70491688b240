"""Model selection without counterfactuals: a scorer of effects for scikit-learn's searches."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from ehrmeta.data import index_tasks, random_k
from ehrmeta.data.columns import take_rows
from ehrmeta.errors import DataError
from ehrmeta.treatment.policy import rank_score
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
