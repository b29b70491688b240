"""Values of the options with a choice, from the places that define them."""

from typing import get_args

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.data.clock import SECONDS
from ehrmeta.data.schema import OnDuplicate, TaskKind, Transform
from ehrmeta.estimators.adapted import NewGroups
from ehrmeta.nn.likelihoods import LIKELIHOODS
from ehrmeta.tuning.measures import MEASURES

CHOICES: dict[str, tuple[str, ...]] = {
    "algorithm": tuple(ALGORITHMS),
    "likelihood": tuple(LIKELIHOODS),
    "new-groups": get_args(NewGroups),
    "on-duplicate": get_args(OnDuplicate),
    "scoring": tuple(name for name in MEASURES if name != "log_loss"),
    "task-kind": get_args(TaskKind),
    "time-unit": tuple(SECONDS),
    "transform": get_args(Transform),
}
"""Values by name of the option."""
