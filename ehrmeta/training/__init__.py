"""Meta-training."""

from ehrmeta.training.episodes import EpisodeSampler
from ehrmeta.training.gradient import EpisodeLoss
from ehrmeta.training.loop import Callback, train
from ehrmeta.training.state import TrainingPlan

__all__ = ["Callback", "EpisodeLoss", "EpisodeSampler", "TrainingPlan", "train"]
