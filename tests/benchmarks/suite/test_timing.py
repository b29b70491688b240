from __future__ import annotations

import numpy as np
import pytest

from benchmarks.suite.timing import interleave, run_apart


def test_methods_take_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    times = interleave(calls, seconds=0.0, min_rounds=3, slot=1e-9)
    # once each ahead of the first round; then two a round, of which the second is timed
    assert order == ["a", "b"] + ["a", "a", "b", "b"] * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_times_are_per_call() -> None:
    calls: list[int] = []
    (times,) = interleave({"a": lambda: calls.append(0)}, seconds=0.0, slot=0.01).values()
    assert len(calls) > 30  # a call of a microsecond fills its slot many times
    assert (times < 0.005).all()


def _hold(gib: float) -> int:
    return int(np.ones(int(gib * 2**27)).sum())


@pytest.mark.slow
def test_peak_is_that_of_the_work_and_not_of_this_process() -> None:
    ballast = np.ones(2**26)  # half a GiB held here
    result, small = run_apart(_hold, 0.001)
    _, large = run_apart(_hold, 0.5)
    assert result == int(0.001 * 2**27)
    assert 0.45 < large - small < 0.6
    assert small < 1.0 and ballast[0] == 1.0
