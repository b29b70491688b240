"""Peak memory of a piece of work, each in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

__all__ = ["resident", "run_apart"]

Result = TypeVar("Result")


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
