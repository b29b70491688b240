"""Fitted models of meta-learning: a trained algorithm and the population model below it."""

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
from ehrmeta.estimators.files import (
    Json,
    State,
    digest,
    from_json,
    provenance,
    tensor_like,
    to_json,
)
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
from ehrmeta.nn.likelihoods import LIKELIHOODS, Bernoulli, Categorical, Distribution, Likelihood
from ehrmeta.persistence.sklearn_models import WHAT_IS_SAVED, is_saved, read_model, written_model

Array = npt.NDArray[np.float64]
Chunks: TypeAlias = list[AdaptedChunk]
_OF_A_CODING = ("center", "scale")
_MOST_STEPS = 10_000  # of adapting: a forged number must not keep a reader busy for ever


@dataclass(frozen=True, kw_only=True, eq=False)
class MetaModel(TaskModel, ABC):
    """A trained algorithm at work; what `MetaRegressor` and `MetaClassifier` make at fit.

    Parameters
    ----------
    learner : Learner
        Algorithm, network and trained parameters.
    population : regressor or classifier, optional
        Predicts the offset that the algorithm starts from.
    settings : mapping
        Parameters of the estimator.
    n_tasks : int
        Training tasks seen.
    history : sequence of dict
        One record per check of the training.
    data_digest : str, optional
        SHA-256 of the encoded training rows.
    provenance : dict, optional
        Of a model from a file: what it was saved with and when.
    """

    learner: Learner
    population: Population | None
    settings: Mapping[str, Any]
    n_tasks: int
    history: Sequence[dict[str, float]]
    data_digest: str | None
    provenance: Json | None = None
    estimator: ClassVar[str]

    @staticmethod
    @abstractmethod
    def likelihood(settings: Mapping[str, Any], outcome: Any) -> Likelihood:
        """The predictive family."""

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
        """States of all tasks, in chunks of similar support size."""
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
        """Query row, support row (-1 for the population) and weight, as triples."""
        row, support_row, weight = self.learner.support_weights(support, state, query)
        return row.numpy(), support_row.numpy(), weight.double().numpy()

    def digests(self, state: Chunks) -> tuple[str, str]:
        """SHA-256 of the parameters and of an adapted state, for audit records."""
        tensors = {
            f"{i}.{name}": value
            for i, chunk in enumerate(state)
            for name, value in chunk.state.items()
        }
        return digest(self.learner.params), digest(tensors)

    def _with_offset(self, rows: TaskRows) -> TaskRows:
        """Rows with what the population model says of them, where there is one."""
        return rows if self.population is None else with_offset(self.population, rows)

    @abstractmethod
    def _prediction(self, distribution: Distribution) -> Prediction:
        """The likelihood's parameters, in float64; none for no rows."""

    def to_state(self) -> State:
        """What ``MetaRegressor.to_state`` says."""
        if self.name != self.estimator:  # a subclass may do anything
            return super().to_state()
        learner, settings = self.learner, dict(self.settings)
        population = settings.get("population")
        if population is not None and not is_saved(population):
            raise BundleError(
                f"a model with population={type(population).__name__} cannot be saved: a file "
                f"holds no code, and of scikit-learn's models {WHAT_IS_SAVED}. Take one of these, "
                "or keep the training script and fit again where it is needed."
            )
        settings.pop("callbacks", None)  # functions are no data
        if not isinstance(settings["random_state"], int | np.integer):
            settings["random_state"] = None  # a generator has moved on since fit
        _check_work(learner.algorithm)
        settings["precision"] = str(learner.dtype).removeprefix("torch.")
        backbone = MLP() if settings["backbone"] is None else settings["backbone"]
        backbone_state = to_json(backbone, "backbone")
        n_features = learner.spec.n_features
        now = self.spec(learner.algorithm, backbone, settings, self.table, n_features)
        if vars(now.network) != vars(learner.spec.network) or (
            type(now.likelihood) is not type(learner.spec.likelihood)
        ):
            raise BundleError(
                "backbone or likelihood was changed since fit, so the weights belong to another "
                "network. Fit again, or set them back."
            )
        tensors = {f"params.{name}": value for name, value in learner.params.items()}
        written = None
        if self.population is not None:
            written, arrays = written_model(self.population, self._n_population_features)
            tensors |= {f"population.{name}": value for name, value in arrays.items()}
        names = self.column_names
        state = {
            "class": self.name,
            "settings": {name: to_json(value, name) for name, value in settings.items()},
            "algorithm": to_json(learner.algorithm, "algorithm"),
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
            "provenance": provenance(settings["random_state"], self.data_digest),
        }
        return tensors, {"kind": "model", "model": state}

    @staticmethod
    def from_state(
        tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> MetaModel:
        """The inverse of `to_state`; the structure is checked before anything is computed.

        Raises
        ------
        BundleError
            The parts do not fit together, or name a class that files may not hold.
        """
        state = metadata["model"]
        if state["class"] not in _MODELS:
            raise BundleError(
                f"it names the class {state['class']!r}, which no model file may hold."
            )
        made = _MODELS[state["class"]]
        settings = {name: from_json(value) for name, value in state["settings"].items()}
        settings |= {"device": device, "callbacks": ()}
        algorithm, backbone = from_json(state["algorithm"]), from_json(state["backbone"])
        if not (isinstance(algorithm, Algorithm) and isinstance(backbone, Backbone)):
            raise BundleError("its algorithm or backbone is none.")
        n_saved = sum(name.startswith("params.") for name in tensors)
        if isinstance(backbone, MLP) and len(backbone.hidden) > n_saved:
            raise BundleError(f"it has {n_saved} weight tensors; its settings ask for more.")
        _check_work(algorithm)
        parts = {"algorithm": algorithm, "backbone": backbone}
        check_parameters(settings | parts, classes=made is ClassificationModel)
        table = TableEncoder.from_dict(state["table"])
        spec = made.spec(algorithm, backbone, settings, table, state["n_visible"])
        _check_numbers(state)
        dtype = getattr(torch, settings["precision"])
        with torch.device("meta"):  # shapes alone: a forged width must not take memory
            expected = algorithm.init(spec, torch.Generator().manual_seed(0))
        params = {
            name: tensor_like(tensors, f"params.{name}", like.to(dtype))
            for name, like in expected.items()
        }
        if n_saved != len(params):
            raise BundleError(
                f"it has {n_saved} weight tensors; its settings ask for {len(params)}."
            )
        names = state["feature_names_in"]
        history = [
            {name: math.nan if value is None else value for name, value in record.items()}
            for record in state["history"]
        ]
        model = made(
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
        """Features of the population model, which gets a constant where there is none."""
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
        """Mean shift of a task's own rows from the population, and the learned sd of shifts."""
        support = self._with_offset(support)
        adapted = self._prediction(self.learner.predict(support, state, support))
        population = self._prediction(self.learner.population(support))
        codes = support.codes.numpy()
        counts = np.bincount(codes, minlength=support.n_tasks)
        total = np.bincount(codes, adapted.loc - population.loc, minlength=support.n_tasks)
        return total / np.maximum(counts, 1), self._variances(population)[1] ** 0.5

    def atypical(self, support: TaskRows) -> Array:
        """Tail probability of ``r' V^-1 r`` under the population model, (task,).

        V is ``sigma^2 I + tau^2 11'``; where tasks differ by more than a shift it is what the
        posterior f of the support implies, ``r' V^-1 r = r'(r - f) / sigma^2``.
        """
        support = self._with_offset(support)
        population = self._prediction(self.learner.population(support))
        within, between = self._variances(population)
        y, codes, n_tasks = support.y.double().numpy(), support.codes.numpy(), support.n_tasks
        residual, n = y - population.loc, np.bincount(codes, minlength=n_tasks)
        if self.learner.algorithm.differs_by_shift:
            total = np.bincount(codes, residual, minlength=n_tasks)
            squares = np.bincount(codes, residual**2, minlength=n_tasks)
            distance = (squares - between / (within + n * between) * total**2) / within
        else:
            state = self.learner.adapt(support)
            posterior = self._prediction(self.learner.predict(support, state, support)).loc
            distance = np.bincount(codes, residual * (y - posterior), minlength=n_tasks) / within
        if population.dof is None:
            p = special.chdtrc(np.maximum(n, 1), distance)
        else:
            dof = float(population.dof[0]) if len(population.dof) else 1.0
            p = special.fdtrc(np.maximum(n, 1), dof, distance / np.maximum(n, 1))
        return np.where(n > 0, p, 1.0)

    def response(self, support: TaskRows, query: TaskRows) -> OutcomeResponse:
        """How the mean predictions of one task follow its outcomes."""
        learner = self.learner
        support, query = self._with_offset(support), self._with_offset(query)
        params = {name: value.double().cpu() for name, value in learner.params.items()}
        shown, later = (_one_task(rows, support, learner.time_unit) for rows in (support, query))

        def predict(y: Tensor) -> Tensor:
            state = learner.algorithm.adapt(learner.spec, params, shown._replace(y=y))
            return _center(learner.algorithm.predict(learner.spec, params, state, later))

        expected = shown.y
        if support.n_rows:
            expected = _center(learner.population(support)).double().cpu()
        population = _center(learner.population(query)).double().cpu()
        return OutcomeResponse(predict, shown.y, expected, population)

    def _prediction(self, distribution: Distribution) -> Predictive:
        values = {name: value.double().numpy() for name, value in distribution.items()}
        if not values:
            values = {"loc": np.empty(0), "scale": np.empty(0)}
        changed = values["loc"], self.table.outcome, values["scale"], values.get("dof")
        if "unchanged" in values:
            return CarriedPredictive(*changed, unchanged=values["unchanged"], last=values["last"])
        return Predictive(*changed)

    def _variances(self, population: Predictive) -> tuple[float, float]:
        """Variance within tasks, and between them: the population's variance beyond that."""
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
    """The rows of one task as its algorithm sees them, in double precision."""
    (index, mask), (source_index, source_mask) = (
        padded_index(one.starts[:-1], one.sizes) for one in (rows, source)
    )
    padded = padded_set(
        rows,
        index,
        mask,
        source=source,
        source_index=source_index,
        source_mask=source_mask,
        time_unit=time_unit,
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


def _check_numbers(state: Json) -> None:
    """Refuse text where a number is used later, and scales that are not positive."""
    table, outcome = state["table"], state["table"]["outcome"]
    scales = [table["time_unit"], table["time_scale"], outcome.get("scale", 1.0)]
    others = [state["n_tasks"], table["time_center"], outcome.get("center", 0.0)]
    others += [coding[name] for coding in table["encoder"]["codings"] for name in _OF_A_CODING]
    others += [value for record in state["history"] for value in record.values() if value]
    if not all(isinstance(value, int | float) for value in scales + others) or min(scales) <= 0:
        raise BundleError("its scales are not all positive numbers.")
    made = state["provenance"]
    if not (isinstance(made["saved"], str) and isinstance(made["ehrmeta"], str)):
        raise BundleError("it does not say when and by what it was made.")


def _check_work(algorithm: Algorithm) -> None:
    """Refuse what no one could wait for; a file with such settings is never read either."""
    for name, value in algorithm.get_params().items():
        if isinstance(value, int | np.integer) and value > _MOST_STEPS:
            raise BundleError(f"{name}={value} is more than a file may ask for ({_MOST_STEPS:,}).")
