"""Treatment response over many tasks: learned together, adapted to one more."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_feature_names, _check_n_features
from torch import Tensor

from ehrmeta.data import Schema
from ehrmeta.errors import NotFittedError
from ehrmeta.estimators.files import Json, Saved, State, from_json, provenance, to_json
from ehrmeta.estimators.inputs import schema_of
from ehrmeta.treatment.adapted_response import AdaptedResponse
from ehrmeta.treatment.arms import Arms, Array, Dose
from ehrmeta.treatment.effect_model import EffectModel
from ehrmeta.treatment.effects import MixedEffects
from ehrmeta.treatment.fitting import EffectSettings, fit_effect_model
from ehrmeta.treatment.meta_effects import MetaEffects, MetaOutcomes
from ehrmeta.treatment.treated_rows import TreatmentEncoder, read_treated


@dataclass(eq=False, repr=False)
class TreatmentResponse(Saved, BaseEstimator):
    r"""Learns over many tasks what a treatment changes, and adapts to one more from a few rows.

    Tasks are sites, trials or patients. Outcome and propensity models are trained on *other* tasks
    and then adapted to each task by its other rows, so that no row scores itself; with fewer than
    two tasks the folds are rows. A learner turns them into the population's effect
    :math:`\tau_a(x)`, and a mixed model of what is left gives every task's deviation from it, which
    is 0 where tasks do not differ.

    It assumes that all that drives treatment and outcome together is in X or is a level of the
    task; no data can show that this is so. See `diagnostics` for how much would have to be missing.

    Parameters
    ----------
    estimator : estimator over tasks, optional
        For instance ``MetaRegressor()``: learns and adapts the effect in place of the mixed model
        (with ``learner="s"`` the outcome, the treatment as its last feature). Its effects have no
        intervals.
    learner : {"dr", "r", "x", "t", "s"}
        Pseudo-outcomes of the population's effect (`ehrmeta.treatment.learners`). A dose takes "r",
        linear in the dose, or "s" with an estimator.
    propensity : classifier(s), float or mapping, optional
        What learns the propensities: by default logistic regression and boosting, stacked. For a
        randomised treatment the probability of the second of two arms, or of every arm.
    outcome : estimator(s), optional
        What learns the outcome: regressors or, where it is 0 or 1, classifiers; several are
        stacked. By default ridge (logistic) regression and boosting.
    final : {"auto", "constant", "linear", "crossed boosting", "boosting"} or regressor
        Form of the population's effect; "auto" takes the simplest within one standard error of the
        best in the held-out R-loss.
    discrete_treatment : bool
        Arms, numbers or text; else a dose.
    control : label, optional
        The arm that others are compared to; the first in their order by default.
    schema : Schema, optional
        Column roles and units; a `Table`'s X brings its own. All features must be known before
        the treatment.
    task, treatment : str, optional
        Columns of X that name the task and the treatment, for pipelines and cross-validation.
    n_folds : int
        For cross-fitting.
    clip : float
        Smaller propensities are raised to it, counted in ``n_clipped_`` and warned of.
    random_state : int, optional

    Attributes
    ----------
    model_ : EffectModel
        What was fitted; usable without this class.
    treatment_ : Arms or Dose
    tasks_ : AdaptedResponse
        The training tasks. It holds their rows, so that a fitted model is patient data; what `save`
        writes is not, and has no such attribute after loading.
    forms_ : list of str
        Chosen form of every arm's effect; one for all arms.
    form_scores_ : list of dict
        R-score of every form tried.
    variation_ : str
        How effects differ over tasks: "none", "level", "common slopes" or "slopes".

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.treatment import TreatmentResponse
    >>> rng = np.random.default_rng(0)
    >>> X, site = rng.normal(size=(400, 2)), np.repeat(np.arange(8), 50)
    >>> t = rng.integers(0, 2, 400)
    >>> y = X[:, 0] + t * (1 + X[:, 1]) + rng.normal(size=400)
    >>> model = TreatmentResponse(propensity=0.5, final="linear", random_state=0)
    >>> model = model.fit(X, y, treatment=t, groups=site)
    >>> model.effect([[0.0, 0.0], [0.0, 1.0]]).round(1)
    array([1. , 1.9])
    """

    estimator: Any = None
    learner: str = "dr"
    propensity: Any = None
    _: KW_ONLY
    outcome: Any = None
    final: Any = "auto"
    discrete_treatment: bool = True
    control: Any = None
    schema: Schema | None = None
    task: str | None = None
    treatment: str | None = None
    n_folds: int = 5
    clip: float = 0.01
    random_state: int | None = None
    file_kind: ClassVar[str] = "effects"
    __metadata_request__fit: ClassVar[dict[str, bool]] = dict.fromkeys(
        ("groups", "time", "treatment", "propensity", "outcome_time"), True
    )

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any = None,
        groups: Any = None,
        time: Any = None,
        propensity: Any = None,
        outcome_time: Any = None,
    ) -> Self:
        """Learn the effects over the tasks of a table.

        Parameters
        ----------
        X : frame or array, (row, feature)
            Known before the treatment.
        y : array, (row,)
            Outcome: numbers, or 0 and 1.
        treatment : array, (row,)
            Arm or dose; not needed where it is a column of X that the model names.
        groups : array, (row,), optional
            Task of every row.
        time : array, (row,), optional
            Of the treatment; handed to `estimator`.
        propensity : array, (row,) or (row, arm), optional
            Known randomisation probabilities of these rows.
        outcome_time : array, (row,), optional
            When the outcome was known: refused where that is before `time`.

        Returns
        -------
        self
        """
        params = self.get_params(deep=False)
        params["random_state"] = int(check_random_state(self.random_state).randint(2**31 - 1))
        settings = EffectSettings(
            **{part.name: params[part.name] for part in fields(EffectSettings)}
        )
        schema = schema_of(self.schema, X)
        table = read_treated(
            X,
            y,
            treatment=treatment,
            groups=groups,
            time=time,
            propensity=propensity,
            outcome_time=outcome_time,
            schema=schema,
            task_column=self.task,
            treatment_column=self.treatment,
        )
        kind = (
            Arms.fit(table.treatment, self.control)
            if self.discrete_treatment
            else Dose.fit(table.treatment, groups=table.inputs.groups)
        )
        encoder = TreatmentEncoder.fit(table, kind, schema, self.task, self.treatment)
        rows = encoder.rows(table)
        self.model_, state, self.form_scores_ = fit_effect_model(encoder, rows, settings)
        _check_feature_names(self, X, reset=True)
        _check_n_features(self, X, reset=True)
        self.n_tasks_ = rows.n_tasks
        self._tasks = AdaptedResponse(self.model_, rows, state)
        self._tasks.warn_of_gaps()
        return self

    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any = None,
        groups: Any = None,
        time: Any = None,
        propensity: Any = None,
        outcome_time: Any = None,
    ) -> AdaptedResponse:
        """Adapt to new tasks from their rows, without refitting.

        Parameters
        ----------
        X, y, treatment, groups, time, propensity, outcome_time
            The support rows, as in `fit`. Without groups they are one task. With `propensity` it
            is taken as it is; without, it is learned from the rows' features and treatments.

        Returns
        -------
        AdaptedResponse
        """
        model = self.fitted_model()
        table = model.encoder.read(
            X,
            y,
            treatment=treatment,
            groups=groups,
            time=time,
            propensity=propensity,
            outcome_time=outcome_time,
        )
        if table.inputs.n_rows == 0:
            return self.unadapted()
        adapted = AdaptedResponse(model, model.encoder.rows(table))
        adapted.warn_of_gaps(stacklevel=3)
        return adapted

    def unadapted(self) -> AdaptedResponse:
        """The population as a task without rows; its intervals are those of a new task."""
        model = self.fitted_model()
        return AdaptedResponse(model, model.encoder.no_rows())

    def fitted_model(self) -> EffectModel:
        """``model_``, or an error that says to fit first."""
        if not hasattr(self, "model_"):
            raise NotFittedError("this TreatmentResponse is not fitted yet. Call fit first.")
        return self.model_

    def effect(self, X: Any, *, T0: Any = None, T1: Any = None) -> Array:
        """The population's mean effect at the rows' features, (row,)."""
        return self.unadapted().effect(X, T0=T0, T1=T1)

    def effect_interval(
        self, X: Any, *, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> Array:
        """Interval of the mean effect in a new task without rows, (row, 2); 95 % by default."""
        return self.unadapted().effect_interval(X, T0=T0, T1=T1, confidence_level=confidence_level)

    def arm_effects(self, X: Any) -> Array:
        """The population's mean effect of every arm over the control, (row, arm - 1)."""
        return self.unadapted().arm_effects(X)

    def marginal_effect(self, T: Any = None, X: Any = None) -> Array:
        """Derivative of the population's mean outcome; see `AdaptedResponse.marginal_effect`."""
        return self.unadapted().marginal_effect(T, X)

    def potential_outcomes(self, X: Any, T: Any = None) -> Array:
        """Mean outcome under every arm, (row, arm), or under `T`, (row,)."""
        return self.unadapted().potential_outcomes(X, T)

    def ate(self, X: Any, *, T0: Any = None, T1: Any = None) -> float:
        """Average of the population's effect over rows."""
        return self.unadapted().ate(X, T0=T0, T1=T1)

    def ate_interval(
        self, X: Any, *, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> Array:
        """Interval of the average effect in a new task without rows, (2,); 95 % by default."""
        return self.unadapted().ate_interval(X, T0=T0, T1=T1, confidence_level=confidence_level)

    def recommend(
        self,
        X: Any,
        *,
        higher_is_better: bool,
        costs: Mapping[Any, float] | None = None,
        confidence_level: float = 0.95,
    ) -> pd.DataFrame:
        """The arm with the best mean outcome at each row; see `AdaptedResponse.recommend`.

        The interval of its margin is a 95 % one by default.
        """
        return self.unadapted().recommend(
            X, higher_is_better=higher_is_better, costs=costs, confidence_level=confidence_level
        )

    @property
    def tasks_(self) -> AdaptedResponse:
        """The training tasks."""
        self.fitted_model()
        if not hasattr(self, "_tasks"):
            raise NotFittedError(
                "this TreatmentResponse comes from a file, which holds no training task, so there "
                "is no tasks_. Adapt to rows of the tasks, or fit again."
            )
        return self._tasks

    @property
    def treatment_(self) -> Arms | Dose:
        """Arms, or the range of the dose."""
        return self.fitted_model().treatment

    @property
    def schema_(self) -> Schema | None:
        """Roles and units of the columns of fit."""
        return self.fitted_model().encoder.schema

    @property
    def forms_(self) -> list[str]:
        """Chosen form of every arm's effect."""
        effects = self.fitted_model().effects
        if isinstance(effects, MixedEffects):
            return [arm.form for arm in effects.population.arms]
        return [type(self.estimator).__name__]

    @property
    def variation_(self) -> str:
        """How effects differ over tasks."""
        effects = self.fitted_model().effects
        if isinstance(effects, MixedEffects):
            return effects.deviations.variation
        return "as the estimator has it"

    def to_state(self) -> State:
        """Models, scales, variances and settings; no row or label of any task.

        A generator given as `random_state` is not kept.
        """
        tensors, metadata = self.fitted_model().to_state()
        settings = self.get_params(deep=False)
        settings["estimator"] = None  # is in the model
        if isinstance(self.propensity, Mapping):
            settings["propensity"] = tuple(self.propensity.items())
        if not isinstance(self.random_state, int | np.integer):
            settings["random_state"] = None
        names = getattr(self, "feature_names_in_", None)
        return tensors, metadata | {
            "class": "TreatmentResponse",
            "settings": {name: to_json(value, name) for name, value in settings.items()},
            "form_scores": self.form_scores_,
            "n_tasks": self.n_tasks_,
            "n_features_in": self.n_features_in_,
            "feature_names_in": None if names is None else [str(name) for name in names],
            "provenance": provenance(settings["random_state"], None),
        }

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> Self:
        """The inverse of `to_state`; `provenance_` says what it was saved with and when."""
        model = EffectModel.from_state(tensors, metadata, device)
        settings = {name: from_json(value) for name, value in metadata["settings"].items()}
        pairs = settings["propensity"]
        if isinstance(pairs, tuple) and all(isinstance(pair, tuple) for pair in pairs):
            settings["propensity"] = dict(pairs)
        if isinstance(model.effects, MetaEffects | MetaOutcomes):
            settings["estimator"] = clone(model.effects.estimator)
        response = cls(**settings)
        response.model_, response.form_scores_ = model, metadata["form_scores"]
        response.n_tasks_ = metadata["n_tasks"]
        response.n_features_in_ = metadata["n_features_in"]
        if metadata["feature_names_in"] is not None:
            response.feature_names_in_ = np.asarray(metadata["feature_names_in"], dtype=object)
        response.provenance_ = metadata["provenance"]
        return response
