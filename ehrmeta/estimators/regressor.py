"""The meta-learning regressor."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ehrmeta.algorithms import Algorithm, DeepMixedEffects
from ehrmeta.data.schema import Transform
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.meta_estimator import MetaEstimator
from ehrmeta.estimators.meta_model import MetaModel, RegressionModel


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
        Optimiser steps. Of more than 100,000 tasks, a random sample is used if the steps cannot
        draw all.
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
