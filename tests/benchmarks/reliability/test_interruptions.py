"""One model in threads and over many calls."""

import numpy as np

from benchmarks.reliability.interruptions import adapt_in_threads, grow_by_adapting
from ehrmeta.algorithms import MAML
from ehrmeta.data import make_sinusoid
from ehrmeta.estimators import MetaRegressor


def test_threads_give_what_one_gives_and_memory_stays():
    X, y, groups = make_sinusoid(n_tasks=20, n_points=10, random_state=0)
    model = MetaRegressor(MAML(), max_steps=2, verbose=False, random_state=0)
    model.fit(X, y, groups=groups)
    assert adapt_in_threads(model, 8) == 0
    assert np.isfinite(grow_by_adapting(model, 10))
