"""Pure tensor functions: batches, networks, fast weights, likelihoods."""

from ehrmeta.nn.backbone import Backbone, Network, TorchModule
from ehrmeta.nn.batch import TaskRows, TaskSet
from ehrmeta.nn.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    ClassLikelihood,
    Distribution,
    Likelihood,
    Normal,
    Outcome,
    StudentT,
)
from ehrmeta.nn.mlp import MLP

__all__ = [
    "LIKELIHOODS",
    "MLP",
    "Backbone",
    "Bernoulli",
    "Categorical",
    "ClassLikelihood",
    "Distribution",
    "Likelihood",
    "Network",
    "Normal",
    "Outcome",
    "StudentT",
    "TaskRows",
    "TaskSet",
    "TorchModule",
]
