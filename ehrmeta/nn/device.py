"""Work on many items in chunks that fit into the memory of the device.

Independent pieces of work on all of torch's threads: one piece a thread, not all on one piece.

An operator on a chunk of small tasks is too short to be worth sharing out: two threads that wait
for each other after every operator are hardly faster than one.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from ehrmeta.errors import DataError, MemoryWarning, Remedy

__all__ = [
    "PRECISIONS",
    "Chunks",
    "check_precision",
    "in_threads",
    "matrix_products",
    "one_thread",
]

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
