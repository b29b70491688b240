"""What meta-learning estimators share: training, adapting, predicting, saving."""

from __future__ import annotations

import os
import sys
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import RegressorMixin, clone
from sklearn.utils import check_random_state
from torch import Tensor

from ehrmeta.algorithms import Algorithm, MetaSGD, Params, Spec
from ehrmeta.data import Schema
from ehrmeta.errors import DataWarning
from ehrmeta.estimators._base import TaskEstimator
from ehrmeta.estimators.files import load_model, save_model
from ehrmeta.estimators.learner import AdaptedChunk, Learner, pick_device
from ehrmeta.estimators.population import (
    add_where_it_helps,
    cross_fit_population,
    with_offset,
)
from ehrmeta.estimators.predictive import Prediction
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.backbone import Backbone
from ehrmeta.nn.batch import TaskRows, TaskSet, visible_width
from ehrmeta.nn.device import check_precision
from ehrmeta.nn.likelihoods import Distribution, Likelihood
from ehrmeta.nn.mlp import MLP
from ehrmeta.nn.recorded import check_compiler
from ehrmeta.persistence.sklearn_models import WHAT_IS_SAVED, is_saved
from ehrmeta.ranges import Range
from ehrmeta.training import Callback, EpisodeSampler, TrainingPlan, train
from ehrmeta.training.checkpoints import fingerprint

__all__ = ["MetaEstimator"]

Array = npt.NDArray[np.float64]
_WARM_EPISODES = 10_000  # for start values
_TASKS_AT_ONCE = 1024
_FEWEST_TO_HOLD_OUT = 20
_FEWEST_TO_LEAVE_START = 100
_JUDGES_OF_START = 30  # a handful of held-out tasks cannot tell whether training gained


