"""Public names of this package, imported when they are first read."""

from ehrmeta.nn.backbone import Backbone as Backbone, Network as Network, TorchModule as TorchModule
from ehrmeta.nn.batch import TaskRows as TaskRows, TaskSet as TaskSet
from ehrmeta.nn.likelihoods import (
    LIKELIHOODS as LIKELIHOODS,
    Bernoulli as Bernoulli,
    Categorical as Categorical,
    ClassLikelihood as ClassLikelihood,
    Distribution as Distribution,
    Likelihood as Likelihood,
    Normal as Normal,
    Outcome as Outcome,
    StudentT as StudentT,
)
from ehrmeta.nn.mlp import MLP as MLP
