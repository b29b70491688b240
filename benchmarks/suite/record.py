"""Records of measured numbers, their JSON files, text tables, and targets."""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch


@dataclass(frozen=True)
class Record:
    """A measured number.

    Parameters
    ----------
    suite, case, method, metric : str
    value : float or None
        None if the method could not run; `note` has the reason.
    k : int, optional
        Support rows of a task.
    low, high : float, optional
        Quartiles of a timing, or bootstrap interval of a score.
    n_tasks : int, optional
    seconds : float, optional
        Time of the measurement.
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
    """Write records to a JSON file, with the command, the machine and the date."""
    content = {"command": command, "machine": machine(), "records": list(map(asdict, records))}
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Properties of this machine that timings depend on: processor, threads, versions.

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
            name: installed
            for name in ("ehrmeta", "torch", "numpy", "scikit-learn", "jax", "higher")
            if (installed := _version(name)) is not None
        },
    }


def _processor() -> str:
    """Name of the processor, on Linux from /proc/cpuinfo."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _n_cpus() -> int:
    """Number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def text_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text table with aligned columns: the first to the left, the others to the right.

    Examples
    --------
    >>> print(text_table(["method", "ms"], [["low rank", "31.20"], ["vmap", "387.00"]]))
    method        ms
    ----------------
    low rank   31.20
    vmap      387.00
    """
    lines = [list(heading), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    text = [
        "  ".join(
            word.rjust(width) if i else word.ljust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def pivot_table(
    records: Iterable[Record],
    field: str,
    columns: Mapping[str, object],
    shown: Callable[[list[float]], str],
) -> str:
    """Table of values by method (rows) and by the value of a field (columns).

    `shown` formats the list of the values of all records of a cell.
    """
    cells: dict[str, list[list[float]]] = {}
    for record in records:
        row = cells.setdefault(record.method, [[] for _ in columns])
        for values, key in zip(row, columns.values(), strict=True):
            if getattr(record, field) == key and record.value is not None:
                values.append(record.value)
    return text_table(["", *columns], [[name, *map(shown, row)] for name, row in cells.items()])


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, at least to the decimal point; "" for None or NaN.

    Examples
    --------
    >>> number(0.012345), number(3.14159), number(12345.6), number(None)
    ('0.0123', '3.14', '12,346', '')
    """
    if value is None or math.isnan(value):
        return ""
    if value == 0:
        return "0"
    places = digits - 1 - int(f"{value:e}".partition("e")[2])
    return f"{value:,.{max(places, 0)}f}"


def interval(record: Record | None, shown: Callable[[float | None], str] = number) -> str:
    """A value with its interval, or the note of a record without value.

    Examples
    --------
    >>> interval(Record("suite", "case", "method", "mse", 0.25, low=0.2, high=0.3))
    '0.250 [0.200, 0.300]'
    """
    if record is None:
        return ""
    if record.value is None:
        return record.note
    return f"{shown(record.value)} [{shown(record.low)}, {shown(record.high)}]"


class Target(NamedTuple):
    """A claim, the figure, the target, and whether it is met; None if undecided."""

    claim: str
    figure: str
    target: str
    met: bool | None

    @classmethod
    def at_most(cls, claim: str, value: float, most: float) -> Self:
        """Target with an upper bound."""
        return cls(claim, number(value), f"at most {number(most)}", bool(value <= most))

    @classmethod
    def share(cls, claim: str, value: float, least: float) -> Self:
        """Target of a share with a lower bound."""
        return cls(claim, f"{value:.1%}", f"at least {least:.0%}", bool(value >= least))

    @classmethod
    def within(cls, claim: str, value: float, low: float, high: float) -> Self:
        """Target of a share between two bounds."""
        inside = bool(low <= value <= high)
        return cls(claim, f"{value:.1%}", f"{low:.0%} to {high:.0%}", inside)


def target_table(targets: Iterable[Target], method: str) -> str:
    """Table of targets of a method; empty without any."""
    status = {True: "met", False: "missed", None: "open"}
    rows = [[t.claim, t.figure, t.target, status[t.met]] for t in targets]
    return text_table([f"targets of {method}", "figure", "target", ""], rows) if rows else ""
