"""One model in many hands: threads give what one thread gives, and memory stays where it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.suite.timing import resident
from ehrmeta.estimators import MetaRegressor

__all__ = ["adapt_in_threads", "grow_by_adapting"]

_SHOTS = 5


def adapt_in_threads(model: MetaRegressor, n_calls: int, n_threads: int = 8) -> int:
    """Calls of adapt and predict in threads whose result differs from the serial one's."""
    random = np.random.default_rng(0)
    n_features = len(model.table_.features)
    supports = random.normal(size=(n_calls, _SHOTS, n_features))
    outcomes = random.normal(size=(n_calls, _SHOTS))
    queries = random.normal(size=(n_calls, 3, n_features))

    def call(i: int) -> bytes:
        return model.adapt(supports[i], outcomes[i]).predict(queries[i]).tobytes()

    serial = [call(i) for i in range(n_calls)]
    with ThreadPoolExecutor(n_threads) as pool:
        parallel = list(pool.map(call, range(n_calls)))
    return sum(left != right for left, right in zip(serial, parallel, strict=True))


def grow_by_adapting(model: MetaRegressor, n_calls: int) -> float:
    """MiB that the process grew by over calls of adapt and predict, after a tenth of them."""
    x = np.zeros((_SHOTS, len(model.table_.features)))
    y = np.linspace(-1.0, 1.0, _SHOTS)
    before = resident()
    for i in range(n_calls + n_calls // 10):
        if i == n_calls // 10:
            before = resident()
        model.adapt(x, y).predict(x)
    return 1024 * (resident() - before)
