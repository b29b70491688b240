"""Pure tensor functions: batches, networks, fast weights, likelihoods."""

from ehrmeta.nn.backbone import Backbone, Network
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.class_likelihoods import Bernoulli, Categorical, ClassLikelihood
from ehrmeta.nn.likelihoods import LIKELIHOODS, Likelihood, Normal, StudentT
from ehrmeta.nn.mlp import MLP
from ehrmeta.nn.task_rows import TaskRows
from ehrmeta.nn.torch_module import TorchModule

__all__ = [
    "LIKELIHOODS",
    "MLP",
    "Backbone",
    "Bernoulli",
    "Categorical",
    "ClassLikelihood",
    "Likelihood",
    "Network",
    "Normal",
    "StudentT",
    "TaskRows",
    "TaskSet",
    "TorchModule",
]
