"""Fitted models of meta-learning: a trained algorithm and its population model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from torch import Tensor

from ehrmeta.algorithms import Algorithm, Spec, part
from ehrmeta.data import Schema
from ehrmeta.errors import BundleError, DataError
from ehrmeta.estimators import files
from ehrmeta.estimators.inputs import check_parameters
from ehrmeta.estimators.learner import AdaptedChunk, Learner
from ehrmeta.estimators.population_offset import Population, with_offset
from ehrmeta.estimators.predictions import (
    CarriedPredictive,
    ClassPredictive,
    Prediction,
    Predictive,
)
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.estimators.task_model import OutcomeResponse, TaskModel
from ehrmeta.nn import MLP, Backbone, TaskRows, TaskSet
from ehrmeta.nn.batch import padded_index, padded_set
from ehrmeta.nn.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    Distribution,
    Likelihood,
    StudentT,
    degrees_of_freedom,
)
from ehrmeta.persistence.sklearn_models import WHAT_IS_SAVED, is_saved, read_model, written_model

Array = npt.NDArray[np.float64]
Chunks: TypeAlias = list[AdaptedChunk]
_LARGEST_WEIGHT = 1e9  # `CarryForward` writes it for an outcome without an end
_MOST_STEPS = 10_000  # limit of adaptation steps, so that a forged file cannot run for ever


@dataclass(frozen=True, kw_only=True, eq=False)
class MetaModel(TaskModel, ABC):
    """A trained algorithm; the model of `MetaRegressor` and `MetaClassifier`.

    Parameters
    ----------
    learner : Learner
        Algorithm, network and trained parameters.
    population : regressor or classifier, optional
        Predicts the offset of the algorithm.
    settings : mapping
        Parameters of the estimator.
    n_tasks : int
        Number of training tasks.
    history : sequence of dict
        One record per check during training.
    provenance : dict, optional
        Versions and date of saving, if the model was loaded.
    """

    learner: Learner
    population: Population | None
    settings: Mapping[str, Any]
    n_tasks: int
    history: Sequence[dict[str, float]]
    provenance: files.Json | None = None
    estimator: ClassVar[str]

    @staticmethod
    @abstractmethod
    def likelihood(settings: Mapping[str, Any], outcome: Any) -> Likelihood:
        """Likelihood of the outcome."""

    @classmethod
    def spec(
        cls,
        algorithm: Algorithm,
        backbone: Backbone,
        settings: Mapping[str, Any],
        table: TableEncoder,
        n_features: int,
    ) -> Spec:
        """Network and likelihood in the shape that the algorithm needs."""
        return algorithm.spec(backbone, cls.likelihood(settings, table.outcome), n_features)

    def adapt(self, support: TaskRows) -> Chunks:
        """Adapted states of all tasks, in chunks of similar support size."""
        return self.learner.adapt(self._with_offset(support))

    def predict(self, support: TaskRows, state: Chunks, query: TaskRows) -> Prediction:
        """Predict the query rows, in their order, each from the support of its task."""
        return self._prediction(self.learner.predict(support, state, self._with_offset(query)))

    def own_weight(self, support: TaskRows, state: Chunks, query: TaskRows) -> Array:
        """1 - posterior / prior variance per query row, (row,); NaN without a posterior."""
        return self.learner.own_weight(support, state, query).double().numpy()

    def support_weights(
        self, support: TaskRows, state: Chunks, query: TaskRows
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
        """Query rows, support rows (-1 for the population) and weights, (triple,) each."""
        row, support_row, weight = self.learner.support_weights(support, state, query)
        return row.numpy(), support_row.numpy(), weight.double().numpy()

    def digests(self, state: Chunks) -> tuple[str, str]:
        """SHA-256 of the parameters and of an adapted state, for audit records."""
        tensors = {
            f"{i}.{name}": value
            for i, chunk in enumerate(state)
            for name, value in chunk.state.items()
        }
        return files.digest(self.learner.params), files.digest(tensors)

    def _with_offset(self, rows: TaskRows) -> TaskRows:
        """Rows with the predictions of the population model, if any, as offset."""
        return rows if self.population is None else with_offset(self.population, rows)

    @abstractmethod
    def _prediction(self, distribution: Distribution) -> Prediction:
        """Prediction from the likelihood's parameters, (row, ...); empty if there are no rows."""

    def to_state(self) -> files.State:
        """State to save, as in ``MetaRegressor.to_state``."""
        if self.name != self.estimator:  # a user's subclass
            return super().to_state()
        learner, settings = self.learner, dict(self.settings)
        population = settings.get("population")
        if population is not None and not is_saved(population):
            raise BundleError(
                f"a model with population={type(population).__name__} cannot be saved: a file "
                f"holds no code. It can hold the models {WHAT_IS_SAVED}. Use one of these, "
                "or keep the training script and fit again where it is needed."
            )
        settings.pop("callbacks", None)  # functions cannot be saved
        if not isinstance(settings["random_state"], int | np.integer):
            settings["random_state"] = None  # the state of a generator has changed since fit
        _check_settings(learner.algorithm)
        settings["precision"] = str(learner.dtype).removeprefix("torch.")
        backbone = MLP() if settings["backbone"] is None else settings["backbone"]
        backbone_state = files.to_json(backbone, "backbone")
        n_features = learner.spec.n_features
        now = self.spec(learner.algorithm, backbone, settings, self.table, n_features)
        if vars(now.network) != vars(learner.spec.network) or (
            type(now.likelihood) is not type(learner.spec.likelihood)
        ):
            raise BundleError(
                "backbone or likelihood was changed after fit, so the weights do not match. Fit "
                "again, or restore the settings."
            )
        tensors = {f"params.{name}": value for name, value in learner.params.items()}
        written = None
        if self.population is not None:
            written, arrays = written_model(self.population, self._n_population_features)
            tensors |= {f"population.{name}": value for name, value in arrays.items()}
        names = self.column_names
        state = {
            "class": self.name,
            "settings": {name: files.to_json(value, name) for name, value in settings.items()},
            "algorithm": files.to_json(learner.algorithm, "algorithm"),
            "backbone": backbone_state,
            "population": written,
            "n_visible": n_features,
            "table": self.table.to_dict(),
            "schema": None if self.schema is None else self.schema.to_dict(),
            "n_tasks": self.n_tasks,
            "n_features_in": self.n_columns,
            "feature_names_in": None if names is None else [str(name) for name in names],
            "history": [
                {name: None if math.isnan(value) else value for name, value in record.items()}
                for record in self.history
            ],
            "provenance": files.provenance(settings["random_state"], self.data_digest),
        }
        return tensors, {"kind": "model", "model": state}

    @staticmethod
    def from_state(
        tensors: Mapping[str, Tensor], metadata: files.Json, device: str = "auto"
    ) -> MetaModel:
        """The inverse of `to_state`; a `BundleError` if the parts are inconsistent.

        The structure is checked before any computation.
        """
        state = metadata["model"]
        if state["class"] not in _MODELS:
            raise BundleError(f"its class {state['class']!r} is not allowed in model files.")
        model_class = _MODELS[state["class"]]
        settings = {name: files.from_json(value) for name, value in state["settings"].items()}
        settings |= {"device": device, "callbacks": ()}
        algorithm, backbone = (
            files.from_json(state["algorithm"]),
            files.from_json(state["backbone"]),
        )
        if not (isinstance(algorithm, Algorithm) and isinstance(backbone, Backbone)):
            raise BundleError(
                "its 'algorithm' is not an Algorithm, or its 'backbone' is not a Backbone."
            )
        n_saved = sum(name.startswith("params.") for name in tensors)
        if isinstance(backbone, MLP) and len(backbone.hidden) > n_saved:
            raise BundleError(f"it has {n_saved} weight tensors; its settings imply more.")
        _check_settings(algorithm)
        parts = {"algorithm": algorithm, "backbone": backbone}
        check_parameters(settings | parts, classes=model_class is ClassificationModel)
        table = TableEncoder.from_dict(state["table"])
        spec = model_class.spec(algorithm, backbone, settings, table, state["n_visible"])
        _check_numbers(state)
        _check_names(state, settings)
        dtype = getattr(torch, settings["precision"])
        with torch.device("meta"):  # shapes only: a forged width must not allocate memory
            expected = algorithm.init(spec, torch.Generator().manual_seed(0))
        absent = {name for name in algorithm.later_params if f"params.{name}" not in tensors}
        params = {
            name: torch.zeros(like.shape, dtype=dtype)
            if name in absent
            else files.tensor_like(tensors, f"params.{name}", like.to(dtype))
            for name, like in expected.items()
        }
        if n_saved != len(params) - len(absent):
            raise BundleError(f"it has {n_saved} weight tensors; its settings imply {len(params)}.")
        weights = [value for value in params.values() if value.numel()]
        if any(float(value.abs().max()) > _LARGEST_WEIGHT for value in weights):
            raise BundleError("its weights are implausibly large.")
        names = state["feature_names_in"]
        history = [
            {name: math.nan if value is None else value for name, value in record.items()}
            for record in state["history"]
        ]
        model = model_class(
            name=state["class"],
            table=table,
            schema=None if state["schema"] is None else Schema.from_dict(state["schema"]),
            task=settings["task"],
            time=settings["time"],
            n_columns=state["n_features_in"],
            column_names=None if names is None else tuple(names),
            learner=Learner.on_device(algorithm, spec, params, table.time_unit, settings),
            population=None,
            settings=settings,
            n_tasks=state["n_tasks"],
            history=history,
            data_digest=state["provenance"].get("data_sha256"),
            provenance=state["provenance"],
        )
        if state.get("population") is None:
            return model
        prefix = "population."
        arrays = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        population = read_model(state["population"], arrays, model._n_population_features)
        return replace(model, population=population)

    @property
    def _n_population_features(self) -> int:
        """Number of inputs of the population model; 1, a constant, if there are no features."""
        return self.no_rows().x.shape[1] or 1


