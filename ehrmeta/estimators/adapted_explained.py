"""Why adapted tasks are predicted as they are: what the predictions rest on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.data.columns import take_rows
from ehrmeta.errors import DataError
from ehrmeta.estimators.adapted_checks import refuse_new
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.nn.batch import TaskRows

if TYPE_CHECKING:
    from ehrmeta.estimators._base import TaskEstimator

__all__ = ["Explained"]

Array = npt.NDArray[np.float64]


class Explained(ABC):
    """What explains the predictions of adapted tasks: their own rows, similar rows, features."""

    model: TaskEstimator
    _support: TaskRows
    _state: Any

    def own_weight(self, X: Any, *, groups: Any = None, time: Any = None) -> Array:
        """How much a prediction rests on the task's own rows, (row,).

        ``1 - posterior / prior variance`` of the latent outcome: 0 is the population, 1 the task's
        own data. NaN for learners without a posterior.
        """
        query = self._query(X, groups, time)
        weight = self.model._own_weight(self._support, self._state, query)
        return weight[np.argsort(query.origin.numpy())]

    def explain(
        self, X: Any, *, groups: Any = None, time: Any = None, target: Any = None
    ) -> pd.DataFrame:
        """Why each row is predicted as it is: parts that add up to its prediction.

        For numbers, each support row adds its surprise, how far it lay from what the population
        expected of it, times its weight: the coefficient of learners that are linear in the
        outcomes, and the mean derivative between expected and seen outcomes for all others.
        `visits` is what follows from when they were and what else was measured then. For classes
        and baselines, a row adds what leaving it out would take away; `rest` is what no single row
        explains. Under an outcome transform the parts are those of its mean on that scale.

        Parameters
        ----------
        X, groups, time
            As in `predict`.
        target : class label, optional
            Whose probability is explained; of two classes the second by default.

        Returns
        -------
        DataFrame
            `row` (of X), `part` (population, visits, value or rest), `support_row` (as in
            `support_weights`; -1 for other parts), the time it lies `before` the row, `surprise`,
            `weight`, `contribution`, and the row's `own_weight`.
        """
        from ehrmeta.estimators.explain import explain_rows  # imports the estimators

        return explain_rows(self, self._query(X, groups, time), target)

    def explain_features(
        self,
        X: Any,
        *,
        background: Any,
        groups: Any = None,
        time: Any = None,
        target: Any = None,
        n_samples: int = 50,
        random_state: int = 0,
    ) -> pd.DataFrame:
        """What each feature moved the adapted prediction of a row by, from that of other patients.

        Shapley values: features are set, in random order, from those of a background row to the
        row's own, and each is given the change it makes, on average. Static and measured features
        are changed in the task's support rows too, for they are the patient's; its outcomes stay.
        So what the own outcomes tell already is not ascribed to features again, and the share of a
        static feature shrinks as outcomes come in. Time is always the row's own.

        How much features matter over many patients, scikit-learn's `permutation_importance` says
        of a model with ``task=`` and ``time=``.

        Parameters
        ----------
        X, groups, time
            As in `predict`.
        background : frame or array, (row, feature)
            Rows of other patients to compare with, training rows say, without time.
        target
            As in `explain`.
        n_samples : int
            Background rows drawn; each with an order of the features and its reverse.
        random_state : int

        Returns
        -------
        DataFrame
            `row` (of X), `part` (base, the mean prediction with background features; or feature),
            `feature`, its `value` in the row (none for measured ones, whose values are those of the
            support), `contribution`, and the standard `error` of its sampling. Contributions of a
            row add up to what those of `explain` do.

        Examples
        --------
        >>> from ehrmeta.baselines import MixedEffects
        >>> rng = np.random.default_rng(0)
        >>> X, groups = rng.normal(size=(300, 2)), np.repeat(np.arange(50), 6)
        >>> y = 2 * X[:, 0] + rng.normal(size=50)[groups] + rng.normal(0, 0.1, 300)
        >>> patient = MixedEffects().fit(X, y, groups=groups).adapt([[0, 0]], [1.0])
        >>> parts = patient.explain_features([[1.0, 1.0]], background=X)
        >>> parts["feature"].tolist(), float(parts["contribution"][1].round(1))
        (['', 'x0', 'x1'], 2.0)
        """
        from ehrmeta.estimators.explain import explain_features  # imports the estimators

        inputs, codes = self._read(X, groups, time)
        refuse_new(codes)
        n_rows = len(background)
        if not n_rows:
            raise DataError("background has no rows: pass some of other patients.")
        if not isinstance(n_samples, Integral) or n_samples < 2:
            raise DataError(f"n_samples must be a whole number, 2 or more, got {n_samples!r}.")
        drawn = np.random.default_rng(random_state).permutation(n_rows)[:n_samples]
        rows = self._transformed(take_rows(background, np.isin(np.arange(n_rows), drawn)))
        clock = np.zeros(len(drawn)) if self.model.table_.timed else None
        others = self.model._read_fitted(rows, None, None, clock)
        found = explain_features(
            self,
            self.model.table_.rows(inputs, codes, self._support.n_tasks),
            self.model.table_.rows(others, np.zeros(others.n_rows, np.int64), 1),
            target,
            n_samples=n_samples,
            seed=random_state,
        )
        measured = {f.name for f in self.model.table_.features if f.role == "measured"}
        values = [
            inputs.columns[name][row] if name and name not in measured else None
            for row, name in zip(found["row"], found["feature"], strict=True)
        ]
        found.insert(3, "value", pd.Series(values, dtype=object))
        return found

    def support_weights(self, X: Any, *, groups: Any = None, time: Any = None) -> pd.DataFrame:
        """Which support rows a prediction rests on, and how much: similar visits or patients.

        For learners that predict by attention, such as `MatchingNet`.

        Returns
        -------
        DataFrame
            `row` (of X), `support_row` (of the rows passed to adapt, then of those passed to each
            update; -1 is the population) and `weight`; heaviest first, weights of a row sum to 1.
        """
        query = self._query(X, groups, time)
        triples = self.model._support_weights(self._support, self._state, query)
        table = pd.DataFrame(dict(zip(("row", "support_row", "weight"), triples, strict=True)))
        ascending = [True, False, True]
        return table.sort_values(
            ["row", "weight", "support_row"], ascending=ascending, ignore_index=True
        )

    @abstractmethod
    def _read(self, X: Any, groups: Any, time: Any) -> tuple[Inputs, npt.NDArray[np.int64]]:
        """The rows and each one's task number; -1 where its task was not adapted."""

    @abstractmethod
    def _transformed(self, X: Any) -> Any:
        """X after the steps of a pipeline before the model."""

    def _query(self, X: Any, groups: Any, time: Any) -> TaskRows:
        inputs, codes = self._read(X, groups, time)
        refuse_new(codes)
        return self.model.table_.rows(inputs, codes, self._support.n_tasks)
