"""Public names of this package, imported when they are first read."""

from ehrmeta.tuning.search import Tuned as Tuned, tune as tune
from ehrmeta.tuning.search_cv import MetaSearchCV as MetaSearchCV
from ehrmeta.tuning.space import read_space as read_space
