"""The fitted thing under `TreatmentResponse`: how it is learned, adapted to tasks, and asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms, Dose
from ehrmeta.treatment.cross_fitting import cross_fit_folds
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
from ehrmeta.treatment.treated_rows import TreatedRows, TreatmentEncoder, read_probabilities

__all__ = ["EffectModel", "EffectSettings", "TaskEffects", "fit_effect_model"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Moments = tuple[Array, Array | None]  # mean and variance of every row; None without a posterior


class TaskEffects(NamedTuple):
    """State of tasks that an `EffectModel` was adapted to.

    Parameters
    ----------
    nuisances : TaskNuisances or TaskDoseNuisances
        What is expected of the support's rows.
    effects : TaskDeviations, or what an estimator over tasks adapts to
    """

    nuisances: AnyTaskNuisances
    effects: Any


@dataclass(frozen=True, eq=False)
class EffectModel:
    """Effects learned over tasks, without any row of theirs: encode, adapt, predict.

    Parameters
    ----------
    encoder : TreatmentEncoder
        Reads a user's rows; knows the arms.
    nuisances : Nuisances or DoseNuisances
        Outcome and treatment models.
    effects : Effects
        The population's effects, and how those of tasks differ.

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
        """The arms; refused of a dose, which has none."""
        if not isinstance(self.treatment, Arms):
            raise DataError("this compares arms: a dose has none. Cut it into arms first.")
        return self.treatment

    def adapt(self, support: TreatedRows) -> TaskEffects:
        """State of tasks given their rows; without rows that of the population."""
        nuisances = self.nuisances.adapt(support)
        return TaskEffects(nuisances, self.effects.adapt(support, nuisances))

    @cached_property
    def population(self) -> TaskEffects:
        """State of one task without rows."""
        return self.adapt(self.encoder.no_rows())

    def contrast(self, query: TreatedRows, state: TaskEffects, zero: Array, one: Array) -> Moments:
        """Effect of treatment `one` over `zero`, as `Arms.pair` gives them, in the rows' tasks."""
        return self.effects.contrast(query, state.effects, zero, one)

    def average(
        self, query: TreatedRows, state: TaskEffects, zero: Array, one: Array
    ) -> tuple[float, float | None]:
        """Mean and variance of that effect averaged over the rows."""
        return self.effects.average(query, state.effects, zero, one)

    def outcomes(self, query: TreatedRows, state: TaskEffects, given: Array) -> Moments:
        """Mean outcome under a treatment, as `Arms.vector` gives it."""
        reference = self.nuisances.reference(query.x)
        return self.effects.outcomes(query, state.effects, given, reference)

    def half_width(self, variance: Any, confidence_level: float) -> Any:
        """Half of an interval's width.

        Raises
        ------
        DataError
            The learner has no posterior of effects, or the level is no probability.
        """
        if not 0.0 < confidence_level < 1.0:
            raise DataError(
                f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
            )
        if variance is None:
            raise DataError(
                "effects of an estimator= come without a posterior, so without intervals. Leave "
                "estimator=None for the mixed model."
            )
        return self.effects.quantile(0.5 + 0.5 * confidence_level) * np.sqrt(variance)


@dataclass(frozen=True, eq=False)
class EffectSettings:
    """How an `EffectModel` is learned: parameters of `TreatmentResponse` by the same names.

    Raises
    ------
    DataError
        No fit can use them.
    """

    estimator: Any = None
    learner: str = "dr"
    propensity: Any = None
    outcome: Any = None
    final: Any = "auto"
    n_folds: int = 5
    clip: float = 0.01
    is_dose: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.learner not in LEARNERS:
            raise DataError(f"learner must be one of {LEARNERS}, got {self.learner!r}.")
        if not 0 < self.clip < 0.5:
            raise DataError(f"clip must lie between 0 and 0.5, got {self.clip!r}.")
        if self.learner == "t" and self.estimator is not None:
            raise DataError(
                "learner='t' takes no estimator=: use 's' (one outcome model with the treatment "
                "among its features), 'dr', 'r' or 'x'."
            )
        if self.is_dose and self.learner not in ("r", "s"):
            raise DataError(
                f"learner={self.learner!r} compares arms. For a dose pass learner='r' (an effect "
                "linear in the dose) or 's' with an estimator."
            )
        if self.is_dose and self.learner == "s" and self.estimator is None:
            raise DataError(
                "learner='s' of a dose needs estimator=, for instance MetaRegressor(): it learns "
                "the outcome with the dose as its last feature."
            )
        for part in _as_list(self.outcome):
            if not hasattr(part, "fit"):
                raise DataError(
                    f"outcome must be scikit-learn estimators, got {type(part).__name__}."
                )


