"""Base of the meta-learning estimators: training, saving and loading."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import Tensor

from ehrmeta.algorithms import AboveMixedModel, Algorithm, DeepMixedEffects, MetaSGD, Params
from ehrmeta.errors import DataWarning, warn
from ehrmeta.estimators._base import TaskEstimator
from ehrmeta.estimators.files import Json, Saved, State, check_class
from ehrmeta.estimators.learner import Learner, pick_device
from ehrmeta.estimators.meta_model import MetaModel
from ehrmeta.estimators.population_offset import (
    Population,
    add_boosted_offset,
    cross_fit_population,
)
from ehrmeta.estimators.task_model import RowReader
from ehrmeta.nn import MLP, Backbone, TaskSet
from ehrmeta.nn.batch import TaskRows, visible_width
from ehrmeta.nn.device import check_precision, for_rows
from ehrmeta.nn.recorded import check_compiler
from ehrmeta.persistence.sklearn_models import WHAT_IS_SAVED, is_saved
from ehrmeta.ranges import Range
from ehrmeta.training import Callback, EpisodeSampler, TrainingPlan, train
from ehrmeta.training.held_out import HELD_OUT_SHARE, hold_out
from ehrmeta.training.loop import stage

_WARM_EPISODES = 10_000  # of the warm start
_FEW_FEATURES = 50  # with more, episodes are fewer
_WARM_TASKS = 5_000  # most that they are drawn from
_FEWEST_DRAWN = 100_000  # with as many tasks or fewer, all are used
_TASKS_AT_ONCE = 1024
# The default for cohorts: all is estimated by marginal likelihood, and nothing is trained.
_OF_COHORTS = DeepMixedEffects(feature_slopes=True, n_deep=0, deep_mean=False, correction=False)
_PLAN_FIELDS = {field.name for field in fields(TrainingPlan)}


@dataclass(eq=False, repr=False, kw_only=True)
class MetaEstimator(Saved, TaskEstimator):
    """Base of `MetaRegressor` and `MetaClassifier`; the parameters are documented there."""

    algorithm: Algorithm | None = field(default=None, kw_only=False)
    backbone: Backbone | None = field(default=None, kw_only=False)
    population: Population | None = None
    shots: tuple[int, int] = (0, 10)
    max_queries: int = 10
    max_steps: int = 1000
    batch_size: int = 256
    learning_rate: Annotated[float, Range(3e-4, 3e-2, log=True)] = 3e-3
    weight_decay: Annotated[float, Range(1e-6, 1e-2, log=True)] = 1e-4
    validation_fraction: float = HELD_OUT_SHARE
    patience: int = 10
    device: str = "auto"
    precision: str = "float32"
    chunk_size: int | None = None
    compile: bool = False
    callbacks: Sequence[Callback] = ()
    verbose: bool | None = None
    random_state: int | None = None

    model_: MetaModel = field(init=False)
    file_kind: ClassVar[str] = "model"
    _default_algorithm: ClassVar[type[Algorithm]] = MetaSGD
    _model_class: ClassVar[type[MetaModel]]

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
            Task (patient, hospital, drug) of every row. None means one task, with a warning.
        time : array, (row,), optional
            Numbers in the schema's unit, or datetimes. Once fitted with time, `adapt` and
            `predict` need it too.
        checkpoint_dir : path, optional
            Folder for checkpoints, written every 50 steps and on SIGTERM. An interrupted fit
            resumes from the last one with bit-identical results. Checkpoints hold weights and a
            digest of the data, never rows. Use one folder per training.
        resume : bool
            Whether to resume; False deletes the folder's checkpoints and starts again.

        Returns
        -------
        self

        Raises
        ------
        DataError
            A column, the outcome, the groups or the time cannot be used; nothing is changed.
        DivergenceError
            The loss is not finite even at an eighth of the learning rate.
        BundleError
            A checkpoint cannot be read or written, or belongs to other data or settings.
        """
        learn = partial(self._fit_tasks, checkpoint_dir=checkpoint_dir, resume=resume)
        return self._fit(X, y, groups, time, learn)

    def to_state(self) -> State:
        """Weights, settings, schema, encoding and provenance; no row or label of any task.

        Callbacks, and a generator passed as `random_state`, are not saved.
        """
        self.fitted_model()
        now = {"name": type(self).__name__, "settings": self.get_params(deep=False)}
        return replace(self.model_, **now).to_state()

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> Self:
        """The inverse of `to_state`; `provenance_` records versions and the date of saving."""
        model = MetaModel.from_state(tensors, metadata, device)
        check_class(model.name, cls)
        estimator = cls(**model.settings)
        estimator._set_fitted(model, model.n_tasks)
        return estimator

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        format: Literal["onnx", "torch"] = "onnx",
        max_shots: int = 16,
        n_queries: int = 1,
    ) -> None:
        """Export adaptation and prediction of one task as a graph, for programs without ehrmeta.

        The folder gets ``model.onnx`` or ``model.pt2`` (for ``torch.export.load``) and
        ``encoder.json``: how to encode rows, and the outcome's scale, on which the outputs are.
        Supports are padded to `max_shots` rows with a mask. Neither file holds a row of a patient,
        or the name of a level of fewer than eleven.

        Parameters
        ----------
        folder : path
        format : {"onnx", "torch"}
        max_shots : int
            Largest support; the graph grows with it.
        n_queries : int
            Rows that a call predicts.

        Raises
        ------
        BundleError
            The model has boosted trees or another `population` below it.
        MissingExtraError
            ONNX is not installed.
        """
        from ehrmeta.estimators.export.graph import export_model  # torch.export is slow to load

        self.fitted_model()
        export_model(self.model_, folder, format=format, max_shots=max_shots, n_queries=n_queries)

    def _set_fitted(self, model: MetaModel, n_tasks: int) -> None:  # type: ignore[override]
        super()._set_fitted(model, n_tasks)
        self.history_ = model.history
        self.population_, self.data_digest_ = model.population, model.data_digest
        if model.provenance is not None:
            self.provenance_ = model.provenance

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``algorithm__inner_lr`` first creates the default algorithm if needed."""
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
        reader: RowReader,
        *,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = True,
    ) -> MetaModel:
        """Meta-train on encoded rows."""
        n_tasks = rows.n_tasks
        settings, time_unit = self.get_params(deep=False), reader.table.time_unit
        likelihood = self._model_class.likelihood(settings, reader.table.outcome)
        outcome, kind = (
            likelihood.outcome,
            None if reader.schema is None else reader.schema.task_kind,
        )
        of_cohorts = kind == "cohort" and not rows.timed and outcome in _OF_COHORTS.serves
        # A backbone of the user's own asks for a network.
        untrained = of_cohorts and self.algorithm is None and self.backbone is None
        default = _OF_COHORTS if untrained else self._default_algorithm()
        algorithm = clone(self.algorithm or default)
        has_start = algorithm.mixed_start and outcome in AboveMixedModel.serves
        if has_start and (rows.timed or of_cohorts):
            algorithm = AboveMixedModel(algorithm, clone(_OF_COHORTS) if of_cohorts else None)
        backbone, n_features = self.backbone or MLP(), visible_width(rows)
        spec = self._model_class.spec(algorithm, backbone, settings, reader.table, n_features)
        device = pick_device(self.device)
        check_precision(self.precision, device)
        if self.compile:
            check_compiler(device)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        progress_bar = sys.stderr.isatty() if self.verbose is None else self.verbose
        generator, population = torch.Generator().manual_seed(seed), None
        most = max(self.max_steps * self.batch_size, _FEWEST_DRAWN)
        if rows.n_tasks > most and not untrained:
            rows = rows.select(
                torch.randperm(rows.n_tasks, generator=generator)[:most].sort().values
            )
        if self.population is not None:
            if not is_saved(self.population):
                warn(
                    f"a model with population={type(self.population).__name__} cannot be saved to "
                    f"a file. The models that can are {WHAT_IS_SAVED}. Use one of these, or keep "
                    "the training script.",
                    DataWarning,
                )
            with stage("cross-fitting the population model", shown=progress_bar):
                population, rows = cross_fit_population(self.population, rows)
        elif (addition := algorithm.population(spec.likelihood)) is not None:
            thin = reader.table.encoder.thin
            with stage("testing boosted trees", shown=progress_bar):
                add = partial(add_boosted_offset, addition, rows, thin)
                population, rows = for_rows(rows.n_rows, add)
        keeps_start = algorithm.keeps_start
        fitted, held_out = hold_out(
            rows, 0.0 if untrained else self.validation_fraction, generator, keeps_start=keeps_start
        )
        initial = algorithm.init(spec, generator)

        def warm_start(tasks: TaskRows) -> Params:
            sampler = EpisodeSampler(tasks, self.shots, self.max_queries, time_unit)
            episodes = _episodes(sampler, seed, n_features)
            with stage("fitting start values", shown=progress_bar):
                start = partial(algorithm.warm_start, spec, initial, tasks, episodes)
                started: Params = for_rows(tasks.n_rows, start)
            return started

        params = start = warm_start(fitted)
        params, history = train(
            algorithm,
            spec,
            {name: value.to(device) for name, value in params.items()},
            fitted.to(device),
            None if held_out is None else held_out.to(device),
            TrainingPlan(
                **{name: value for name, value in settings.items() if name in _PLAN_FIELDS},
                time_unit=time_unit,
                progress_bar=progress_bar,
            ),
            seed=seed,
            callbacks=self.callbacks,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
        )
        is_start = all(torch.equal(value.cpu(), start[name]) for name, value in params.items())
        if held_out is not None and keeps_start and is_start and fitted.n_tasks < _WARM_TASKS:
            params = warm_start(rows)  # training did not improve it: fit it to all tasks
        return self._model_class(
            **vars(reader),
            learner=Learner.on_device(algorithm, spec, params, time_unit, settings),
            population=population,
            settings=settings,
            n_tasks=n_tasks,
            history=history,
        )


def _episodes(
    sampler: EpisodeSampler, seed: int, n_features: int
) -> Iterator[tuple[Tensor, TaskSet, TaskSet]]:
    """A few random episodes of every training task, or of 5,000, for the warm start."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(sampler.rows.n_tasks)
    if len(chosen) > _WARM_TASKS:
        chosen = torch.randperm(len(chosen), generator=generator)[:_WARM_TASKS].sort().values
    most = _WARM_EPISODES * min(_FEW_FEATURES / n_features, 1.0) if n_features else _WARM_EPISODES
    for _ in range(min(20, max(2, int(most) // len(chosen)))):
        for tasks in torch.split(chosen, _TASKS_AT_ONCE):
            yield tasks, *sampler.draw(tasks, generator)