class RegressionModel(MetaModel):
    """A trained algorithm that predicts numbers."""

    estimator: ClassVar[str] = "MetaRegressor"

    @staticmethod
    def likelihood(settings: Mapping[str, Any], outcome: Any) -> Likelihood:
        """Normal or Student's t."""
        name = settings["likelihood"]
        if name not in LIKELIHOODS:
            raise DataError(f"likelihood must be one of {sorted(LIKELIHOODS)}, got {name!r}.")
        return LIKELIHOODS[name]()

    def effects(self, support: TaskRows, state: Chunks) -> tuple[Array, float]:
        """Mean shift of every task from the population model, and the learned sd of shifts."""
        support = self._with_offset(support)
        adapted = self._prediction(self.learner.predict(support, state, support))
        population = self._prediction(self.learner.population(support))
        codes = support.codes.numpy()
        counts = np.bincount(codes, minlength=support.n_tasks)
        total = np.bincount(codes, adapted.loc - population.loc, minlength=support.n_tasks)
        return total / np.maximum(counts, 1), self._variances(population)[1] ** 0.5

    def atypical(self, support: TaskRows, state: Chunks) -> Array:
        """Tail probability of ``r' V^-1 r``, (task,), under the population model.

        V is estimated from the training tasks, so the reference is an F distribution with their
        number as degrees of freedom, or those of Student's t if they are fewer. For algorithms
        that do not compute the distance, V is ``sigma^2 I + tau^2 11'``.
        """
        n, dof = support.sizes.numpy(), max(self.n_tasks - 1.0 - self.learner.spec.n_features, 4.0)
        if isinstance(self.learner.spec.likelihood, StudentT):
            likelihood = part(self.learner.params, "likelihood")
            dof = min(dof, float(degrees_of_freedom(likelihood)))
        distance = np.zeros(support.n_tasks)
        if all("distance" in chunk.state for chunk in state):
            for chunk in state:
                distance[chunk.tasks.numpy()] = chunk.state["distance"].double().cpu().numpy()
        else:
            distance = self._distance_of_shift(support)
        p = special.fdtrc(np.maximum(n, 1), dof, distance / np.maximum(n, 1))
        return np.where(n > 0, p, 1.0)

    def response(self, support: TaskRows, query: TaskRows) -> OutcomeResponse:
        """Mean predictions of one task as a function of its support outcomes."""
        learner = self.learner
        support, query = self._with_offset(support), self._with_offset(query)
        params = {name: value.double().cpu() for name, value in learner.params.items()}
        unit = learner.time_unit
        support_set, query_set = (_one_task(rows, support, unit) for rows in (support, query))

        def predict(y: Tensor) -> Tensor:
            state = learner.algorithm.adapt(learner.spec, params, support_set._replace(y=y))
            return _center(learner.algorithm.predict(learner.spec, params, state, query_set))

        expected = support_set.y
        if support.n_rows:
            expected = _center(learner.population(support)).double().cpu()
        population = _center(learner.population(query)).double().cpu()
        return OutcomeResponse(predict, support_set.y, expected, population)

    def _prediction(self, distribution: Distribution) -> Predictive:
        values = {name: value.double().numpy() for name, value in distribution.items()}
        if not values:
            values = {"loc": np.empty(0), "scale": np.empty(0)}
        parts = values["loc"], self.table.outcome, values["scale"], values.get("dof")
        if "unchanged" in values:
            return CarriedPredictive(*parts, unchanged=values["unchanged"], last=values["last"])
        return Predictive(*parts)

    def _distance_of_shift(self, support: TaskRows) -> Array:
        """``r' V^-1 r`` of the support's residuals r, (task,), if tasks differ by a shift."""
        support = self._with_offset(support)
        population = self._prediction(self.learner.population(support))
        within, between = self._variances(population)
        residual, codes = support.y.double().numpy() - population.loc, support.codes.numpy()
        n = support.sizes.numpy()
        total = np.bincount(codes, residual, minlength=len(n))
        squares = np.bincount(codes, residual**2, minlength=len(n))
        distance: Array = (squares - between / (within + n * between) * total**2) / within
        return distance

    def _variances(self, population: Predictive) -> tuple[float, float]:
        """Variance within tasks, and between tasks: the rest of the population variance."""
        within = float(torch.exp(2.0 * part(self.learner.params, "likelihood")["log_within"]))
        if population.scale is None or len(population.scale) == 0:
            return within, within
        between = float(np.mean(np.square(population.scale))) - within
        return within, max(between, 1e-6 * within)


