"""The meta-learning estimators of numbers and classes: training, saving and loading."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits
from torch import Tensor

from ehrmeta.algorithms import AboveMixedModel, Algorithm, DeepMixedEffects, MetaSGD, Params
from ehrmeta.data.schema import Transform
from ehrmeta.errors import DataError, DataWarning
from ehrmeta.estimators._base import TaskClassifier, TaskEstimator, TaskRegressor
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.files import Json, Saved, State, check_class, data_digest
from ehrmeta.estimators.learner import Learner, pick_device
from ehrmeta.estimators.meta_model import ClassificationModel, MetaModel, RegressionModel
from ehrmeta.estimators.population_offset import (
    Population,
    add_boosted_offset,
    cross_fit_population,
)
from ehrmeta.estimators.task_model import RowReader
from ehrmeta.nn import MLP, Backbone, TaskSet
from ehrmeta.nn.batch import TaskRows, visible_width
from ehrmeta.nn.device import FEW_POINTS, check_precision, on_one_core
from ehrmeta.nn.recorded import check_compiler
from ehrmeta.persistence.sklearn_models import WHAT_IS_SAVED, is_saved
from ehrmeta.ranges import Range
from ehrmeta.training import Callback, EpisodeSampler, TrainingPlan, train
from ehrmeta.training.held_out import HELD_OUT_SHARE, hold_out
from ehrmeta.training.loop import stage

_WARM_EPISODES = 10_000  # of the warm start
_TASKS_AT_ONCE = 1024
Out = TypeVar("Out")
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

    def _is_of_cohorts(self, rows: TaskRows, reader: RowReader) -> bool:
        """Whether a schema says that tasks are cohorts, without time, and the default serves them.

        A backbone of the user's own asks for a network.
        """
        if reader.schema is None or reader.schema.task_kind != "cohort" or rows.timed:
            return False
        labels = getattr(reader.table.outcome, "labels", ())
        return self.backbone is None and len(labels) <= 2

    def _fit_tasks(
        self,
        rows: TaskRows,
        reader: RowReader,
        *,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = True,
    ) -> MetaModel:
        """Meta-train on encoded rows."""
        training_rows = rows
        of_cohorts = self.algorithm is None and self._is_of_cohorts(rows, reader)
        default = _OF_COHORTS if of_cohorts else self._default_algorithm()
        algorithm = clone(self.algorithm or default)
        settings, time_unit = self.get_params(deep=False), reader.table.time_unit
        likelihood = self._model_class.likelihood(settings, reader.table.outcome)
        if rows.timed and algorithm.mixed_start and likelihood.outcome in AboveMixedModel.serves:
            algorithm = AboveMixedModel(algorithm)
        backbone, n_features = self.backbone or MLP(), visible_width(rows)
        spec = self._model_class.spec(algorithm, backbone, settings, reader.table, n_features)
        device = pick_device(self.device)
        check_precision(self.precision, device)
        if self.compile:
            check_compiler(device)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        progress_bar = sys.stderr.isatty() if self.verbose is None else self.verbose
        population = None
        if self.population is not None:
            if not is_saved(self.population):
                warnings.warn(
                    f"a model with population={type(self.population).__name__} cannot be saved to "
                    f"a file. The models that can are {WHAT_IS_SAVED}. Use one of these, or keep "
                    "the training script.",
                    DataWarning,
                    stacklevel=4,
                )
            with stage("cross-fitting the population model", shown=progress_bar):
                population, rows = cross_fit_population(self.population, rows)
        elif (addition := algorithm.population(spec.likelihood)) is not None:
            thin = reader.table.encoder.thin
            with stage("testing boosted trees", shown=progress_bar):
                add = partial(add_boosted_offset, addition, rows, thin)
                population, rows = _computed(add, rows.n_rows)
        generator = torch.Generator().manual_seed(seed)
        keeps_start = algorithm.keeps_start
        fitted, held_out = hold_out(
            rows,
            0.0 if of_cohorts else self.validation_fraction,
            generator,
            keeps_start=keeps_start,
        )
        initial = algorithm.init(spec, generator)

        def warm_start(tasks: TaskRows) -> Params:
            sampler = EpisodeSampler(tasks, self.shots, self.max_queries, time_unit)
            episodes = _episodes(sampler, seed)
            with stage("fitting start values", shown=progress_bar):
                start = partial(algorithm.warm_start, spec, initial, tasks, episodes)
                started: Params = _computed(start, tasks.n_rows)
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
        if held_out is not None and keeps_start and is_start:
            params = warm_start(rows)  # training did not improve it: fit it to all tasks
        return self._model_class(
            **vars(reader),
            learner=Learner.on_device(algorithm, spec, params, time_unit, settings),
            population=population,
            settings=settings,
            n_tasks=rows.n_tasks,
            history=history,
            data_digest=data_digest(training_rows),
        )


def _computed(work: Callable[[], Out], n_rows: int) -> Out:
    """Result of ``work()``; with few rows it runs on one core, as threads would mostly wait.

    The limit applies to this thread only; the rest of the process is not affected.
    """
    if n_rows > FEW_POINTS:
        return work()

    def limited() -> Out:
        with threadpool_limits(1, user_api="openmp"):
            return work()

    return on_one_core(limited)


def _episodes(sampler: EpisodeSampler, seed: int) -> Iterator[tuple[Tensor, TaskSet, TaskSet]]:
    """A few random episodes of every training task, for the warm start."""
    generator = torch.Generator().manual_seed(seed)
    n_tasks = sampler.rows.n_tasks
    for _ in range(min(20, max(2, _WARM_EPISODES // n_tasks))):
        for tasks in torch.split(torch.arange(n_tasks), _TASKS_AT_ONCE):
            yield tasks, *sampler.draw(tasks, generator)


@dataclass(eq=False, repr=False, kw_only=True)
class MetaRegressor(MetaEstimator, TaskRegressor):
    """Meta-learning regressor: learns from many tasks to predict a new one from a few rows.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The meta-learner; `DeepMixedEffects` by default. For cohorts without time (``task_kind`` of
        the schema) the default is its linear model with random intercepts and slopes of all
        features, which is estimated by marginal likelihood in one step: nothing is trained.
    backbone : Backbone, optional
        The network; ``MLP((64, 64))`` by default.
    likelihood : {"normal", "student_t"}
        Predictive distribution; Student's t for outcomes with gross errors.
    population : regressor, optional
        Any scikit-learn regressor, such as ``HistGradientBoostingRegressor()``. It is cross-fitted
        by task on the features known ahead, and the algorithm learns and adapts its residuals.
        Linear models and `HistGradientBoostingRegressor` can be saved.
    schema : Schema, optional
        Column roles, units and plausible ranges; by default that of a `Table`'s X. Without one,
        `known` and the data decide.
    task, time : str, optional
        Columns of X with the task and the time, removed from the features; for pipelines and
        cross-validation, which pass X and y only.
    known : sequence of str, optional
        Columns known ahead of the visit although they vary within tasks, such as planned doses and
        arms of a cross-over. With groups and time, the others that vary within tasks count as
        measured: a prediction reads their last value before it. Functions of time (age, number of
        the visit, calendar) are known ahead. By default a `DataWarning` names the columns read as
        measured. A schema has priority.
    outcome_transform : {"auto", "log", "sqrt"}, optional
        Learn on the transformed outcome; predictions and intervals are on the original scale.
        By default the schema's transform; without one, ``"auto"`` tries a `Warp` of an outcome
        that is strongly skewed or often at an end of its scale, and keeps it if held-out training
        tasks have a lower CRPS and no higher error. None leaves the outcome as it is.
    shots : tuple of int
        Smallest and largest support size in training; 0 includes the population model.
    max_queries : int
        Query rows per task and training step.
    max_steps : int
        Optimiser steps.
    batch_size : int
        Tasks per step.
    learning_rate, weight_decay : float
        Of AdamW; the rate warms up and decays along half a cosine.
    validation_fraction : float
        Share of training tasks held out for early stopping; with fewer than 20 tasks, none.
        With 100 tasks or more, `DeepMixedEffects` holds out at least 30; with fewer it is not
        trained beyond its start, the mixed model.
    patience : int
        Stop after this many checks (one per 50 steps) without a better held-out loss.
    score_shots : tuple of int
        Support sizes that `score` averages over.
    device : str
        ``"auto"`` uses a GPU if there is one.
    precision : {"float32", "float64", "tf32", "bf16"}
        ``"float64"`` adapts and predicts in double precision. ``"tf32"`` (NVIDIA GPUs) and
        ``"bf16"`` train with matrix products of about three and two significant digits: faster on
        hardware that supports them.
    chunk_size : int, optional
        Tasks computed at once: limits memory and changes results by rounding only.
    compile : bool
        Train through ``torch.compile``: up to twice as fast, after tens of seconds of compiling.
        Needs a C++ compiler (on a GPU, Triton).
    callbacks : sequence of callable
        Called with every record of the training history; returning True stops training.
    verbose : bool, optional
        Progress bar; by default if standard error is a terminal.
    random_state : int, optional
        Seed of the initial values, the episodes and the held-out tasks.

    Attributes
    ----------
    history_ : list of dict
        One record per check: step, loss, held_out_loss, learning_rate, seconds, tasks_per_second.
    n_tasks_ : int
        Number of training tasks.
    population_ : regressor
        Population model fitted to all training tasks: `population`, or the algorithm's default if
        it has one.

    Examples
    --------
    >>> from ehrmeta import MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(max_steps=50, random_state=0).fit(X, y, groups=groups)
    >>> adapted = model.adapt(X[10:15], y[10:15])
    >>> adapted.predict_interval(X[15:20], confidence_level=0.9).shape
    (5, 2)
    """

    likelihood: str = field(default="normal", kw_only=False)
    outcome_transform: Transform | Literal["auto"] | None = "auto"

    _default_algorithm: ClassVar[type[Algorithm]] = DeepMixedEffects
    _model_class: ClassVar[type[MetaModel]] = RegressionModel


class MetaClassifier(MetaEstimator, TaskClassifier):
    """Meta-learning classifier: learns from many tasks to classify a new one from a few rows.

    The outcome has two classes or more, as text or whole numbers; a support may hold any of them.
    Probabilities are averaged over the uncertainty about the task, so that the population model is
    calibrated among new tasks.

    Rare classes, down to half a percent, need no weights: probabilities are calibrated to the
    training rows. If a `population` model has ``class_weight``,
    ``DeepMixedEffects(feature_slopes=True)`` recalibrates it by an intercept and a slope. For
    supports sampled by outcome (case-control) use ``adapt(prevalence=...)``.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The meta-learner; `MetaSGD` by default. For two classes and cohorts without time
        (``task_kind`` of the schema), the default is as in `MetaRegressor`.
    backbone : Backbone, optional
        The network; ``MLP((64, 64))`` by default.
    population : classifier, optional
        Any scikit-learn classifier of two classes, cross-fitted by task; its logit is the offset
        that the algorithm adapts. `LogisticRegression` and `HistGradientBoostingClassifier` can be
        saved.
    schema, task, time, known, shots, max_queries, max_steps, batch_size, learning_rate, \
