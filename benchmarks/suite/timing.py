"""Timing side by side, every method in turn, and peak memory in a process of its own."""

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
    """A record of the speed suite: median and quartiles of the rounds, or one number.

    Parameters
    ----------
    started : float
        By `time.perf_counter`, when measuring the case began.
    about
        Other fields of the record.
    """
    value, low, high = quartiles(values) if isinstance(values, np.ndarray) else (values, None, None)
    about["seconds"] = time.perf_counter() - started
    return Record("speed", case, method, metric, value, low=low, high=high, **about)


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


def run_apart(work: Callable[..., Result], *args: Any) -> tuple[Result, float]:
    """The result of ``work(*args)`` and the GiB of memory that its process held at most.

    Parameters
    ----------
    work : callable
        A function of a module, so that a fresh process can find it.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work, args, torch.get_num_threads()).result()


def resident(*, peak: bool = False) -> float:
    """GiB that this process holds now, or held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the memory of the process that started this one
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