class ClassificationModel(MetaModel):
    """A trained algorithm that predicts class probabilities."""

    estimator: ClassVar[str] = "MetaClassifier"

    @staticmethod
    def likelihood(settings: Mapping[str, Any], outcome: Any) -> Likelihood:
        """Bernoulli for two classes, else categorical."""
        n_classes = len(outcome.labels)
        return Bernoulli() if n_classes == 2 else Categorical(n_classes)

    def _prediction(self, distribution: Distribution) -> ClassPredictive:
        labels = self.table.outcome.labels
        if not distribution:
            return ClassPredictive(np.empty((0, len(labels))), labels)
        return ClassPredictive(distribution["logits"].double().numpy(), labels)


_MODELS: dict[str, type[MetaModel]] = {
    model.estimator: model for model in (RegressionModel, ClassificationModel)
}


def _one_task(rows: TaskRows, source: TaskRows, time_unit: float) -> TaskSet:
    """Padded set of one task's rows in double precision, with its support as source."""
    (index, mask), (at, real) = (padded_index(one.starts[:-1], one.sizes) for one in (rows, source))
    padded = padded_set(
        rows, index, mask, source=source, source_index=at, source_mask=real, time_unit=time_unit
    )
    double = (part[0].double() if part.is_floating_point() else part[0] for part in padded)
    return TaskSet(*double)


