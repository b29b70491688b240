"""Meta-learning for real-valued outcomes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import Tensor

from ehrmeta.algorithms import Algorithm, MetaSGD, Spec, part
from ehrmeta.data import Schema
from ehrmeta.data.schema import Transform
from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.files import load_model, save_model
from ehrmeta.estimators.learner import AdaptedChunk, Learner, pick_device
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.backbone import Backbone
from ehrmeta.nn.batch import visible_width
from ehrmeta.nn.likelihoods import LIKELIHOODS, Distribution
from ehrmeta.nn.mlp import MLP
from ehrmeta.nn.task_rows import TaskRows
from ehrmeta.training import Callback, TrainingPlan, train

__all__ = ["MetaRegressor"]

Array = npt.NDArray[np.float64]
_DEFAULTS = {"algorithm": MetaSGD, "backbone": MLP}


class MetaRegressor(TaskRegressor):
    """Learns over many tasks how to predict a new one from a few of its rows.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The meta-learner; `MetaSGD` by default.
    backbone : Backbone, optional
        The network; ``MLP((64, 64))`` by default.
    likelihood : {"normal", "student_t"}
        Predictive distribution; Student's t where outcomes hold gross errors.
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
        Share of training tasks held out for early stopping; with fewer than 20 tasks none is.
    patience : int
        Stop after this many checks (one per 50 steps) without a better held-out loss.
    score_shots : tuple of int
        Support sizes that `score` averages over.
    device : str
        ``"auto"`` is a GPU where there is one.
    precision : {"float32", "float64"}
        Arithmetic of adapting and predicting; training is in float32.
    chunk_size : int, optional
        Tasks computed at once; bounds memory and changes results by rounding only.
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

    Examples
    --------
    >>> from ehrmeta import MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(max_steps=50, random_state=0).fit(X, y, groups=groups)
    >>> adapted = model.adapt(X[10:15], y[10:15])
    >>> adapted.predict_interval(X[15:20], confidence_level=0.9).shape
    (5, 2)
    """

    def __init__(
        self,
        algorithm: Algorithm | None = None,
        backbone: Backbone | None = None,
        likelihood: str = "normal",
        *,
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
        callbacks: Sequence[Callback] = (),
        verbose: bool | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            schema=schema,
            task=task,
            time=time,
            outcome_transform=outcome_transform,
            score_shots=score_shots,
        )
        self.algorithm = algorithm
        self.backbone = backbone
        self.likelihood = likelihood
        self.shots = shots
        self.max_queries = max_queries
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.precision = precision
        self.chunk_size = chunk_size
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to one file, whole or not at all; an older file survives errors.

        The file holds weights, settings, schema, encoding and provenance, and no row or label of
        any task. Callbacks and generators given as `random_state` are not kept.

        Parameters
        ----------
        path : str or path-like
            By convention ``"name.ehrmeta"``.

        Raises
        ------
        BundleError
            The algorithm or the backbone is one that a file cannot hold (a `TorchModule`, a class
            of your own), or the file cannot be written.
        """
        save_model(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> MetaRegressor:
        """Read a model written by `save`; it predicts bit for bit the same on the same device.

        Parameters
        ----------
        path : str or path-like
        device : str
            Where to compute, wherever the model was trained.

        Returns
        -------
        MetaRegressor
            Fitted; `provenance_` says what it was saved with and when.

        Raises
        ------
        BundleError
            The file is missing, damaged, or holds something else.
        """
        return load_model(path, device=device)

    def set_params(self, **params: Any) -> MetaRegressor:
        """Set parameters; ``algorithm__inner_lr`` on a default part creates that part first."""
        for name, default in _DEFAULTS.items():
            nested = any(key.startswith(f"{name}__") for key in params)
            if nested and getattr(self, name) is None and name not in params:
                setattr(self, name, default())
        super().set_params(**params)
        return self

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        """Meta-train; attributes are set only once it succeeded."""
        algorithm = clone(self.algorithm or _DEFAULTS["algorithm"]())
        spec = self._spec(visible_width(rows))
        device = pick_device(self.device)
        seed = _seed(self.random_state)
        generator = torch.Generator().manual_seed(seed)
        training, held_out = _hold_out(rows, self.validation_fraction, generator)
        params = algorithm.init(spec, generator)
        params = algorithm.warm_start(spec, params, training)
        params, history = train(
            algorithm,
            spec,
            {name: value.to(device) for name, value in params.items()},
            training.to(device),
            None if held_out is None else held_out.to(device),
            TrainingPlan(
                shots=self.shots,
                max_queries=self.max_queries,
                max_steps=self.max_steps,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                patience=self.patience,
                chunk_size=self.chunk_size,
                time_unit=table.time_unit,
                progress_bar=sys.stderr.isatty() if self.verbose is None else self.verbose,
            ),
            seed=seed,
            callbacks=self.callbacks,
        )
        self.learner_ = self._make_learner(algorithm, spec, params, table.time_unit)
        self.history_ = history

    def _make_learner(
        self, algorithm: Algorithm, spec: Spec, params: dict[str, Tensor], time_unit: float
    ) -> Learner:
        """The trained parameters where and as they will be used."""
        if self.precision not in ("float32", "float64"):
            raise DataError(f"precision must be 'float32' or 'float64', got {self.precision!r}.")
        device, dtype = pick_device(self.device), getattr(torch, self.precision)
        params = {name: value.to(device, dtype) for name, value in params.items()}
        return Learner(algorithm, spec, params, time_unit, device, dtype, self.chunk_size)

    def _spec(self, n_features: int) -> Spec:
        if self.likelihood not in LIKELIHOODS:
            raise DataError(
                f"likelihood must be one of {sorted(LIKELIHOODS)}, got {self.likelihood!r}."
            )
        likelihood = LIKELIHOODS[self.likelihood]()
        backbone = self.backbone or _DEFAULTS["backbone"]()
        algorithm = self.algorithm or _DEFAULTS["algorithm"]()
        n_outputs = algorithm.n_outputs(likelihood)
        return Spec(backbone.network(n_features, n_outputs), likelihood, n_features)

    def _adapt_tasks(self, support: TaskRows) -> list[AdaptedChunk]:
        """States of all tasks."""
        return self.learner_.adapt(support)

    def _predict_tasks(
        self, support: TaskRows, state: list[AdaptedChunk], query: TaskRows
    ) -> Predictive:
        return self._predictive(self.learner_.predict(support, state, query))

    def _effects(self, support: TaskRows, state: list[AdaptedChunk]) -> tuple[Array, float]:
        """Mean shift of a task's own rows from the population, and the learned sd of shifts."""
        own = self._predict_tasks(support, state, support).loc
        shift = own - self._predictive(self.learner_.population(support)).loc
        codes = support.codes.numpy()
        counts = np.bincount(codes, minlength=support.n_tasks)
        effects = np.bincount(codes, shift, minlength=support.n_tasks) / np.maximum(counts, 1)
        return effects, self._variances()[1] ** 0.5

    def _atypical(self, support: TaskRows) -> Array:
        """Tail probability of ``r' (sigma^2 I + tau^2 11')^-1 r`` under the population model."""
        within, between = self._variances()
        population = self._predictive(self.learner_.population(support))
        residual = support.y.double().numpy() - population.loc
        codes, n_tasks = support.codes.numpy(), support.n_tasks
        n = np.bincount(codes, minlength=n_tasks)
        total = np.bincount(codes, residual, minlength=n_tasks)
        squares = np.bincount(codes, residual**2, minlength=n_tasks)
        distance = (squares - between / (within + n * between) * total**2) / within
        if population.dof is None:
            p = special.chdtrc(np.maximum(n, 1), distance)
        else:
            dof = float(population.dof[0]) if len(population.dof) else 1.0
            p = special.fdtrc(np.maximum(n, 1), dof, distance / np.maximum(n, 1))
        return np.where(n > 0, p, 1.0)

    def _own_weight(self, support: TaskRows, state: list[AdaptedChunk], query: TaskRows) -> Array:
        return self.learner_.own_weight(support, state, query).double().numpy()

    def _predictive(self, distribution: Distribution) -> Predictive:
        """The likelihood's parameters, in float64; none for no rows."""
        found = {name: value.double().numpy() for name, value in distribution.items()}
        if not found:
            found = {"loc": np.empty(0), "scale": np.empty(0)}
        return Predictive(found["loc"], self.table_.outcome, found["scale"], found.get("dof"))

    def _variances(self) -> tuple[float, float]:
        """Learned variance within and between tasks, on the learner's scale."""
        likelihood = part(self.learner_.params, "likelihood")
        within, between = (
            float(torch.exp(2.0 * likelihood[f"log_{name}"])) for name in ("within", "between")
        )
        return within, between


def _seed(random_state: int | np.random.RandomState | None) -> int:
    """One seed for the whole fit."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _hold_out(
    rows: TaskRows, fraction: float, generator: torch.Generator, fewest: int = 20
) -> tuple[TaskRows, TaskRows | None]:
    """Training and held-out tasks."""
    n_held_out = int(fraction * rows.n_tasks)
    if rows.n_tasks < fewest or n_held_out == 0:
        return rows, None
    order = torch.randperm(rows.n_tasks, generator=generator)
    return rows.select(order[n_held_out:]), rows.select(order[:n_held_out])
