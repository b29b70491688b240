"""From a model's settings to fitted nuisances and effects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms, Dose
from ehrmeta.treatment.dose_nuisances import DoseNuisances, fit_dose_nuisances
from ehrmeta.treatment.effects import AnyTaskNuisances, Effects, MixedEffects, outcome_population
from ehrmeta.treatment.learners import LEARNERS, Scoring, choose_forms, fit_crossed
from ehrmeta.treatment.meta_effects import MetaEffects, MetaOutcomes
from ehrmeta.treatment.nuisances import (
    Nuisances,
    TaskNuisances,
    default_classifiers,
    default_regressors,
    fit_nuisances,
)
from ehrmeta.treatment.treated_rows import Cases, read_probabilities

if TYPE_CHECKING:
    from ehrmeta.treatment.response import TreatmentResponse

__all__ = ["check_settings", "learn_effects", "learn_nuisances"]

Index = npt.NDArray[np.int64]


def check_settings(model: TreatmentResponse) -> None:
    """Refuse parameters that no fit can use."""
    if model.learner not in LEARNERS:
        raise DataError(f"learner must be one of {LEARNERS}, got {model.learner!r}.")
    if not 0 < model.clip < 0.5:
        raise DataError(f"clip must lie between 0 and 0.5, got {model.clip!r}.")
    if model.learner == "t" and model.estimator is not None:
        raise DataError(
            "learner='t' takes no estimator=: use 's' (one outcome model with the treatment among "
            "its features), 'dr', 'r' or 'x'."
        )
    if not model.discrete_treatment and model.learner not in ("r", "s"):
        raise DataError(
            f"learner={model.learner!r} compares arms. For a dose pass learner='r' (an effect "
            "linear in the dose) or 's' with an estimator."
        )
    if not model.discrete_treatment and model.learner == "s" and model.estimator is None:
        raise DataError(
            "learner='s' of a dose needs estimator=, for instance MetaRegressor(): it learns the "
            "outcome with the dose as its last feature."
        )
    for part in _as_list(model.outcome):
        if not hasattr(part, "fit"):
            raise DataError(f"outcome must be scikit-learn estimators, got {type(part).__name__}.")


def learn_nuisances(
    model: TreatmentResponse, kind: Arms | Dose, cases: Cases, fold: Index, seed: int
) -> tuple[Nuisances | DoseNuisances, AnyTaskNuisances]:
    """Cross-fit outcome and treatment models as the settings say, and adapt them to the tasks."""
    if isinstance(kind, Dose):
        return fit_dose_nuisances(
            cases,
            fold,
            outcome=_as_list(model.outcome) or default_regressors(),
            dose=_as_list(model.propensity) or default_regressors(),
            random_state=seed,
        )
    binary = set(np.unique(cases.y)) <= {0.0, 1.0}
    default = default_classifiers() if binary else default_regressors()
    known = isinstance(model.propensity, float | int | Mapping)
    return fit_nuisances(
        cases,
        kind.n_arms,
        fold,
        outcome=_as_list(model.outcome) or default,
        propensity=read_probabilities(model.propensity, kind)
        if known
        else _as_list(model.propensity) or default_classifiers(),
        clip=model.clip,
        joint=model.learner == "s",
        random_state=seed,
    )


def learn_effects(
    model: TreatmentResponse,
    nuisances: Nuisances | DoseNuisances,
    cases: Cases,
    adapted: AnyTaskNuisances,
    fold: Index,
    seed: int,
) -> tuple[Effects, list[dict[str, float]]]:
    """Learn the effects of all arms, and the R-scores of the forms tried for each."""
    if model.learner == "s" and model.estimator is not None:
        return MetaOutcomes.fit(model.estimator, cases, adapted), []
    noise = nuisances.noise
    if (
        model.learner in ("s", "t")
        and isinstance(nuisances, Nuisances)
        and isinstance(adapted, TaskNuisances)
    ):
        population, pull = outcome_population(nuisances, cases)
        mu = adapted.population_mu
        values = list((mu[:, 1:] - mu[:, :1]).T)
        return MixedEffects.over(population, pull, cases, adapted, noise, values), []
    scoring = Scoring(model.learner, noise)
    if model.estimator is not None:
        return MetaEffects.fit(model.estimator, scoring, cases, adapted), []
    found = scoring(cases, adapted)
    judges = found if model.learner == "r" else Scoring("r", noise)(cases, adapted)
    crossed = None
    if isinstance(nuisances, Nuisances) and isinstance(adapted, TaskNuisances):
        crossed = [
            partial(
                fit_crossed,
                cases=cases,
                nuisances=nuisances,
                adapted=adapted,
                arm=arm,
                fold=fold,
                random_state=seed,
            )
            for arm in range(1, 1 + len(found))
        ]
    forms = choose_forms(
        cases.x,
        found,
        judges,
        cases.task,
        fold,
        final=model.final,
        crossed=crossed,
        random_state=seed,
    )
    effects = MixedEffects.fit(cases, adapted, noise, forms, found)
    return effects, [form.scores for form in forms]


def _as_list(models: Any) -> list[Any]:
    if models is None:
        return []
    return list(models) if isinstance(models, list | tuple) else [models]
