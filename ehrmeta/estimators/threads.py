"""Independent pieces of work on all of torch's threads: one piece a thread, not all on one piece.

An operator on a chunk of small tasks is too short to be worth sharing out: two threads that wait
for each other after every operator are hardly faster than one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["in_threads", "one_thread"]

In = TypeVar("In")
Out = TypeVar("Out")


def in_threads(work: Callable[[In], Out], pieces: Sequence[In]) -> list[Out]:
    """``[work(piece) for piece in pieces]`` on as many threads as torch has.

    Examples
    --------
    >>> in_threads(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    n_threads = torch.get_num_threads()
    if min(n_threads, len(pieces)) < 2:
        return [work(piece) for piece in pieces]
    with (
        _usual_after,
        ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        return list(pool.map(work, pieces))


@contextmanager
def one_thread() -> Iterator[None]:
    """Little work: waking up other threads at every operator would take longer than doing it."""
    with _usual_after:
        torch.set_num_threads(1)
        yield


class _UsualAfter:
    """Sets torch's number of threads back, to what it was before the first of overlapping uses.

    The number belongs to the process: who came while another had lowered it would take that for the
    usual one, and leave it so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._usual = 1

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._usual = torch.get_num_threads()
            self._n_inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._n_inside -= 1
            torch.set_num_threads(self._usual)


_usual_after = _UsualAfter()
