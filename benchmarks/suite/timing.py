"""Interleaved timing of several methods, and peak memory in a separate process."""

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.suite.arrays import Array
from benchmarks.suite.record import Record

Result = TypeVar("Result")

_LONG = 1.0  # seconds


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_rounds: int = 3,
    slot: float = 0.1,
) -> dict[str, Array]:
    """Seconds per call of every method in interleaved rounds A B C, A B C, ..., (round,).

    A temporary slowdown of the machine affects a whole round, so ratios within a round are more
    stable than times. In each round a method's call is repeated for a time of `slot` seconds, and
    averaged.

    Parameters
    ----------
    calls : mapping
        Named functions; each is called once before the first round.
    seconds : float
        Rounds are repeated for this time, and at least `min_rounds` times.
    slot : float
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


def quartiles(values: Array) -> tuple[float, float, float]:
    """Median, lower and upper quartile.

    Examples
    --------
    >>> quartiles(np.arange(5.0))
    (2.0, 1.0, 3.0)
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(median), float(low), float(high)


def timed_record(
    case: str, started: float, method: str, metric: str, values: Array | float | None, **about: Any
) -> Record:
    """Record of the speed suite: median and quartiles of the rounds, or one number.

    `started` is the `time.perf_counter` at the start; `about` has other fields of the record.
    """
    value, low, high = quartiles(values) if isinstance(values, np.ndarray) else (values, None, None)
    about["seconds"] = time.perf_counter() - started
    return Record("speed", case, method, metric, value, low=low, high=high, **about)


def _seconds_per_call(call: Callable[[], object], slot: float) -> float:
    """Mean time of the calls that fit into the slot, at least one, after a warm-up if short."""
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
        torch.cuda.synchronize()
    return time.perf_counter() - started


def run_apart(work: Callable[..., Result], *args: Any) -> tuple[Result, float]:
    """Result of ``work(*args)`` in a new process, and its peak memory in GiB.

    `work` must be a function of a module, as it is pickled.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work, args, torch.get_num_threads()).result()


def resident(*, peak: bool = False) -> float:
    """Resident memory of this process in GiB, now or at its peak."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the memory of the parent process
        field = "VmHWM:" if peak else "VmRSS:"
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 2**20
    import resource

    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _measured(
    work: Callable[..., Result], args: tuple[Any, ...], n_threads: int
) -> tuple[Result, float]:
    torch.set_num_threads(n_threads)
    return work(*args), resident(peak=True)
