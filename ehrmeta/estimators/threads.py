"""Independent pieces of work on all of torch's threads: one piece a thread, not all on one piece.

An operator on a chunk of small tasks is too short to be worth sharing out: two threads that wait
for each other after every operator are hardly faster than one.
"""

from __future__ import annotations

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
    try:
        with ThreadPoolExecutor(
            n_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(work, pieces))
    finally:
        torch.set_num_threads(n_threads)  # for threads to come; those of the pool set it for all


@contextmanager
def one_thread() -> Iterator[None]:
    """Little work: waking up other threads at every operator would take longer than doing it."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
