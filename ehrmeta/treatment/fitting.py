"""Fitting of an `EffectModel`: nuisances and effects from settings and training rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms, Dose, Index, read_probabilities
from ehrmeta.treatment.cross_fitting import cross_fit_folds
from ehrmeta.treatment.dose_nuisances import DoseNuisances, fit_dose_nuisances
from ehrmeta.treatment.effect_model import EffectModel, TaskEffects
from ehrmeta.treatment.effects import (
    AnyTaskNuisances,
    Effects,
    MixedEffects,
    fit_population,
    outcome_population,
)
from ehrmeta.treatment.learners import LEARNERS, Scoring, choose_forms, fit_crossed
from ehrmeta.treatment.meta_effects import MetaEffects, MetaOutcomes
from ehrmeta.treatment.nuisances import (
    Nuisances,
    TaskNuisances,
    default_classifiers,
    default_regressors,
    fit_nuisances,
)
from ehrmeta.treatment.treated_rows import TreatedRows, TreatmentEncoder


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
