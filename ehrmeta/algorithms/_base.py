"""Base class of meta-learning algorithms, which are written for one task.

An algorithm is a dataclass of hyper-parameters and holds no state. The trainer calls `loss`, the
estimator calls `adapt` and `predict`; both run over many tasks with ``torch.func.vmap``. So write
tensor algebra of one task, use `mask` and `weight` in every sum over points, make every update
vanish on an empty support, and branch on Python values only. After some training steps, `loss` is
captured as a graph, which replaces its Python code. So `loss` must not read a tensor's value
(``if``, ``float``), draw random numbers, or depend on anything but its arguments.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import Tensor

from ehrmeta.errors import DataError
from ehrmeta.nn import Backbone, Distribution, Likelihood, Network, Outcome, TaskRows, TaskSet

Params = Mapping[str, Tensor]
State = dict[str, Tensor]
Episodes = Iterable[tuple[Tensor, TaskSet, TaskSet]]
"""Batches of task numbers (task,), supports and queries."""
_SECTION = re.compile(r"^\w[\w ]*\n-{3,}\n", re.M)
_PARAMETERS = re.compile(r"^Parameters\n-{3,}\n(?:.+\n?)+", re.M)
_ENTRY = re.compile(r"^(\w+)(?:, \w+)* :.*\n(?: .*\n?)*", re.M)


@dataclass(frozen=True)
class Spec:
    """Network, likelihood and number of encoded features of a fit."""

    network: Network
    likelihood: Likelihood
    n_features: int

    def output(self, params: Params, x: Tensor, fast: Params | None = None) -> Tensor:
        """Outputs (point, output) of the network at inputs x (point, input).

        `fast` is the change of the weights by adaptation, if any.
        """
        return self.network.forward(part(params, "network"), dict(fast or {}), x)

    def predictive(self, params: Params, output: Tensor, query: TaskSet, n: Tensor) -> Distribution:
        """Predictive distribution from outputs (point, output), after n support points.

        The query's offset is added to every output.
        """
        likelihood = part(params, "likelihood")
        return self.likelihood.distribution(likelihood, with_offset(output, query), n)


class Algorithm(BaseEstimator, ABC):
    """Base class of meta-learning algorithms.

    To write one, derive a dataclass of hyper-parameters (``@dataclass(eq=False, repr=False)``) and
    define `adapt` and `predict`; most also need `init`. The other methods have defaults. Use plain
    tensor algebra, multiply by ``weight`` (0 where a batch is padded) in every sum over points, let
    an empty support change nothing, and branch on Python values only: everything runs under
    ``torch.func.vmap`` and is traced. Support and query are `ehrmeta.nn.TaskSet`. ``spec`` holds
    the network, the likelihood and the number of features. ``params`` is a flat dict of tensors
    whose names have prefixes ("network", "likelihood"); `part` selects by prefix.
    ``tutorials/09_write_your_own_algorithm.py`` is a short example.

    The class attributes describe the algorithm; the contract tests read them.

    Attributes
    ----------
    serves : tuple of {"real", "binary", "multiclass"}
        Kinds of outcome.
    refusal : str
        Error message for other kinds of outcome, with the reason and an alternative.
    has_posterior : bool
        Whether `own_weight` is defined.
    consistent : bool
        Whether the adapted model converges to the model of the single task as its support grows.
    adapts : bool
        Whether predictions depend on the support.
    pools : bool
        Whether predictions without support are learned from all tasks.
    surrogate_loss : bool
        Whether `loss` returns a surrogate gradient that is not the derivative of its value.
    keeps_start : bool
        Whether training keeps the warm start unless held-out tasks improve by more than two paired
        standard errors.
    uses_support_offset : bool
        Whether adaptation corrects for an offset of the support rows' log-odds, as
        ``adapt(prevalence=)`` sets it.
    mixed_start : bool
        Whether the estimators start it at a mixed model where tasks have time or are cohorts, by
        `AboveMixedModel`.
    later_params : frozenset of str
        Parameters that model files of earlier versions lack. They load as zeros, which must mean
        the model of that version.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the parents' parameters to the docstring."""
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            cls.__doc__ = _with_inherited_parameters(cls)

    serves: ClassVar[tuple[Outcome, ...]] = ("real", "binary", "multiclass")
    refusal: ClassVar[str] = ""
    has_posterior: ClassVar[bool] = False
    consistent: ClassVar[bool] = False
    adapts: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    surrogate_loss: ClassVar[bool] = False
    keeps_start: ClassVar[bool] = False
    uses_support_offset: ClassVar[bool] = True
    mixed_start = False
    later_params: ClassVar[frozenset[str]] = frozenset()

    def check(self, likelihood: Likelihood) -> None:
        """Raise an error for unsupported kinds of outcome.

        Raises
        ------
        DataError
        """
        if likelihood.outcome not in self.serves:
            raise DataError(
                self.refusal
                or f"{type(self).__name__} does not support {likelihood.outcome} outcomes."
            )

    def n_inputs(self, n_features: int) -> int:
        """Number of network inputs: the encoded features, plus any that the algorithm appends.

        An algorithm that feeds a context vector into the user's backbone adds the vector's length
        here and passes ``torch.cat([x, context.expand(len(x), -1)], 1)`` to `Spec.output`. A
        context that starts at 0 is ``support.x.new_zeros(length)``, of the data's type and device.
        """
        return n_features

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Number of network outputs: those of the likelihood, or the width of an embedding."""
        return likelihood.n_outputs

    def spec(self, backbone: Backbone, likelihood: Likelihood, n_features: int) -> Spec:
        """Likelihood, and a network with the inputs and outputs that this algorithm needs."""
        self.check(likelihood)
        network = backbone.network(self.n_inputs(n_features), self.n_outputs(likelihood))
        return Spec(network, likelihood, n_features)

    def population(self, likelihood: Likelihood) -> RegressorMixin | None:
        """Optional population model, cross-fitted and used as an offset where that helps."""
        return None

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial parameters as a flat dict; by default those of network and likelihood."""
        return {
            **prefixed("network", spec.network.init(generator)),
            **prefixed("likelihood", spec.likelihood.init()),
        }

    def warm_start(
        self, spec: Spec, params: dict[str, Tensor], tasks: TaskRows, episodes: Episodes
    ) -> dict[str, Tensor]:
        """Start values estimated from the training tasks, computed once before training."""
        return params

    @abstractmethod
    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Adapted state of one task: a pure, differentiable function of its support.

        The tensor ``distance`` () of a state, if any, is ``r' V^-1 r``: r are the support's
        outcomes minus their prior mean, and V is their prior covariance. It tells which tasks are
        atypical. Without it, tasks are assumed to differ by a shift.
        """

    @abstractmethod
    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Predictive distribution of the query points, (point, ...)."""

    def at(self, progress: float) -> Algorithm:
        """Algorithm to use at this stage of training; by default this one throughout."""
        return self

    def own_weight(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """``1 - posterior / prior variance`` of the latent outcome; NaN without a posterior."""
        return torch.full_like(query.y, torch.nan)

    def attention(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """Attention weights of the support rows and, last, of the population: (point, support + 1).

        Raises
        ------
        DataError
            The algorithm has no attention over rows.
        """
        raise DataError(
            f"{type(self).__name__} has no support weights. Use MatchingNet or "
            "NeuralProcess(attentive=True)."
        )

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Meta-training loss of one task; `progress` () runs from 0 to 1 over training."""
        state = self.adapt(spec, params, support)
        return query_loss(spec, self.predict(spec, params, state, query), query)


def with_offset(output: Tensor, rows: TaskSet) -> Tensor:
    """Outputs (point, output) plus the rows' offset, (point,) or (point, output)."""
    return output + (rows.offset if rows.offset.ndim > 1 else rows.offset[:, None])


def support_share(params: Params, support: TaskSet) -> Tensor:
    """Share of every support row in the inner loss, (point,): ``weight / (n + c)``.

    The pseudo-count ``c = exp(params["log_pseudo_count"])`` is the weight of the population's
    prediction in rows, so that one row changes a task less than ten rows do. Without this
    parameter, c is 0 and the loss is the usual mean.
    """
    c = params["log_pseudo_count"].exp() if "log_pseudo_count" in params else 0.0
    return support.weight / (support.n + c).clamp(min=1e-6)


def support_loss(spec: Spec, params: Params, output: Tensor, support: TaskSet) -> Tensor:
    """Inner loss of a task, (): a scalar that ``torch.func.grad`` can differentiate.

    Parameters
    ----------
    output : (point, output)
        Network outputs at the support rows, without the offset, which is added here.
    """
    likelihood = part(params, "likelihood")
    losses = spec.likelihood.inner_loss(likelihood, with_offset(output, support), support.y)
    return (support_share(params, support) * losses).sum()


def query_loss(spec: Spec, distribution: Distribution, query: TaskSet) -> Tensor:
    """Mean negative log-likelihood over a query's points."""
    log_prob = spec.likelihood.log_prob(distribution, query.y)
    return -(query.weight * log_prob).sum() / query.n.clamp(min=1.0)


def calibration_loss(
    algorithm: Algorithm,
    spec: Spec,
    params: Params,
    support: TaskSet,
    query: TaskSet,
    also: Collection[str] = (),
) -> Tensor:
    """Query loss after adapting, with gradients for the likelihood's parameters only.

    Parameters
    ----------
    also : collection of str
        Names of other parameters that get gradients.
    """
    frozen = {name: p if name in also else p.detach() for name, p in params.items()}
    state = algorithm.adapt(spec, frozen, support)
    likelihood = {name: v for name, v in params.items() if name.startswith("likelihood.")}
    return query_loss(spec, algorithm.predict(spec, frozen | likelihood, state, query), query)


def all_rows(support: TaskSet, query: TaskSet) -> TaskSet:
    """Concatenate support and query."""
    return TaskSet(*(torch.cat(pair) for pair in zip(support, query, strict=True)))


def part(params: Params, name: str) -> dict[str, Tensor]:
    """Parameters whose names start with a prefix; the prefix is removed."""
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in params.items() if key.startswith(prefix)}


def prefixed(name: str, params: Params) -> dict[str, Tensor]:
    """The parameters with a prefix added to their names: the inverse of `part`."""
    return {f"{name}.{key}": value for key, value in params.items()}


def _with_inherited_parameters(cls: type) -> str:
    """Docstring of a class with the parameters of its parents, in the order of the signature."""
    names: dict[str, None] = {}
    entries: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        names |= dict.fromkeys(vars(parent).get("__annotations__", {}))
        section = _PARAMETERS.search(cleandoc(parent.__doc__ or ""))
        if section and issubclass(parent, Algorithm):
            entries |= {entry[1]: entry[0].rstrip() for entry in _ENTRY.finditer(section[0])}
    described = [entries[name] for name in names if name in entries]
    doc = cleandoc(cls.__doc__ or "")
    if not described:
        return doc
    place = _PARAMETERS.search(doc) or _SECTION.search(doc)
    start, end = place.span() if place else (len(doc), len(doc))
    after = doc[end:] if _PARAMETERS.search(doc) else doc[start:]
    section_text = "\n".join(["Parameters", "----------", *described])
    return f"{doc[:start].rstrip()}\n\n{section_text}\n\n{after.lstrip()}"
