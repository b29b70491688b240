"""Side-by-side timing: every method in turn, round after round, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Times", "interleave", "quartiles"]

Times = npt.NDArray[np.float64]
_LONG = 1.0  # seconds


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_rounds: int = 3,
    slot: float = 0.1,
) -> dict[str, Times]:
    """Seconds per call of every method, one value a round: A B C, A B C, ...

    What slows the machine down for a while slows down a whole round, so ratios within a round
    are steadier than times. A method has a slot of each round, in which its call is repeated and
    averaged: what counts is a call that follows another, as in training.

    Parameters
    ----------
    calls : mapping
        Named functions; each is called once before the first round.
    seconds : float
        Rounds go on for this long, and for at least `min_rounds`.
    slot : float
        Seconds.

    Returns
    -------
    dict of ndarray, (round,)
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    done = 0
    while done < min_rounds or time.perf_counter() < end:
        for name, call in calls.items():
            times[name].append(_seconds_per_call(call, slot))
        done += 1
    return {name: np.array(values) for name, values in times.items()}


def quartiles(values: Times) -> tuple[float, float, float]:
    """Median, lower and upper quartile.

    Examples
    --------
    >>> quartiles(np.arange(5.0))
    (2.0, 1.0, 3.0)
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(median), float(low), float(high)


def _seconds_per_call(call: Callable[[], object], slot: float) -> float:
    """Mean over as many calls as fit into the slot, at least one, after one to warm up.

    A call of seconds has no use for warming up.
    """
    first = _seconds(call)
    if first > _LONG:
        return first
    n_calls, elapsed = 0, 0.0
    while elapsed < slot:
        elapsed += _seconds(call)
        n_calls += 1
    return elapsed / n_calls


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # wait for what the GPU has been asked to do
    return time.perf_counter() - started
