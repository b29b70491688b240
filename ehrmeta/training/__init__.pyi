"""Public names of this package, imported when they are first read."""

from ehrmeta.training.episodes import EpisodeLoss as EpisodeLoss, EpisodeSampler as EpisodeSampler
from ehrmeta.training.loop import Callback as Callback, train as train
from ehrmeta.training.state import TrainingPlan as TrainingPlan
