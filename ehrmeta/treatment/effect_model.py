"""The fitted model inside `TreatmentResponse`: adapts to tasks, predicts, and is saved to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ehrmeta.data import Encoder, Schema
from ehrmeta.errors import BundleError, DataError
from ehrmeta.estimators import MetaClassifier, MetaRegressor
from ehrmeta.estimators.files import Json, State
from ehrmeta.nn.mixed_model import MixedModel
from ehrmeta.persistence.records import read_state, written_state
from ehrmeta.treatment.arms import Arms, Array, Dose
from ehrmeta.treatment.cross_fitting import Stack
from ehrmeta.treatment.deviations import Deviations
from ehrmeta.treatment.dose_nuisances import DoseNuisances
from ehrmeta.treatment.effects import (
    AnyTaskNuisances,
    ArmEffect,
    Effects,
    MixedEffects,
    Moments,
    OutcomeContrast,
    Population,
)
from ehrmeta.treatment.learners import CrossedEffect, Scoring
from ehrmeta.treatment.meta_effects import MetaEffects, MetaOutcomes
from ehrmeta.treatment.nuisances import ArmLevels, LogitShifts, Nuisances
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
