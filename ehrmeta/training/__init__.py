"""Meta-training."""

from ehrmeta.training.episodes import EpisodeSampler
from ehrmeta.training.loop import Callback, TrainingPlan, train

__all__ = ["Callback", "EpisodeSampler", "TrainingPlan", "train"]