def _center(distribution: Distribution) -> Tensor:
    """Mean on the learner's scale, (row,)."""
    loc = distribution["loc"]
    if "unchanged" not in distribution:
        return loc
    unchanged = distribution["unchanged"]
    return unchanged * distribution["last"] + (1.0 - unchanged) * loc


def _check_numbers(state: files.Json) -> None:
    """Raise if numbers of a file are text, or scales are not positive."""
    table, outcome = state["table"], state["table"]["outcome"]
    scales = [table["time_unit"], table["time_scale"], outcome.get("scale", 1.0)]
    others = [state["n_tasks"], table["time_center"], outcome.get("center", 0.0)]
    others += [
        coding[name] for coding in table["encoder"]["codings"] for name in ("center", "scale")
    ]
    others += table.get("period") or ()
    others += [value for record in state["history"] for value in record.values() if value]
    numbers = all(isinstance(value, int | float) for value in scales + others)
    if not numbers or min(scales) <= 0 or len(table.get("period") or (0, 0)) != 2:
        raise BundleError("its scales must be positive numbers.")
    if not all(isinstance(state["provenance"][name], str) for name in ("saved", "ehrmeta")):
        raise BundleError("its date and version of ehrmeta are missing.")


def _check_names(state: files.Json, settings: Mapping[str, Any]) -> None:
    """Raise if names of columns are not text, or counts are not whole numbers."""
    names = [settings[name] for name in ("task", "time") if settings[name] is not None]
    names += state["feature_names_in"] or ()
    names += [feature["name"] for feature in state["table"]["features"]]
    if not all(isinstance(name, str) for name in names):
        raise BundleError("its names of columns must be text.")
    counts = [state[name] for name in ("n_tasks", "n_features_in", "n_visible")]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise BundleError("its counts must be whole numbers.")


def _check_settings(algorithm: Algorithm) -> None:
    """Raise if adaptation has too many steps or a switch is no truth value.

    Such files are not written either.
    """
    for name, value in algorithm.get_params(deep=False).items():
        if isinstance(value, Algorithm):
            _check_settings(value)
        if isinstance(value, int | np.integer) and value > _MOST_STEPS:
            raise BundleError(f"{name}={value} exceeds the limit of a file ({_MOST_STEPS:,}).")
        is_switch = isinstance(getattr(type(algorithm), name, None), bool)
        if is_switch and not isinstance(value, bool | np.bool):
            raise BundleError(f"{name} must be True or False, got a {type(value).__name__}.")
