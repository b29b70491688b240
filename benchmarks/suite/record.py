"""One measured number of a benchmark, and files of them."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["Record", "machine", "write_records"]


@dataclass(frozen=True)
class Record:
    """A number with where it comes from.

    Parameters
    ----------
    suite, case, method, metric : str
        What was measured, of which method, on which case.
    value : float or None
        None where the method could not run; `note` says why.
    k : int, optional
        Support rows of a task.
    low, high : float, optional
        Ends of the interval: quartiles of a timing, a bootstrap interval of a score.
    n_tasks : int, optional
        Tasks behind the number.
    seconds : float, optional
        What measuring it took.
    seed : int
    note : str
    """

    suite: str
    case: str
    method: str
    metric: str
    value: float | None
    k: int | None = None
    low: float | None = None
    high: float | None = None
    n_tasks: int | None = None
    seconds: float | None = None
    seed: int = 0
    note: str = ""


def write_records(
    path: str | os.PathLike[str], records: Iterable[Record], command: str = ""
) -> None:
    """Write records to a JSON file, with the command, the machine and the date of measuring."""
    content = {
        "command": command,
        "machine": machine(),
        "records": [asdict(record) for record in records],
    }
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Processor, threads and versions that a timing depends on.

    Examples
    --------
    >>> sorted(machine())[:3]
    ['cpus', 'date', 'gpu']
    """
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cpus": _n_cpus(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {
            name: found
            for name in ("ehrmeta", "torch", "numpy", "scikit-learn", "jax", "higher")
            if (found := _version(name)) is not None
        },
    }


def _processor() -> str:
    """The processor's name; Linux hides it in a file."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _n_cpus() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
