"""Chunks that fit the device's memory, threads for independent chunks, and precision.

Operators on chunks of small tasks are too short for parallel execution: threads that synchronise
after every operator are hardly faster than one. So each thread computes its own chunk.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController, threadpool_limits

from ehrmeta.errors import DataError, MemoryWarning, Remedy, warn

Out = TypeVar("Out")
In = TypeVar("In")
Array = npt.NDArray[np.float64]
FEW_POINTS = 1024  # up to here a second thread costs more than it saves
PRECISIONS = ("float32", "float64", "tf32", "bf16")


class Chunks:
    """Splits work into chunks, whose size is halved when the memory is full.

    Only the first halving gives a warning.

    Parameters
    ----------
    size : int
        Initial number of items per chunk. A size that did not fit is not tried again.

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
        """Results of `compute` for consecutive parts of `n_items` items.

        Raises
        ------
        torch.OutOfMemoryError
            A single item does not fit.
        """
        at = 0
        while at < n_items:
            part = slice(at, min(at + self.size, n_items))
            try:
                value = compute(part)
            except torch.OutOfMemoryError:
                if part.stop - at == 1:
                    raise
                self.size = (part.stop - at + 1) // 2
            else:
                yield value
                at = part.stop
                continue
            self._warn_once()  # after the exception has released its tensors

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            message = (
                f"the device's memory is full: continuing with at most {self.size:,} tasks at once."
            )
            remedy = Remedy("smaller-chunks", "Pass chunk_size= to start with fewer.")
            warn(MemoryWarning(message, remedy))


def in_threads(work: Callable[[In], Out], pieces: Sequence[In]) -> list[Out]:
    """Compute ``[work(piece) for piece in pieces]`` in torch's number of threads, one core each.

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
    """Compute ``work()`` on one core, for operators that are too short to run in parallel."""
    n_threads = torch.get_num_threads()
    return work() if n_threads == 1 else _pool(n_threads).submit(work).result()


def for_points(n_points: int, work: Callable[[], Out], device: torch.device) -> Out:
    """Result of ``work()``, on one core if there are few points and they are on the CPU.

    Examples
    --------
    >>> for_points(100, torch.get_num_threads, torch.device("cpu"))
    1
    """
    is_little = device.type == "cpu" and n_points <= FEW_POINTS
    return on_one_core(work) if is_little else work()


def for_rows(n_rows: int, work: Callable[[], Out]) -> Out:
    """Result of ``work()``, on one core if the table has few rows, also in NumPy and scikit-learn.

    Examples
    --------
    >>> for_rows(100, torch.get_num_threads)
    1
    """
    if n_rows > FEW_POINTS:
        return work()

    def limited() -> Out:
        with threadpool_limits(1, user_api="openmp"):
            return work()

    with _blas().limit(limits=1):
        return on_one_core(limited)


def lbfgs(objective: Callable[..., Any], start: Array, **settings: Any) -> Any:
    """Minimise an objective with its gradient by scipy's L-BFGS-B, with one BLAS thread.

    More threads of OpenBLAS wait in a busy loop, which can take ten times as long as the products
    of L-BFGS. The limit holds in the whole process meanwhile.
    """
    with _blas().limit(limits=1):
        return minimize(objective, start, jac=True, method="L-BFGS-B", **settings)


@cache
def _blas() -> Any:
    """The libraries of BLAS; cached, as finding them takes 20 ms."""
    return ThreadpoolController().select(user_api="blas")


_POOLS: dict[int, ThreadPoolExecutor] = {}  # by number of threads
_POOLS_LOCK = threading.Lock()


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Cached pool of threads, in each of which torch uses one core.

    The first use of torch in a thread fixes the thread's number of cores, from a default for new
    threads. This default is lowered only while the threads start.
    """
    with _POOLS_LOCK:
        if n_threads not in _POOLS:
            _POOLS[n_threads] = ThreadPoolExecutor(n_threads, thread_name_prefix="ehrmeta")
            started = threading.Barrier(n_threads + 1)

            def start() -> None:
                torch.set_num_threads(1)
                torch.get_num_threads()  # fixes the number for this thread
                started.wait()

            for _ in range(n_threads):
                _POOLS[n_threads].submit(start)
            started.wait()
            torch.set_num_threads(n_threads)
        return _POOLS[n_threads]


def _start_forked() -> None:
    """Compute on one core in a forked process: it has none of its parent's threads.

    OpenMP would wait for them forever, in torch and in scikit-learn.
    """
    # Another thread of the parent may hold the old lock.
    global _POOLS_LOCK  # noqa: PLW0603 -- a lock cannot be released by another process
    _POOLS_LOCK = threading.Lock()
    _POOLS.clear()
    torch.set_num_threads(1)
    threadpool_limits(1)


os.register_at_fork(after_in_child=_start_forked)


def check_precision(precision: str, device: torch.device) -> torch.dtype:
    """Data type of parameters and data.

    Raises
    ------
    DataError
        The precision is unknown, or not available on the device.
    """
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise DataError(f"precision must be one of {known}, got {precision!r}.")
    if precision == "tf32" and device.type != "cuda":
        raise DataError(
            f"precision='tf32' needs an NVIDIA GPU, but the device is '{device.type}'. Use "
            "'float32' or 'bf16'."
        )
    return torch.float64 if precision == "float64" else torch.float32


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Context in which matrix products use factors of reduced precision.

    Factors have 10 bits of fraction with ``"tf32"`` and 7 with ``"bf16"`` (relative errors of about
    1e-3 and 1e-2). Sums are in float32 and closed forms in float64.
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
