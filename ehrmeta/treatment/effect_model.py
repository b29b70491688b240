"""The model inside `TreatmentResponse`: its fit to rows, adaptation to tasks, and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ehrmeta.data import Encoder, Schema
from ehrmeta.errors import BundleError, DataError
from ehrmeta.estimators import MetaClassifier, MetaRegressor
from ehrmeta.estimators.files import Json, State
from ehrmeta.nn.mixed_model import MixedModel
from ehrmeta.persistence.records import read_state, written_state
from ehrmeta.treatment.arms import Arms, Array, Dose, Index, read_probabilities
from ehrmeta.treatment.cross_fitting import Stack, cross_fit_folds
from ehrmeta.treatment.deviations import Deviations
from ehrmeta.treatment.effects import (
    AnyTaskNuisances,
    ArmEffect,
    Effects,
    MixedEffects,
    Moments,
    OutcomeContrast,
    Population,
    fit_population,
    outcome_population,
)
from ehrmeta.treatment.learners import LEARNERS, CrossedEffect, Scoring, choose_forms, fit_crossed
from ehrmeta.treatment.meta_effects import MetaEffects, MetaOutcomes
from ehrmeta.treatment.nuisances import (
    ArmLevels,
    DoseNuisances,
    LogitShifts,
    Nuisances,
    TaskNuisances,
    default_classifiers,
    default_regressors,
    fit_dose_nuisances,
    fit_nuisances,
)
from ehrmeta.treatment.treated_rows import TreatedRows, TreatmentEncoder


class TaskEffects(NamedTuple):
    """State of tasks that an `EffectModel` was adapted to."""

    nuisances: AnyTaskNuisances  # of the support rows
    effects: Any


@dataclass(frozen=True, eq=False)
class EffectModel:
    """Treatment effects learned from many tasks, without the rows of these tasks.

    Parameters
    ----------
    encoder : TreatmentEncoder
        Reads a user's rows and encodes them.
    nuisances : Nuisances or DoseNuisances
        Outcome and treatment models.
    effects : Effects
        The population's effects and their variation over tasks.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.treatment import TreatmentResponse
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(200, 1)), rng.integers(0, 2, 200)
    >>> fitted = TreatmentResponse(propensity=0.5, final="constant", random_state=0)
    >>> model = fitted.fit(X, 2 * t + rng.normal(size=200), treatment=t).model_
    >>> support = model.encoder.rows(model.encoder.read(X[:9], t[:9], treatment=t[:9]))
    >>> mean, variance = model.contrast(support, model.adapt(support), *model.treatment.pair())
    >>> mean.shape, variance.shape
    ((9,), (9,))
    """

    encoder: TreatmentEncoder
    nuisances: Nuisances | DoseNuisances
    effects: Effects

    @property
    def treatment(self) -> Arms | Dose:
        """Arms, or the range of a dose."""
        return self.encoder.treatment

    @property
    def arms(self) -> Arms:
        """The arms; raises a `DataError` for a dose."""
        if not isinstance(self.treatment, Arms):
            raise DataError(
                "this method compares arms, but the treatment is a dose. Bin the dose into arms "
                "first."
            )
        return self.treatment

    def adapt(self, support: TreatedRows) -> TaskEffects:
        """State of the tasks given their rows; without rows, the population's."""
        nuisances = self.nuisances.adapt(support)
        return TaskEffects(nuisances, self.effects.adapt(support, nuisances))

    @cached_property
    def population(self) -> TaskEffects:
        """State of one task without rows."""
        return self.adapt(self.encoder.no_rows())

    def contrast(self, query: TreatedRows, state: TaskEffects, zero: Array, one: Array) -> Moments:
        """Effect of treatment `one` over `zero` (see `Arms.pair`) for each row in its task."""
        return self.effects.contrast(query, state.effects, zero, one)

    def average(
        self, query: TreatedRows, state: TaskEffects, zero: Array, one: Array
    ) -> tuple[float, float | None]:
        """Mean and variance of the `contrast` averaged over the rows."""
        return self.effects.average(query, state.effects, zero, one)

    def outcomes(self, query: TreatedRows, state: TaskEffects, given: Array) -> Moments:
        """Mean outcome under a treatment (see `Arms.vector`) for each row in its task."""
        reference = self.nuisances.reference(query.x)
        return self.effects.outcomes(query, state.effects, given, reference)

    def to_state(self) -> State:
        """Tensors and JSON for a file: models, scales and variances, but no task's rows.

        Raises
        ------
        BundleError
            A part cannot be saved, or an arm was given in fewer than ten rows.
        """
        model = self
        if isinstance(self.treatment, Dose):  # the ends of the range are individual patients' doses
            low, high = self.treatment.shared
            dose = replace(self.treatment, low=low, high=high)
            model = replace(self, encoder=replace(self.encoder, treatment=dose))
        elif isinstance(self.nuisances, Nuisances):
            n_rows = self.nuisances.n_rows * self.nuisances.mean_propensity
            if n_rows.min() < _FEWEST_ROWS - 0.5:
                raise BundleError(
                    f"arm {int(n_rows.argmin())} of {len(n_rows)} (0 is the control) was given in "
                    f"fewer than {_FEWEST_ROWS} rows, so the file could identify patients. Remove "
                    "the arm and fit again."
                )
        tensors, plain = written_state((model.encoder, model.nuisances, model.effects), _SAVED)
        return tensors, {"kind": "effects", "model": plain}

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> EffectModel:
        """The inverse of `to_state`, with a check that the parts fit together.

        Raises
        ------
        BundleError
            The parts do not fit together.
        """
        model = cls(*read_state(tensors, metadata["model"], _SAVED, device))
        if not model._fits_together():
            raise BundleError("its outcome, treatment and effect models do not fit together.")
        return model

    def _fits_together(self) -> bool:
        """Whether all parts have the same arms and features, tested on rows of zeros."""
        try:
            with np.errstate(all="ignore"):
                return self._sizes_agree() and self._predicts()
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            return False

    def _sizes_agree(self) -> bool:
        """Whether all parts have the same numbers of arms and features."""
        nuisances, effects, is_dose = self.nuisances, self.effects, isinstance(self.treatment, Dose)
        n_arms, n_effects = self.treatment.vectors.shape
        agree = [
            isinstance(nuisances, DoseNuisances if is_dose else Nuisances),
            len(nuisances.noise) == (1 if is_dose else n_arms),
        ]
        if isinstance(self.treatment, Arms) and isinstance(nuisances, Nuisances):
            agree += [
                len(set(self.treatment.labels.tolist())) == n_arms,
                nuisances.n_arms == len(nuisances.mean_propensity) == n_arms,
                len(nuisances.outcome) in (1, n_arms),
                0 < nuisances.clip < 0.5,
            ]
        if isinstance(effects, MetaEffects):
            agree.append(len(effects.models) == n_effects)
        if isinstance(effects, MixedEffects):
            widths = (1, 1 + len(self.encoder.features.fixed_names))
            deviations = effects.deviations
            agree += [deviations.n_effects == n_effects, deviations.width in widths]
        names = ("levels", "outcome_levels", "dose_levels")
        parts = [getattr(nuisances, name, None) for name in names]
        for part in (*parts, getattr(effects, "deviations", None)):
            if part is not None and part.model is not None:
                agree.append(part.model.beta_cov.shape == 2 * part.model.beta.shape)
        return all(agree) and isinstance(effects, Effects)

    def _predicts(self) -> bool:
        """Whether encoded rows of zeros, two per arm, have finite effects and outcomes."""
        zeros = np.zeros(2 * len(self.treatment.vectors))
        encoded, _ = self.encoder.features.transform(dict.fromkeys(self.encoder.columns, zeros[:0]))
        x = np.zeros((len(zeros), encoded.shape[1]))
        arm = np.arange(len(zeros)) // 2
        given = arm if isinstance(self.treatment, Arms) else arm.astype(np.float64)
        shares = np.full((len(zeros), len(self.treatment.vectors)), 1 / len(self.treatment.vectors))
        is_known = isinstance(self.nuisances, Nuisances) and self.nuisances.propensity is None
        task = np.zeros(len(zeros), np.int64)
        rows = TreatedRows(x, zeros, given, task, 1, known=shares if is_known else None)
        if not isinstance(self.effects, MixedEffects):  # estimators are checked when read
            return bool(np.isfinite(self.nuisances.adapt(rows).residual_offset).all())
        state, vectors = self.adapt(rows), self.treatment.vectors
        predictions = [
            *self.contrast(rows, state, vectors[0], vectors[-1]),
            *self.outcomes(rows, state, vectors[-1]),
            *self.contrast(rows, self.population, vectors[0], vectors[-1]),
        ]
        return all(
            values is not None and values.shape == zeros.shape and bool(np.isfinite(values).all())
            for values in predictions
        )


