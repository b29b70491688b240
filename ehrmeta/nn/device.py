"""Chunks of work that fit the device's memory, threads for independent pieces, and precision.

An operator on a chunk of small tasks is too short to be worth sharing out: two threads that wait
for each other after every operator are hardly faster than one, so each thread takes its own piece.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from ehrmeta.errors import DataError, MemoryWarning, Remedy

Out = TypeVar("Out")
In = TypeVar("In")
PRECISIONS = ("float32", "float64", "tf32", "bf16")


class Chunks:
    """How many items are computed at once: halved, and said so once, when the device is full.

    Parameters
    ----------
    size : int
        Items at once to begin with; what did not fit is not tried again.

    Examples
    --------
    >>> chunks = Chunks(2)
    >>> list(chunks.map(lambda part: part.stop - part.start, 5))
    [2, 2, 1]
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._warned = False

    def map(self, compute: Callable[[slice], Out], n_items: int) -> Iterator[Out]:
        """What `compute` gives for consecutive parts of so many items.

        Raises
        ------
        torch.OutOfMemoryError
            A single item does not fit.
        """
        at = 0
        while at < n_items:
            part = slice(at, min(at + self.size, n_items))
            try:
                found = compute(part)
            except torch.OutOfMemoryError:
                if part.stop - at == 1:
                    raise
                self.size = (part.stop - at + 1) // 2
            else:
                yield found
                at = part.stop
                continue
            self._say_once()  # after the exception has let go of its tensors

    def _say_once(self) -> None:
        if not self._warned:
            self._warned = True
            message = (
                f"the device's memory is full: going on with {self.size:,} tasks at once, or fewer "
                "if need be."
            )
            remedy = Remedy("smaller-chunks", "Pass chunk_size= to begin with fewer.")
            warnings.warn(MemoryWarning(message, remedy), stacklevel=2)


def in_threads(work: Callable[[In], Out], pieces: Sequence[In]) -> list[Out]:
    """``[work(piece) for piece in pieces]`` on as many threads as torch has, one core each.

    Examples
    --------
    >>> in_threads(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    n_threads = torch.get_num_threads()
    if min(n_threads, len(pieces)) < 2:
        return [work(piece) for piece in pieces]
    return list(_pool(n_threads).map(work, pieces))


def on_one_core(work: Callable[[], Out]) -> Out:
    """``work()`` on one core: waking up others at every operator would take longer than it."""
    n_threads = torch.get_num_threads()
    return work() if n_threads == 1 else _pool(n_threads).submit(work).result()


_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process, for a fork has no threads
_POOLS_LOCK = threading.Lock()


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """So many threads, made once, on each of which torch computes on one core.

    A thread's number of cores is its own once torch has run in it, but it can only be given through
    the default of new threads. So that default is lowered while the threads start, and not again.
    """
    with _POOLS_LOCK:
        key = os.getpid(), n_threads
        if key not in _POOLS:
            _POOLS[key] = ThreadPoolExecutor(n_threads, thread_name_prefix="ehrmeta")
            started = threading.Barrier(n_threads + 1)

            def start() -> None:
                torch.set_num_threads(1)
                torch.get_num_threads()  # from now on the number is this thread's own
                started.wait()

            for _ in range(n_threads):
                _POOLS[key].submit(start)
            started.wait()
            torch.set_num_threads(n_threads)
        return _POOLS[key]


def check_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type that parameters and data are held in.

    Raises
    ------
    DataError
        An unknown precision, or one that the device lacks.
    """
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise DataError(f"precision must be one of {known}, got {precision!r}.")
    if precision == "tf32" and device.type != "cuda":
        raise DataError(
            f"precision='tf32' is of NVIDIA GPUs, and the device is '{device.type}': use "
            "'float32', or 'bf16'."
        )
    return torch.float64 if precision == "float64" else torch.float32


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Matrix products inside are computed with the precision's short factors.

    ``"tf32"`` keeps 10 bits of each factor's fraction and ``"bf16"`` 7 (so that a result is good
    to about 1e-3 and 1e-2, relative); sums are in float32, and closed forms in float64, as ever.
    """
    if precision == "bf16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif precision == "tf32":
        products = torch.backends.cuda.matmul
        before, products.allow_tf32 = products.allow_tf32, True
        try:
            yield
        finally:
            products.allow_tf32 = before
    else:
        yield