weight_decay, validation_fraction, patience, score_shots, device, precision, chunk_size, compile, \
callbacks, verbose, random_state
        As in `MetaRegressor`.

    Attributes
    ----------
    classes_ : ndarray, (class,)
        Class labels, sorted: the columns of `predict_proba`.
    history_, n_tasks_, population_
        As in `MetaRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta import MetaClassifier, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> label = np.where(y > 0, "above", "below")
    >>> model = MetaClassifier(max_steps=50, random_state=0).fit(X, label, groups=groups)
    >>> model.adapt(X[10:15], label[10:15]).predict_proba(X[15:20]).shape
    (5, 2)
    """

    _model_class: ClassVar[type[MetaModel]] = ClassificationModel

    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        time: Any = None,
        prevalence: float | None = None,
    ) -> Adapted:
        """Adapt to new tasks from their supports, all in one batch, without refitting.

        Parameters
        ----------
        X, y, groups, time
            As in ``MetaRegressor.adapt``. A support may hold one class only.
        prevalence : float, optional
            For support rows sampled by outcome (all cases and some controls): the share of the
            second class among all patients of these tasks. An offset on the support's log-odds
            then corrects for the sampling, so that predictions hold for unsampled patients.
            Refused by algorithms that compare rows (prototypical, matching and relation networks,
            neural processes), which have no such offset.

        Returns
        -------
        Adapted
            Predictions for these tasks.

        References
        ----------
        King, Zeng (2001), doi:10.1093/oxfordjournals.pan.a004868 (prior correction).
        """
        model = self.fitted_model()
        labels, support = model.read_support(X, y, groups=groups, time=time)
        if prevalence is not None:
            algorithm = self.model_.learner.algorithm
            if not algorithm.uses_support_offset:
                raise DataError(
                    f"{type(algorithm).__name__} does not correct for sampling by outcome. Leave "
                    "prevalence out, or fit with MetaSGD, BayesianHead or DeepMixedEffects."
                )
            support = _case_control_offset(support, prevalence)
        return Adapted(model, labels, support)


def _case_control_offset(support: TaskRows, prevalence: float) -> TaskRows:
    r"""Add the prior correction of case-control sampling to the offset of the support rows.

    .. math:: \mathrm{logit}\, \bar y_i - \mathrm{logit}\, \pi

    with :math:`\bar y_i` the share of events in the support of task i, :math:`\pi` the prevalence.
    """
    if not 0.0 < prevalence < 1.0:
        raise DataError(f"prevalence must lie strictly between 0 and 1, got {prevalence}.")
    if bool((support.y > 1).any()):
        raise DataError("prevalence= needs two classes: leave it out for more.")
    events = torch.bincount(support.codes, support.y.double(), minlength=support.n_tasks)
    share = events / support.sizes.clamp(min=1)
    one_class = (support.sizes > 0) & ((share == 0) | (share == 1))
    if bool(one_class.any()):
        raise DataError(
            f"{int(one_class.sum()):,} of {support.n_tasks:,} supports (first: task "
            f"{int(one_class.nonzero()[0])}) hold one class only, so they were not sampled by "
            "outcome. Leave prevalence out for rows that were not sampled."
        )
    correction = torch.logit(share) - torch.logit(torch.tensor(prevalence, dtype=torch.float64))
    offset = support.offset + correction[support.codes].to(support.offset.dtype)
    return replace(support, offset=offset)