_FEWEST_ROWS = 10  # rows that every arm needs before a model may be saved
# The classes that a file of effects may contain.
_SAVED = {
    made.__name__: made
    for made in (
        *(TreatmentEncoder, Encoder, Schema, Arms, Dose),
        *(Nuisances, DoseNuisances, ArmLevels, LogitShifts, MixedModel, Stack),
        *(MixedEffects, Population, ArmEffect, OutcomeContrast, CrossedEffect, Deviations),
        *(MetaEffects, MetaOutcomes, Scoring, MetaRegressor, MetaClassifier),
    )
}


@dataclass(frozen=True, eq=False)
class EffectSettings:
    """Settings of a fit, with the names of the parameters of `TreatmentResponse`.

    Raises
    ------
    DataError
        A setting is invalid.
    """

    estimator: Any = None
    learner: str = "dr"
    propensity: Any = None
    outcome: Any = None
    final: Any = "auto"
    n_folds: int = 5
    clip: float = 0.01
    discrete_treatment: bool = True
    random_state: int = 0

    def __post_init__(self) -> None:
        if self.learner not in LEARNERS:
            raise DataError(f"learner must be one of {LEARNERS}, got {self.learner!r}.")
        if not 0 < self.clip < 0.5:
            raise DataError(f"clip must lie between 0 and 0.5, got {self.clip!r}.")
        if self.learner == "t" and self.estimator is not None:
            raise DataError(
                "learner='t' does not take estimator=. Use 's' (one outcome model with the "
                "treatment among its features), 'dr', 'r' or 'x'."
            )
        if not self.discrete_treatment and self.learner not in ("r", "s"):
            raise DataError(
                f"learner={self.learner!r} compares arms. For a dose pass learner='r' (an effect "
                "linear in the dose) or 's' with an estimator."
            )
        if not self.discrete_treatment and self.learner == "s" and self.estimator is None:
            raise DataError(
                "learner='s' for a dose needs estimator=, for instance MetaRegressor(), which "
                "learns the outcome with the dose as its last feature."
            )
        for model in _as_list(self.outcome):
            if not hasattr(model, "fit"):
                kind = type(model).__name__
                raise DataError(
                    f"outcome= must be a scikit-learn estimator or a list of them, got {kind}."
                )


