"""Meta-learning for real-valued outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from sklearn.base import RegressorMixin

from ehrmeta.algorithms import Algorithm, DeepMixedEffects, part
from ehrmeta.data import Schema
from ehrmeta.data.schema import Transform
from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.learner import AdaptedChunk
from ehrmeta.estimators.meta import MetaEstimator
from ehrmeta.estimators.predictive import CarriedPredictive, Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.backbone import Backbone
from ehrmeta.nn.batch import TaskRows
from ehrmeta.nn.likelihoods import LIKELIHOODS, Distribution, Likelihood
from ehrmeta.training import Callback

__all__ = ["MetaRegressor"]

Array = npt.NDArray[np.float64]


class MetaRegressor(MetaEstimator, TaskRegressor):
    """Learns over many tasks how to predict a new one from a few of its rows.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The meta-learner; `DeepMixedEffects` by default.
    backbone : Backbone, optional
        The network; ``MLP((64, 64))`` by default.
    likelihood : {"normal", "student_t"}
        Predictive distribution; Student's t where outcomes hold gross errors.
    population : regressor, optional
        Any scikit-learn regressor, for instance ``HistGradientBoostingRegressor()``, that predicts
        from the features known ahead, cross-fitted by task; the algorithm learns and adapts what
        is left. A file holds linear ones and `HistGradientBoostingRegressor`.
    schema : Schema, optional
        Column roles, units and plausible ranges; a `Table`'s X brings its own. Without one, every
        column is known ahead of the visit.
    task, time : str, optional
        Columns of X that name the task and the time, for pipelines and cross-validation.
    outcome_transform : {"log", "sqrt"}, optional
        Learn on the transformed outcome; predictions come back on its own scale.
    shots : tuple of int
        Smallest and largest support size drawn in training; 0 trains the population model too.
    max_queries : int
        Query rows per task and training step.
    max_steps : int
        Optimiser steps.
    batch_size : int
        Tasks per step.
    learning_rate, weight_decay : float
        Of AdamW; the rate warms up and decays along half a cosine.
    validation_fraction : float
        Share of training tasks held out for early stopping; with fewer than 20 tasks none is (50
        for `DeepMixedEffects`, which then stays at its start, the mixed model).
    patience : int
        Stop after this many checks (one per 50 steps) without a better held-out loss.
    score_shots : tuple of int
        Support sizes that `score` averages over.
    device : str
        ``"auto"`` is a GPU where there is one.
    precision : {"float32", "float64", "tf32", "bf16"}
        ``"float64"`` adapts and predicts in double precision. ``"tf32"`` (NVIDIA GPUs) and
        ``"bf16"`` train with short factors in matrix products: faster where the hardware has
        them, and good to three or two digits.
    chunk_size : int, optional
        Tasks computed at once; bounds memory and changes results by rounding only.
    compile : bool
        Train through ``torch.compile``: up to twice as fast after tens of seconds of compiling,
        for long trainings; needs a C++ compiler (on a GPU, Triton).
    callbacks : sequence of callable
        Called with every record of the training history; True ends the training.
    verbose : bool, optional
        Progress bar; by default where standard error is a terminal.
    random_state : int, optional
        Seed of the start values, the episodes and the held-out tasks.

    Attributes
    ----------
    history_ : list of dict
        One record per check: step, loss, held_out_loss, learning_rate, seconds, tasks_per_second.
    n_tasks_ : int
        Training tasks seen.
    population_ : regressor
        The population model fitted to all training tasks, where there is one; the algorithm's own
        without `population`.

    Examples
    --------
    >>> from ehrmeta import MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(max_steps=50, random_state=0).fit(X, y, groups=groups)
    >>> adapted = model.adapt(X[10:15], y[10:15])
    >>> adapted.predict_interval(X[15:20], confidence_level=0.9).shape
    (5, 2)
    """

    _default_algorithm: ClassVar[type[Algorithm]] = DeepMixedEffects

    def __init__(
        self,
        algorithm: Algorithm | None = None,
        backbone: Backbone | None = None,
        likelihood: str = "normal",
        *,
        population: RegressorMixin | None = None,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        outcome_transform: Transform | None = None,
        shots: tuple[int, int] = (0, 10),
        max_queries: int = 10,
        max_steps: int = 1000,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        validation_fraction: float = 0.1,
        patience: int = 10,
        score_shots: tuple[int, ...] = (1, 3, 5),
        device: str = "auto",
        precision: str = "float32",
        chunk_size: int | None = None,
        compile: bool = False,
        callbacks: Sequence[Callback] = (),
        verbose: bool | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            algorithm,
            backbone,
            schema=schema,
            task=task,
            time=time,
            shots=shots,
            max_queries=max_queries,
            max_steps=max_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            validation_fraction=validation_fraction,
            patience=patience,
            score_shots=score_shots,
            device=device,
            precision=precision,
            chunk_size=chunk_size,
            compile=compile,
            callbacks=callbacks,
            verbose=verbose,
            random_state=random_state,
        )
        self.likelihood = likelihood
        self.population = population
        self.outcome_transform = outcome_transform

    def _likelihood(self, table: TableEncoder) -> Likelihood:
        if self.likelihood not in LIKELIHOODS:
            raise DataError(
                f"likelihood must be one of {sorted(LIKELIHOODS)}, got {self.likelihood!r}."
            )
        return LIKELIHOODS[self.likelihood]()

    def _effects(self, support: TaskRows, state: list[AdaptedChunk]) -> tuple[Array, float]:
        """Mean shift of a task's own rows from the population, and the learned sd of shifts."""
        support = self._offset(support)
        own = self._prediction(self.learner_.predict(support, state, support)).loc
        population = self._prediction(self.learner_.population(support))
        shift = own - population.loc
        codes = support.codes.numpy()
        counts = np.bincount(codes, minlength=support.n_tasks)
        effects = np.bincount(codes, shift, minlength=support.n_tasks) / np.maximum(counts, 1)
        return effects, self._variances(population)[1] ** 0.5

    def _atypical(self, support: TaskRows) -> Array:
        """Tail probability of ``r' V^-1 r`` under the population model.

        V is ``sigma^2 I + tau^2 11'``; where tasks differ by more than a shift it is what the
        posterior f of the support implies, ``r' V^-1 r = r'(r - f) / sigma^2``.
        """
        support = self._offset(support)
        population = self._prediction(self.learner_.population(support))
        within, between = self._variances(population)
        residual = support.y.double().numpy() - population.loc
        codes, n_tasks = support.codes.numpy(), support.n_tasks
        n = np.bincount(codes, minlength=n_tasks)
        total = np.bincount(codes, residual, minlength=n_tasks)
        squares = np.bincount(codes, residual**2, minlength=n_tasks)
        if self.learner_.algorithm.differs_by_shift:
            distance = (squares - between / (within + n * between) * total**2) / within
        else:
            state = self.learner_.adapt(support)
            own = self._prediction(self.learner_.predict(support, state, support)).loc
            left = residual * (support.y.double().numpy() - own)
            distance = np.bincount(codes, left, minlength=n_tasks) / within
        if population.dof is None:
            p = special.chdtrc(np.maximum(n, 1), distance)
        else:
            dof = float(population.dof[0]) if len(population.dof) else 1.0
            p = special.fdtrc(np.maximum(n, 1), dof, distance / np.maximum(n, 1))
        return np.where(n > 0, p, 1.0)

    def _prediction(self, distribution: Distribution) -> Predictive:
        found = {name: value.double().numpy() for name, value in distribution.items()}
        if not found:
            found = {"loc": np.empty(0), "scale": np.empty(0)}
        changed = found["loc"], self.table_.outcome, found["scale"], found.get("dof")
        if "unchanged" in found:
            return CarriedPredictive(*changed, unchanged=found["unchanged"], last=found["last"])
        return Predictive(*changed)

    def _variances(self, population: Predictive) -> tuple[float, float]:
        """Variance within tasks, and between them: the population's variance beyond that."""
        within = float(torch.exp(2.0 * part(self.learner_.params, "likelihood")["log_within"]))
        if population.scale is None or len(population.scale) == 0:
            return within, within
        between = float(np.mean(np.square(population.scale))) - within
        return within, max(between, 1e-6 * within)
