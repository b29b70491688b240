"""Treatment effects learned from many tasks and adapted to new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_feature_names, _check_n_features
from torch import Tensor

from ehrmeta.data import Schema
from ehrmeta.data.columns import collected, level_names, native_column
from ehrmeta.errors import GroupError, NotFittedError
from ehrmeta.estimators.files import Json, Saved, State, from_json, provenance, to_json
from ehrmeta.estimators.inputs import schema_of
from ehrmeta.treatment.adapted_response import AdaptedResponse
from ehrmeta.treatment.arms import AnyArray, Arms, Dose, first_category
from ehrmeta.treatment.effect_model import EffectModel, EffectSettings, fit_effect_model
from ehrmeta.treatment.effects import MixedEffects
from ehrmeta.treatment.meta_effects import MetaEffects, MetaOutcomes
from ehrmeta.treatment.treated_rows import TreatmentEncoder, read_treated

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def _of_population(
    method: Callable[Concatenate[AdaptedResponse, Arguments], Value],
) -> Callable[Concatenate[TreatmentResponse, Arguments], Value]:
    """Apply a method of `AdaptedResponse` to the population: a single task without rows."""

    @wraps(method)
    def of_population(
        model: TreatmentResponse, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Value:
        if kwargs.get("groups") is not None or kwargs.get("new_groups", "error") != "error":
            raise GroupError(
                f"{method.__name__} of a TreatmentResponse is for the population, whatever the "
                "task. Leave groups= and new_groups= out, or call it on adapt(...), or on tasks_ "
                "for the training tasks."
            )
        return method(model.unadapted(), *args, **kwargs)

    return of_population


@dataclass(eq=False, repr=False)
class TreatmentResponse(Saved, BaseEstimator):
    r"""Treatment effects learned from many tasks and adapted to a new task from a few rows.

    Tasks are sites, trials or patients. Outcome and propensity models are trained on *other* tasks
    and then adapted to each task using its other rows, so that a row's outcome and treatment do not
    affect its own nuisances. With a single task, the folds consist of rows. From these models, a
    meta-learner estimates the population's effect :math:`\tau_a(x)`, and a mixed model of the
    residuals estimates each task's deviation from it, which is 0 if tasks do not differ. `effect`
    and the other prediction methods of this class are for the population, with the intervals of a
    new task. After `adapt`, they are for the adapted tasks.

    The model assumes that every confounder is in X or is constant within a task, which no data can
    verify. `AdaptedResponse.diagnostics` shows how strong an unmeasured confounder would have to be
    to explain away the effect.

    Parameters
    ----------
    estimator : estimator over tasks, optional
        Learns the effect instead of the mixed model, for instance ``MetaRegressor()``. With
        ``learner="s"`` it learns the outcome, with the treatment as last feature. Intervals are
        not available.
    learner : {"dr", "r", "x", "t", "s"}
        Meta-learner of the population's effect (`ehrmeta.treatment.learners`). For a dose: "r" (an
        effect linear in the dose), or "s" with an estimator.
    propensity : classifier(s), float or mapping, optional
        Propensity model; by default logistic regression and boosting, stacked. For a randomised
        treatment: the probability of the non-control arm, or a mapping of every arm to its
        probability. For a dose: regressor(s) of the dose.
    outcome : estimator(s), optional
        Outcome model: regressors or, for a binary outcome, classifiers; several are stacked. By
        default ridge (or logistic) regression and boosting.
    final : {"auto", "constant", "linear", "crossed boosting", "boosting"} or regressor
        Form of the population's effect. "auto" takes the simplest form whose held-out R-loss is
        within one standard error of the smallest.
    discrete_treatment : bool
        Whether the treatment consists of arms (numbers or text) or is a dose.
    control : label, optional
        The arm with which others are compared; by default the first category that occurs in an
        ordered categorical (or a polars Enum), else the first arm in sorted order.
    schema : Schema, optional
        Column roles and units; by default taken from X if it belongs to a `Table`. All features
        must be known before the treatment.
    task, treatment : str, optional
        Columns of X that name the task and the treatment, for pipelines and cross-validation.
    n_folds : int
        Number of folds for cross-fitting.
    clip : float
        Lower bound of propensities. Smaller ones are raised to it with a warning, and counted in
        ``n_clipped_``.
    random_state : int, optional

    Attributes
    ----------
    model_ : EffectModel
        The fitted model; usable without this class.
    treatment_ : Arms or Dose
    tasks_ : AdaptedResponse
        The training tasks with their rows, so a fitted model is patient data. `save` does not write
        them, so a loaded model does not have this attribute.
    forms_ : list of str
        Form of every arm's effect, the same for all arms.
    form_scores_ : list of dict
        For each arm, the R-score of every candidate form.
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
            Features, known before the treatment.
        y : array, (row,)
            Outcome: numbers, or 0 and 1.
        treatment : array, (row,)
            Arm or dose; not needed if the parameter `treatment` names a column of X.
        groups : array, (row,), optional
            Task of every row.
        time : array, (row,), optional
            Time of the treatment; passed to `estimator`.
        propensity : array, (row,) or (row, arm), optional
            Known randomisation probabilities of these rows.
        outcome_time : array, (row,), optional
            Time at which the outcome was known. It must not be before `time`.

        Returns
        -------
        self
        """
        X, params = collected(X), self.get_params(deep=False)
        params["random_state"] = int(check_random_state(self.random_state).randint(2**31 - 1))
        settings = EffectSettings(
            **{part.name: params[part.name] for part in fields(EffectSettings)}
        )
        names = schema_of(self.schema, X), self.task, self.treatment
        table = read_treated(X, y, treatment, groups, time, propensity, outcome_time, *names)
        kind = (
            Arms.fit(table.treatment, self._control(X, treatment, table.treatment))
            if self.discrete_treatment
            else Dose.fit(table.treatment, groups=table.inputs.groups)
        )
        encoder = TreatmentEncoder.fit(table, kind, *names)
        rows = encoder.rows(table, of_fit=True)
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
            The support rows, as in `fit`. Without groups they are one task. Without propensities,
            those of the model adapted to the rows are used.

        Returns
        -------
        AdaptedResponse
        """
        model = self.fitted_model()
        table = model.encoder.read(X, y, treatment, groups, time, propensity, outcome_time)
        if table.inputs.n_rows == 0:
            return self.unadapted()
        adapted = AdaptedResponse(model, model.encoder.rows(table))
        adapted.warn_of_gaps()
        return adapted

    def __repr__(self) -> str:
        text: str = super().__repr__()
        arms = self.model_.treatment if hasattr(self, "model_") else None
        return f"{text}, control {arms.labels[0]!s}" if isinstance(arms, Arms) else text

    def _control(self, X: Any, treatment: Any, values: AnyArray | None) -> Any:
        """The control as given, else the first category of an ordered treatment, if it is one."""
        if self.control is not None:
            return self.control
        if treatment is None and self.treatment is not None:
            treatment = native_column(X, self.treatment)
        control = first_category(treatment)
        if control is not None and values is not None and values.dtype == object:
            control = level_names(np.array([control]))[0]
        return control

    def unadapted(self) -> AdaptedResponse:
        """The population: a task without rows. Its intervals are those of a new task."""
        model = self.fitted_model()
        return AdaptedResponse(model, model.encoder.no_rows())

    def fitted_model(self) -> EffectModel:
        """The fitted ``model_``; raises `NotFittedError` before `fit`."""
        if not hasattr(self, "model_"):
            raise NotFittedError("this TreatmentResponse is not fitted yet. Call fit first.")
        return self.model_

    effect = _of_population(AdaptedResponse.effect)
    effect_interval = _of_population(AdaptedResponse.effect_interval)
    arm_effects = _of_population(AdaptedResponse.arm_effects)
    marginal_effect = _of_population(AdaptedResponse.marginal_effect)
    potential_outcomes = _of_population(AdaptedResponse.potential_outcomes)
    ate = _of_population(AdaptedResponse.ate)
    ate_interval = _of_population(AdaptedResponse.ate_interval)
    recommend = _of_population(AdaptedResponse.recommend)

    @property
    def tasks_(self) -> AdaptedResponse:
        """The training tasks."""
        self.fitted_model()
        if not hasattr(self, "_tasks"):
            raise NotFittedError(
                "this TreatmentResponse was loaded from a file, which does not contain the "
                "training tasks, so it has no tasks_. Adapt it to the tasks' rows, or fit again."
            )
        return self._tasks

    @property
    def treatment_(self) -> Arms | Dose:
        """Arms, or the range of the dose."""
        return self.fitted_model().treatment

    @property
    def schema_(self) -> Schema | None:
        """Roles and units of the training columns."""
        return self.fitted_model().encoder.schema

    @property
    def forms_(self) -> list[str]:
        """Form of every arm's effect."""
        effects = self.fitted_model().effects
        if isinstance(effects, MixedEffects):
            return [arm.form for arm in effects.population.arms]
        return [type(self.estimator).__name__]

    @property
    def variation_(self) -> str:
        """Variation of the effects over tasks."""
        effects = self.fitted_model().effects
        if isinstance(effects, MixedEffects):
            return effects.deviations.variation
        return "learned by the estimator"

    def to_state(self) -> State:
        """Models, scales, variances and settings; no row or label of any task.

        A `random_state` that is not an integer is not saved.
        """
        tensors, metadata = self.fitted_model().to_state()
        settings = self.get_params(deep=False)
        settings["estimator"] = None  # saved with the model
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
        """The inverse of `to_state`; `provenance_` records versions and the time of saving."""
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
