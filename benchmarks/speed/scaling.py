"""How the cost of a meta-gradient grows with tasks, shots and steps."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.speed import own_methods
from benchmarks.speed.problem import Case, Problem, draw_problem
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table
from benchmarks.suite.timing import interleave, quartiles

__all__ = ["measure_scaling", "scaling_table"]

BASE = Case(20, 64, 5, 10, 256, 3)
AXES = {"n_tasks": (64, 128, 256, 512), "shots": (5, 10, 20, 40), "steps": (1, 2, 4, 8)}


def measure_scaling(*, seconds: float = 10.0, seed: int = 0, device: str = "cpu") -> list[Record]:
    """Milliseconds of a meta-gradient in the form MAML takes by itself, along each axis."""
    started = time.perf_counter()
    records = []
    for axis, sizes in AXES.items():
        problems = {
            size: draw_problem(BASE._replace(**{axis: size}), seed, device) for size in sizes
        }
        calls = {str(size): _own_form(problem) for size, problem in problems.items()}
        times = interleave(calls, seconds=seconds / len(AXES))
        for size, problem in problems.items():
            median, low, high = quartiles(1e3 * times[str(size)])
            records.append(
                Record(
                    suite="speed",
                    case=f"scaling in {axis} from {tuple(BASE)}",
                    method=f"{axis} = {size}",
                    metric="ms",
                    value=median,
                    low=low,
                    high=high,
                    k=problem.shots,
                    n_tasks=problem.n_tasks,
                    seconds=time.perf_counter() - started,
                    seed=seed,
                    note="low rank" if own_methods.prefers_low_rank(problem) else "materialised",
                )
            )
    return records


def scaling_table(records: Sequence[Record]) -> str:
    """Each axis as it doubles, with the time relative to the line above."""
    rows, before = [], None
    for record in records:
        growth = ""
        if before is not None and before.case == record.case and before.value and record.value:
            growth = f"{record.value / before.value:.2f} x"
        rows.append([record.method, number(record.value), growth, record.note])
        before = record
    heading = [f"cost of a meta-gradient around {tuple(BASE)}", "ms", "as it doubles", "form"]
    return text_table(heading, rows)


def _own_form(problem: Problem) -> own_methods.Run:
    if own_methods.prefers_low_rank(problem):
        return own_methods.low_rank(problem)
    return own_methods.materialised(problem)