def fit_effect_model(
    encoder: TreatmentEncoder, rows: TreatedRows, settings: EffectSettings
) -> tuple[EffectModel, TaskEffects, list[dict[str, float]]]:
    """Learn nuisances and effects from training rows.

    Returns
    -------
    model : EffectModel
    state : TaskEffects
        Cross-fitted state of the training tasks.
    scores : list of dict
        For each arm, the R-score of every candidate form of the effect.
    """
    strata = rows.arm if settings.discrete_treatment else None
    n_folds = min(settings.n_folds, rows.n_tasks) if rows.n_tasks > 1 else settings.n_folds
    fold = cross_fit_folds(
        rows.task, rows.n_tasks, n_folds, strata=strata, random_state=settings.random_state
    )
    nuisances, adapted = _fit_nuisances(settings, encoder.treatment, rows, fold)
    effects, state, scores = _fit_effects(settings, nuisances, rows, adapted, fold)
    return EffectModel(encoder, nuisances, effects), TaskEffects(adapted, state), scores


def _fit_nuisances(
    settings: EffectSettings, treatment: Arms | Dose, rows: TreatedRows, fold: Index
) -> tuple[Nuisances | DoseNuisances, AnyTaskNuisances]:
    """Cross-fit outcome and treatment models, and adapt them to the tasks."""
    outcome, propensity = _as_list(settings.outcome), _as_list(settings.propensity)
    if isinstance(treatment, Dose):
        return fit_dose_nuisances(
            rows,
            fold,
            outcome=outcome or default_regressors(),
            dose=propensity or default_regressors(),
            random_state=settings.random_state,
        )
    is_known = isinstance(settings.propensity, float | int | Mapping)
    return fit_nuisances(
        rows,
        treatment.n_arms,
        fold,
        outcome=outcome or (default_classifiers() if rows.is_binary else default_regressors()),
        propensity=read_probabilities(settings.propensity, treatment)
        if is_known
        else propensity or default_classifiers(),
        clip=settings.clip,
        joint=settings.learner == "s",
        random_state=settings.random_state,
    )


def _fit_effects(
    settings: EffectSettings,
    nuisances: Nuisances | DoseNuisances,
    rows: TreatedRows,
    adapted: AnyTaskNuisances,
    fold: Index,
) -> tuple[Effects, Any, list[dict[str, float]]]:
    """Effects of all arms, their state in the training tasks, and scores of the candidate forms."""
    if settings.learner == "s" and settings.estimator is not None:
        outcomes = MetaOutcomes.fit(settings.estimator, rows, adapted)
        return outcomes, outcomes.adapt(rows, adapted), []
    noise = nuisances.noise
    crossed = None
    if isinstance(nuisances, Nuisances) and isinstance(adapted, TaskNuisances):
        if settings.learner in ("s", "t"):
            population, pull = outcome_population(nuisances, rows)
            contrasts = list((adapted.population_mu[:, 1:] - adapted.population_mu[:, :1]).T)
            return *MixedEffects.fit(population, pull, rows, adapted, noise, contrasts), []
        crossed = partial(fit_crossed, rows, nuisances, adapted, fold, settings.random_state)
    scoring = Scoring(settings.learner, noise)
    if settings.estimator is not None:
        effects = MetaEffects.fit(settings.estimator, scoring, rows, adapted)
        return effects, effects.adapt(rows, adapted), []
    pseudo = scoring(rows, adapted)
    forms = choose_forms(
        rows.x,
        pseudo,
        Scoring("r", noise)(rows, adapted),
        rows.task,
        fold,
        final=settings.final,
        crossed=crossed,
        random_state=settings.random_state,
    )
    values = [form.values for form in forms]
    mixed = MixedEffects.fit(*fit_population(rows, forms, pseudo), rows, adapted, noise, values)
    return *mixed, [form.scores for form in forms]


def _as_list(models: Any) -> list[Any]:
    if models is None:
        return []
    return list(models) if isinstance(models, list | tuple) else [models]