class MetaEstimator(TaskEstimator):
    """Training, adapting and predicting with an algorithm; `MetaRegressor` documents it all."""

    population: RegressorMixin | None = None  # of regressors: below the meta-learner
    population_: RegressorMixin | None = None
    data_digest_: str | None = None  # SHA-256 of the encoded training rows
    _default_algorithm: ClassVar[type[Algorithm]] = MetaSGD

    def __init__(
        self,
        algorithm: Algorithm | None = None,
        backbone: Backbone | None = None,
        *,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        shots: tuple[int, int] = (0, 10),
        max_queries: int = 10,
        max_steps: int = 1000,
        batch_size: int = 256,
        learning_rate: Annotated[float, Range(3e-4, 3e-2, log=True)] = 3e-3,
        weight_decay: Annotated[float, Range(1e-6, 1e-2, log=True)] = 1e-4,
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
        super().__init__(schema=schema, task=task, time=time, score_shots=score_shots)
        self.algorithm = algorithm
        self.backbone = backbone
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
        self.compile = compile
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        time: Any = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = True,
    ) -> Self:
        """Meta-train over the tasks of a table.

        Parameters
        ----------
        X : frame or array, (row, feature)
            pandas, polars or NumPy; missing values are allowed.
        y : array, (row,)
            Outcome.
        groups : array, (row,)
            Task (patient, hospital, drug) of every row. None is one anonymous task, with a
            warning.
        time : array, (row,), optional
            Numbers in the schema's unit, or datetimes. Once fitted with time, `adapt` and
            `predict` need it too.
        checkpoint_dir : path, optional
            Folder for the state of the training, written every 50 steps and on SIGTERM. A fit
            that was ended goes on from there and gives, bit for bit, what it would have given.
            The files hold weights and a digest of the data, no row of it. One folder a training.
        resume : bool
            With False what the folder holds is removed and training starts afresh.

        Returns
        -------
        self

        Raises
        ------
        DataError
            A column, the outcome, the groups or the time cannot be used; nothing is changed.
        DivergenceError
            The loss stays not finite at an eighth of the learning rate.
        BundleError
            A checkpoint cannot be read or written, or belongs to other data or settings.
        """
        learn = partial(self._fit_tasks, checkpoint_dir=checkpoint_dir, resume=resume)
        return self._fit(X, y, groups, time, learn)

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
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Read a model written by `save`; it predicts bit for bit the same on the same device.

        Parameters
        ----------
        path : str or path-like
        device : str
            Where to compute, wherever the model was trained.

        Returns
        -------
        MetaRegressor or MetaClassifier
            Fitted; `provenance_` says what it was saved with and when.

        Raises
        ------
        BundleError
            The file is missing, damaged, or holds something else.
        """
        return load_model(path, cls, device=device)

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``algorithm__inner_lr`` on a default part creates that part first."""
        defaults: dict[str, type[Algorithm | Backbone]] = {
            "algorithm": self._default_algorithm,
            "backbone": MLP,
        }
        for name, default in defaults.items():
            nested = any(key.startswith(f"{name}__") for key in params)
            if nested and getattr(self, name) is None and name not in params:
                setattr(self, name, default())
        super().set_params(**params)
        return self

    def _fit_tasks(
        self,
        rows: TaskRows,
        table: TableEncoder,
        *,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = True,
    ) -> None:
        """Meta-train; attributes are set only once it succeeded."""
        algorithm = clone(self.algorithm or self._default_algorithm())
        spec = self._spec(visible_width(rows), table)
        device = pick_device(self.device)
        check_precision(self.precision, device)
        if self.compile:
            check_compiler(device)
        seed = _seed(self.random_state)
        data_digest = fingerprint({}, [rows])
        population = None
        if self.population is not None:
            if not is_saved(self.population):
                warnings.warn(
                    f"a model with population={type(self.population).__name__} cannot be saved to "
                    f"a file, which holds {WHAT_IS_SAVED}: keep the training script.",
                    DataWarning,
                    stacklevel=4,
                )
            population, rows = cross_fit_population(self.population, rows)
        elif (addition := algorithm.population(spec.likelihood)) is not None:
            population, rows = add_where_it_helps(addition, rows)
        generator = torch.Generator().manual_seed(seed)
        fewest, least = _FEWEST_TO_HOLD_OUT, 1
        if algorithm.keeps_start:
            fewest, least = _FEWEST_TO_LEAVE_START, _JUDGES_OF_START
        learned, held_out = _hold_out(rows, self.validation_fraction, generator, fewest, least)
        fresh = algorithm.init(spec, generator)

        def warm_start(tasks: TaskRows) -> dict[str, Tensor]:
            sampler = EpisodeSampler(tasks, self.shots, self.max_queries, table.time_unit)
            started: dict[str, Tensor] = algorithm.warm_start(
                spec, fresh, tasks, _episodes(sampler, seed)
            )
            return started

        params = start = warm_start(learned)
        params, history = train(
            algorithm,
            spec,
            {name: value.to(device) for name, value in params.items()},
            learned.to(device),
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
                precision=self.precision,
                compile=self.compile,
                time_unit=table.time_unit,
                progress_bar=sys.stderr.isatty() if self.verbose is None else self.verbose,
            ),
            seed=seed,
            callbacks=self.callbacks,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
        )
        if held_out is not None and algorithm.keeps_start and _are_equal(params, start):
            params = warm_start(rows)  # nothing was gained on the held-out tasks: use them too
        self.learner_ = self._make_learner(algorithm, spec, params, table.time_unit)
        self.history_ = history
        self.population_ = population
        self.data_digest_ = data_digest

    def _make_learner(
        self, algorithm: Algorithm, spec: Spec, params: dict[str, Tensor], time_unit: float
    ) -> Learner:
        """The trained parameters where and as they will be used."""
        device = pick_device(self.device)
        dtype = check_precision(self.precision, device)
        params = {name: value.to(device, dtype) for name, value in params.items()}
        return Learner(algorithm, spec, params, time_unit, device, dtype, self.chunk_size)

    def _spec(self, n_features: int, table: TableEncoder) -> Spec:
        """Network and likelihood, once the algorithm agreed to serve them."""
        likelihood = self._likelihood(table)
        backbone = self.backbone or MLP()
        algorithm = self.algorithm or self._default_algorithm()
        algorithm.check(likelihood)
        n_outputs = algorithm.n_outputs(likelihood)
        return Spec(backbone.network(n_features, n_outputs), likelihood, n_features)

    @abstractmethod
    def _likelihood(self, table: TableEncoder) -> Likelihood:
        """The predictive family."""

    def _offset(self, rows: TaskRows) -> TaskRows:
        """Rows with what the population model says of them, where there is one."""
        return rows if self.population_ is None else with_offset(self.population_, rows)

    def _adapt_tasks(self, support: TaskRows) -> list[AdaptedChunk]:
        """States of all tasks."""
        return self.learner_.adapt(self._offset(support))

    def _predict_tasks(
        self, support: TaskRows, state: list[AdaptedChunk], query: TaskRows
    ) -> Prediction:
        return self._prediction(self.learner_.predict(support, state, self._offset(query)))

    @abstractmethod
    def _prediction(self, distribution: Distribution) -> Prediction:
        """The likelihood's parameters, in float64; none for no rows."""

    def _own_weight(self, support: TaskRows, state: list[AdaptedChunk], query: TaskRows) -> Array:
        return self.learner_.own_weight(support, state, query).double().numpy()

    def _support_weights(
        self, support: TaskRows, state: list[AdaptedChunk], query: TaskRows
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
        row, support_row, weight = self.learner_.support_weights(support, state, query)
        return row.numpy(), support_row.numpy(), weight.double().numpy()


def _seed(random_state: int | np.random.RandomState | None) -> int:
    """One seed for the whole fit."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _episodes(sampler: EpisodeSampler, seed: int) -> Iterator[tuple[Tensor, TaskSet, TaskSet]]:
    """A few episodes of every training task, drawn as they are asked for."""
    generator = torch.Generator().manual_seed(seed)
    n_tasks = sampler.rows.n_tasks
    for _ in range(min(20, max(2, _WARM_EPISODES // n_tasks))):
        for tasks in torch.split(torch.arange(n_tasks), _TASKS_AT_ONCE):
            yield tasks, *sampler.draw(tasks, generator)


def _are_equal(left: Params, right: Params) -> bool:
    return all(torch.equal(value.cpu(), right[name]) for name, value in left.items())


def _hold_out(
    rows: TaskRows, fraction: float, generator: torch.Generator, fewest: int, least: int
) -> tuple[TaskRows, TaskRows | None]:
    """Training and held-out tasks, at least so many unless none are asked for."""
    n_held_out = int(fraction * rows.n_tasks)
    if rows.n_tasks < fewest or n_held_out == 0:
        return rows, None
    n_held_out = max(n_held_out, least)
    order = torch.randperm(rows.n_tasks, generator=generator)
    return rows.select(order[n_held_out:]), rows.select(order[:n_held_out])
