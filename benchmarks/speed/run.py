"""The speed suite: what a meta-gradient, an adapted patient and a training step cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.speed.adapting import adapt_many, adapt_one, latency_table, throughput_table
from benchmarks.speed.batch_building import batch_table, measure_batch_building
from benchmarks.speed.memory import measure_gradient_memory, memory_table
from benchmarks.speed.meta_gradient import METHODS, Method, compare_methods, method_table
from benchmarks.speed.problem import CASES, Problem, draw_problem, ragged_problem
from benchmarks.speed.scaling import measure_scaling, scaling_table
from benchmarks.suite.cache import Cache
from benchmarks.suite.record import Record, machine
from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.estimators.learner import pick_device

__all__ = ["run_speed"]

Measure = Callable[[], list[Record]]
Show = Callable[[Sequence[Record]], str]


def run_speed(
    say: Callable[[str], None],
    *,
    quick: bool = False,
    cache: Cache | None = None,
    methods: Sequence[str] = (),
    device: str = "cpu",
    seed: int = 0,
) -> list[Record]:
    """Run the suite, saying each table as soon as it is measured.

    Parameters
    ----------
    say : callable
        Takes a text to show.
    quick : bool
        Small cases and few rounds: under a minute.
    cache : Cache, optional
        Keeps finished tables, so that a run that was stopped goes on.
    methods : sequence of str
        Methods of the meta-gradient to compare, by default all that are installed.
    device : str
        Where the meta-gradients of this package and of torch's peers are computed.

    Returns
    -------
    list of Record

    Raises
    ------
    MissingExtraError
        A method that was named is not installed.
    EhrmetaError
        A method returns another meta-gradient than ``torch.func``.
    """
    _check_names(methods)
    device = str(pick_device(device))
    chosen = {name: METHODS[name] for name in methods or METHODS}
    about = machine()
    say(
        f"{about['processor']}, {about['cpus']} cores, {about['threads']} threads of torch, "
        f"load {about['load'] or 0.0:.1f}, {about['date']}; all methods side by side in one process"
    )
    records: list[Record] = []
    for name, (measure, show) in _cells(chosen, methods, quick, device, seed).items():
        settings = {
            "cell": name,
            "suite": "speed",
            "quick": quick,
            "methods": list(chosen),
            "device": device,
            "seed": seed,
            "threads": about["threads"],
            "versions": about["versions"],
        }
        found = (cache or Cache()).cell(settings, measure)
        say(f"\n{show(found)}")
        records += found
    return records


def _cells(
    methods: Mapping[str, Method], asked: Sequence[str], quick: bool, device: str, seed: int
) -> dict[str, tuple[Measure, Show]]:
    """What to measure and how to show it, by name."""
    seconds = 1.0 if quick else 10.0

    def compare(problem_of: Callable[..., Problem], *args: Any) -> list[Record]:
        problem = problem_of(*args, seed=seed, device=device)
        return compare_methods(
            problem,
            methods,
            asked=asked,
            seconds=seconds,
            min_rounds=3 if quick else 7,
            seed=seed,
        )

    timed: dict[str, Any] = {"seconds": seconds, "seed": seed}
    cells: dict[str, tuple[Measure, Show]] = {
        f"meta-gradient {tuple(case)}": (partial(compare, draw_problem, case), method_table)
        for case in (CASES[:1] if quick else CASES)
    }
    cells["meta-gradient nafld-hdl"] = (
        partial(compare, ragged_problem, 64 if quick else 256),
        method_table,
    )
    cells["adapt one patient"] = (partial(adapt_one, **timed), latency_table)
    cells["adapt many patients"] = (
        partial(adapt_many, 1_000 if quick else 10_000, **timed),
        throughput_table,
    )
    cells["batch building"] = (partial(measure_batch_building, **timed), batch_table)
    cells["scaling"] = (partial(measure_scaling, device=device, **timed), scaling_table)
    if not quick and device == "cpu":
        cells["memory of a meta-gradient"] = (
            partial(measure_gradient_memory, CASES[3], list(methods), seed=seed),
            memory_table,
        )
    return cells


def _check_names(methods: Sequence[str]) -> None:
    for name in methods:
        if name not in METHODS:
            raise DataError(f"there is no method '{name}'. {did_you_mean(name, METHODS)}")