class LearnedEffects(NamedTuple):
    """Fitted effects, their state in the training tasks, and the R-scores of every form tried."""

    effects: Effects
    state: Any
    scores: list[dict[str, float]]


def fit_effect_model(
    encoder: TreatmentEncoder, rows: TreatedRows, settings: EffectSettings
) -> tuple[EffectModel, TaskEffects, list[dict[str, float]]]:
    """Learn effects over the tasks of training rows.

    Returns
    -------
    model : EffectModel
    state : TaskEffects
        Of the training tasks, cross-fitted: no row had a part in what is expected of it.
    scores : list of dict
        R-score of every form of the effect that was tried, by arm.
    """
    strata = None if settings.is_dose else rows.arm
    n_folds = min(settings.n_folds, rows.n_tasks) if rows.n_tasks > 1 else settings.n_folds
    fold = cross_fit_folds(
        rows.task, rows.n_tasks, n_folds, strata=strata, random_state=settings.seed
    )
    nuisances, expected = learn_nuisances(settings, encoder.treatment, rows, fold)
    learned = learn_effects(settings, nuisances, rows, expected, fold)
    state = TaskEffects(expected, learned.state)
    return EffectModel(encoder, nuisances, learned.effects), state, learned.scores


def learn_nuisances(
    settings: EffectSettings, treatment: Arms | Dose, rows: TreatedRows, fold: Index
) -> tuple[Nuisances | DoseNuisances, AnyTaskNuisances]:
    """Cross-fit outcome and treatment models as the settings say, and adapt them to the tasks."""
    outcome, propensity = _as_list(settings.outcome), _as_list(settings.propensity)
    if isinstance(treatment, Dose):
        return fit_dose_nuisances(
            rows,
            fold,
            outcome=outcome or default_regressors(),
            dose=propensity or default_regressors(),
            random_state=settings.seed,
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
        random_state=settings.seed,
    )


def learn_effects(
    settings: EffectSettings,
    nuisances: Nuisances | DoseNuisances,
    rows: TreatedRows,
    expected: AnyTaskNuisances,
    fold: Index,
) -> LearnedEffects:
    """Learn the effects of all arms from what was expected of the training rows."""
    if settings.learner == "s" and settings.estimator is not None:
        outcomes = MetaOutcomes.fit(settings.estimator, rows, expected)
        return LearnedEffects(outcomes, outcomes.adapt(rows, expected), [])
    noise = nuisances.noise
    crossed = None
    if isinstance(nuisances, Nuisances) and isinstance(expected, TaskNuisances):
        if settings.learner in ("s", "t"):
            return _outcome_effects(nuisances, rows, expected)
        crossed = [
            partial(
                fit_crossed,
                cases=rows,
                nuisances=nuisances,
                adapted=expected,
                arm=arm,
                fold=fold,
                random_state=settings.seed,
            )
            for arm in range(1, nuisances.n_arms)
        ]
    scoring = Scoring(settings.learner, noise)
    if settings.estimator is not None:
        effects = MetaEffects.fit(settings.estimator, scoring, rows, expected)
        return LearnedEffects(effects, effects.adapt(rows, expected), [])
    pseudo = scoring(rows, expected)
    judges = pseudo if settings.learner == "r" else Scoring("r", noise)(rows, expected)
    forms = choose_forms(
        rows.x,
        pseudo,
        judges,
        rows.task,
        fold,
        final=settings.final,
        crossed=crossed,
        random_state=settings.seed,
    )
    return LearnedEffects(
        *MixedEffects.fit(rows, expected, noise, forms, pseudo), [form.scores for form in forms]
    )


def _outcome_effects(
    nuisances: Nuisances, rows: TreatedRows, expected: TaskNuisances
) -> LearnedEffects:
    """The S- and the T-learner: effects are differences of the outcome models."""
    population, pull = outcome_population(nuisances, rows)
    values = list((expected.population_mu[:, 1:] - expected.population_mu[:, :1]).T)
    effects = MixedEffects.over(population, pull, rows, expected, nuisances.noise, values)
    return LearnedEffects(*effects, [])


def _as_list(models: Any) -> list[Any]:
    if models is None:
        return []
    return list(models) if isinstance(models, list | tuple) else [models]
