"""Treatment effects: simulations with the truth, new sites, and what policies gain in trials.

Zero and a constant effect are always in the table: many published effect models are worse than
zero (arXiv:2410.07021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

from benchmarks.suite.cache import Cache
from benchmarks.suite.cells import Cell, run_cells
from benchmarks.suite.record import Record
from benchmarks.treatment.methods import METHODS, OURS
from benchmarks.treatment.simulated import BAYES, SUITE, measure_acic, measure_sites
from benchmarks.treatment.survival import SURVIVAL_TRIALS, measure_survival
from benchmarks.treatment.trials import TRIALS, measure_trial

__all__ = ["PARTS", "run_treatment"]

PARTS = ("acic2016", "sites", "trials", "survival")
KNOBS = tuple((h, c) for h in (0.0, 1.0) for c in (0.0, 1.0, 2.0))
SHOTS = (0, 5, 20, 100)
_VERSION = 3  # raised when a change here or in our default makes kept cells stale


def run_treatment(
    say: Callable[[str], object] = lambda line: None,
    *,
    quick: bool = False,
    cache: Cache | None = None,
    parts: Sequence[str] = (),
    methods: Sequence[str] = (),
    workers: int = 1,
) -> list[Record]:
    """Run every method on every case.

    Parameters
    ----------
    say : callable
        Told about every cell as it finishes, and about what is left out.
    quick : bool
        One instance and fold of ACIC 2016, one repeat of two kinds of sites, one trial.
    cache : Cache, optional
        Where finished cells are kept.
    parts, methods : sequence of str
        Names; all without any.
    workers : int
        Processes of one thread each; with 1 this process works, on its threads.
    """
    names = [name for name in methods or METHODS if _found(name, METHODS[name].package, say)]
    cells: list[Cell] = []
    for part in parts or PARTS:
        if part == "acic2016":
            cells += _acic(names, quick)
        elif part == "sites":
            cells += _sites(names, quick)
        elif part == "trials":
            found = [t for t in TRIALS if _found(t, TRIALS[t].package, say)]
            cells += [
                _cell(f"{trial}: {name}", partial(measure_trial, trial, name))
                for trial in (found[:1] if quick else found)
                for name in names
            ]
        elif OURS in names:
            cells += [_cell(name, partial(measure_survival, name)) for name in SURVIVAL_TRIALS]
    return run_cells(cells, say, cache=cache, workers=workers)


def _acic(names: Sequence[str], quick: bool) -> list[Cell]:
    n_folds = 1 if quick else 5
    return [
        _cell(f"acic2016 {i}: {name}", partial(measure_acic, i, name, n_folds), folds=n_folds)
        for i in range(1, 2 if quick else 11)
        for name in names
    ]


def _sites(names: Sequence[str], quick: bool) -> list[Cell]:
    n_repeats, knobs = (1, KNOBS[1::3]) if quick else (4, KNOBS)
    return [
        _cell(
            f"sites {h:g} {c:g}: {name}",
            partial(measure_sites, name, h, c, SHOTS, n_repeats),
            repeats=n_repeats,
        )
        for h, c in knobs
        for name in [BAYES, *names]
    ]


def _cell(name: str, measure: Callable[[], list[Record]], **settings: object) -> Cell:
    settings = {"cell": f"{SUITE} {name}", "version": _VERSION, **settings}
    return Cell(settings, measure)


def _found(name: str, package: str, say: Callable[[str], object]) -> bool:
    if not package or find_spec(package) is not None:
        return True
    say(f"{name} left out: {package} is not installed (pip install {package})")
    return False
