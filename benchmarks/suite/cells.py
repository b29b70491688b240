"""The cells of a long benchmark: each once, in this process or in several, kept as it finishes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from sklearn.base import BaseEstimator

from benchmarks.suite.cache import Cache
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number

__all__ = ["Cell", "described", "finished", "run_cells"]

Out = TypeVar("Out")


@dataclass(frozen=True)
class Cell:
    """One method on one case.

    Parameters
    ----------
    settings : mapping
        Everything the records depend on, as `Cache.cell` wants it.
    measure : callable
        Returns the records; a module's function, so that another process can be handed it.
    """

    settings: Mapping[str, Any]
    measure: Callable[[], list[Record]]


def described(part: BaseEstimator | None) -> list[Any]:
    """A learner or a backbone with all its hyper-parameters, for a cell's settings.

    Examples
    --------
    >>> from ehrmeta.algorithms import Population
    >>> described(Population())
    ['Population', {}]
    """
    return [] if part is None else [type(part).__name__, part.get_params(deep=False)]


def run_cells(
    cells: Sequence[Cell],
    say: Callable[[str], object],
    *,
    cache: Cache | None = None,
    workers: int = 1,
) -> list[Record]:
    """The records of all cells, in the order of `cells`.

    Parameters
    ----------
    say : callable
        Told about every cell as it finishes.
    cache : Cache, optional
        Where finished cells are kept.
    workers : int
        Processes. With more than one each computes on one thread, as in this process after
        ``torch.set_num_threads(1)``; seconds are then those of one thread.
    """
    found: dict[int, list[Record]] = {}
    for at, records in finished(_measure, [(cache or Cache(), cell) for cell in cells], workers):
        found[at] = records
        first = records[0]
        took = "" if first.seconds is None else f" in {number(first.seconds)} s"
        score = first.note if first.value is None else f"{first.value:.3g}"
        say(f"[{len(found)}/{len(cells)}] {first.case}: {first.method}: {score}{took}")
    return [record for at in range(len(cells)) for record in found[at]]


def finished(
    work: Callable[..., Out], calls: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[int, Out]]:
    """Place and result of every call, as they finish, in this process or in several.

    Parameters
    ----------
    work : callable
        A module's function, so that another process can be handed it.
    calls : sequence of tuple
        Its arguments.
    workers : int
        Processes of one thread each; with 1 this process works, on its threads.
    """
    if workers == 1:
        for at, call in enumerate(calls):
            yield at, work(*call)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the new processes as they start
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        running = {pool.submit(work, *call): at for at, call in enumerate(calls)}
        for future in as_completed(running):
            yield running[future], future.result()


def _measure(cache: Cache, cell: Cell) -> list[Record]:
    return cache.cell(cell.settings, cell.measure)
