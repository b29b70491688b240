"""The PACOH protocol on PhysioNet 2012: a stay is a task, its first day tells about its second.

100 stays to train on, 500 to test; context is the first 24 hours (4 values or more), the query the
hours from 24 to 48. The published split is fixed in file order; five random ones are added.
Our model's settings were chosen on stays of set b, which the protocol does not use; the other
learners run at their defaults but for supports as large as the contexts. Error per stay is that of
the predictive median, pooled error that of the mean of the same distribution.

References
----------
Rothfuss, Fortuin, Josifoski, Krause (2021), PACOH, arXiv:2002.05551.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from benchmarks.pacoh.data import OUTCOMES, read_stays, split_stays, support_and_query
from benchmarks.suite.record import Record
from benchmarks.suite.score_files import Fitted, kept
from benchmarks.suite.task_scores import METRICS, Scores, calibration, metric, score_split
from benchmarks.suite.text_table import number, text_table
from ehrmeta.algorithms import MAML, CarryForward, NeuralProcess
from ehrmeta.baselines import LastValue, MixedProcessEffects
from ehrmeta.data import Table
from ehrmeta.errors import DivergenceError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.evaluation import Difference, bootstrap_counts
from ehrmeta.evaluation.bootstrap import percentile_limits

__all__ = ["METHODS", "OURS", "SPLITS", "pacoh_records", "pacoh_table", "run_pacoh"]

Array = NDArray[np.float64]
Key = tuple[str, str, int | None]  # variable, method, split
Found = dict[Key, Fitted]

SUITE = "pacoh"
SPLITS: tuple[int | None, ...] = (None, 0, 1, 2, 3, 4)  # None is the published one
_SHOTS = (4, 20)  # as many as a context holds

OURS, PROCESS, LAST = "carry forward", "mixed + OU, 9 parameters", "last value"


def _meta(algorithm: Any, **settings: Any) -> MetaRegressor:
    return MetaRegressor(algorithm, shots=_SHOTS, verbose=False, device="cpu", **settings)


METHODS: dict[str, Any] = {
    OURS: _meta(CarryForward(random_slope=False), validation_fraction=0.0),
    PROCESS: MixedProcessEffects(),
    "neural process": _meta(NeuralProcess()),
    "MAML": _meta(MAML()),
    LAST: LastValue(),
}

#: rmse per stay as published for the fixed split, not measured here
PUBLISHED = {
    "GP": {"GCS": 2.24, "HCT": 2.77},
    "MAML": {"GCS": 1.90, "HCT": 2.41},
    "NP": {"GCS": 2.06, "HCT": 2.59},
    "PACOH-GP": {"GCS": 1.50, "HCT": 2.36},
}


def run_pacoh(
    data: Path,
    say: Callable[[str], object] = lambda line: None,
    *,
    quick: bool = False,
    folder: Path | None = None,
    methods: Mapping[str, Any] = METHODS,
    workers: int = 1,
) -> Found:
    """Train and score every method on every split.

    Parameters
    ----------
    data : Path
        Folder with the challenge's files, see `read_stays`.
    say : callable
        Told about every method that finishes.
    quick : bool
        The published split only, and 60 training steps.
    folder : Path, optional
        Where finished cells are kept.
    methods : mapping
        Unfitted models by name.
    workers : int
        Processes of one thread each; with 1 this process works, on its threads.

    Returns
    -------
    dict
        By variable, method and split; scores stand under k = -1, as contexts differ in size.
    """
    splits = SPLITS[:1] if quick else SPLITS
    keys = [(v, name, split) for v in OUTCOMES for name in methods for split in splits]
    chosen = {key: _prepared(methods[key[1]], key[2], quick) for key in keys}
    found: Found = {}
    for key, cell in _measured(data, chosen, folder, workers):
        found[key] = cell
        variable, name, _ = key
        same = [found.get((variable, name, split)) for split in splits]
        if all(same):
            say(f"{variable}: {name}: {cell.note or f'fit {cell.seconds:.1f} s a split'}")
    return {key: found[key] for key in keys}


def pacoh_table(found: Found) -> str:
    """A table a variable, the published figures marked, and ours less the two to beat."""
    parts = []
    for variable in dict.fromkeys(variable for variable, _, _ in found):
        splits = list(dict.fromkeys(split for v, _, split in found if v == variable))
        heading = ["", "per stay", "pooled", "crps", "log lik", "cover 90", "calib"]
        for title, chosen in _titled(splits):
            rows = [
                [name, *_cells([found[variable, name, split] for split in chosen])]
                for name in dict.fromkeys(n for v, n, _ in found if v == variable)
            ]
            if chosen == [None]:
                rows += [
                    [f"{name}, as published", number(values[variable]), *[""] * 5]
                    for name, values in PUBLISHED.items()
                ]
            unit = OUTCOMES[variable][0]
            parts.append(f"{variable} {unit}, {title}: rmse\n{text_table(heading, rows)}")
        parts += list(_comparison(found, variable, splits))
    return "\n\n".join(parts)


def pacoh_records(found: Found) -> list[Record]:
    """Every metric on every split, and the paired differences of ours."""
    records = []
    for (variable, name, split), cell in found.items():
        case = f"{variable}, {_split_name(split)}"
        record = partial(Record, SUITE, case, name, seed=split or 0, seconds=cell.seconds)
        if not cell.scores:
            records.append(record(metric="rmse_task", value=None, note=cell.note))
            continue
        scores = cell.scores[-1]
        values = {key: metric(scores, key).value() for key in METRICS}
        values["calibration_error"] = calibration(scores)
        records += [
            record(metric=key, value=value, n_tasks=len(scores["rows"]))
            for key, value in values.items()
            if np.isfinite(value)
        ]
        for other in (PROCESS, LAST) if name == OURS else ():
            for key, gap in _gaps(found, variable, other, split):
                records.append(
                    record(
                        metric=f"{key} - {other}",
                        value=gap.difference,
                        low=gap.low,
                        high=gap.high,
                        n_tasks=len(scores["rows"]),
                    )
                )
    for name, published in PUBLISHED.items():
        for variable, value in published.items():
            case = f"{variable}, {_split_name(None)}"
            records.append(
                Record(SUITE, case, f"{name}, as published", "rmse_task", value, note="published")
            )
    return records


def _prepared(model: Any, split: int | None, quick: bool) -> Any:
    """A copy with the split's seed."""
    chosen = clone(model)
    if "random_state" in chosen.get_params():
        chosen.set_params(random_state=split or 0)
    if quick and "max_steps" in chosen.get_params():
        chosen.set_params(max_steps=60)
    return chosen


def _measured(
    data: Path, chosen: Mapping[Key, Any], folder: Path | None, workers: int
) -> Iterator[tuple[Key, Fitted]]:
    """Every cell, as it finishes."""
    if workers == 1:
        for key, model in chosen.items():
            yield key, _measure(data, key, model, folder)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the new processes as they start
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        running = {pool.submit(_measure, data, key, chosen[key], folder): key for key in chosen}
        for future in as_completed(running):
            yield running[future], future.result()


def _measure(data: Path, key: Key, model: Any, folder: Path | None) -> Fitted:
    """One cell, or what was kept of it."""
    variable, name, split = key
    table = _table(data, variable)
    settings = [variable, repr(model), split, table.n_tasks]
    fitted = partial(_fitted, table, model, split)
    return kept(folder, f"pacoh {variable} {name} {split}", settings, fitted)


@cache
def _table(data: Path, variable: str) -> Table:
    return read_stays(data, variable)


def _fitted(table: Table, model: Any, split: int | None) -> Fitted:
    train, test = split_stays(table, split)
    started = time.perf_counter()
    try:
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
    except DivergenceError:
        return Fitted({}, note="diverged")
    seconds = time.perf_counter() - started
    return Fitted({-1: score_split(model, test, *support_and_query(test))}, seconds)


def _titled(splits: list[int | None]) -> Iterator[tuple[str, list[int | None]]]:
    yield "published split", [None]
    random = [split for split in splits if split is not None]
    if random:
        yield f"mean of {len(random)} random splits", list(random)


def _cells(cells: list[Fitted]) -> list[str]:
    if not all(cell.scores for cell in cells):
        return [next(cell.note for cell in cells if not cell.scores), *[""] * 5]
    every = [cell.scores[-1] for cell in cells]
    names = ("rmse_task", "rmse_pooled", "crps", "log_likelihood", "coverage")
    values = [float(np.mean([metric(s, name).value() for s in every])) for name in names]
    values.append(float(np.mean([calibration(s) for s in every])))
    return [number(value) if np.isfinite(value) else "" for value in values]


def _comparison(found: Found, variable: str, splits: list[int | None]) -> Iterator[str]:
    """Paired differences of ours to the last value and to the process, split by split."""
    others = [other for other in (LAST, PROCESS) if (variable, other, None) in found]
    if (variable, OURS, None) not in found or not others:
        return
    rows = []
    for other in others:
        for split in splits:
            cells = [
                f"{gap.difference:.3f} [{gap.low:.3f}, {gap.high:.3f}]"
                for _, gap in _gaps(found, variable, other, split)
            ]
            rows.append([f"{other}, {_split_name(split)}", *(cells or ["", ""])])
    heading = [f"{OURS} less", "per stay", "pooled"]
    yield f"{variable}, paired 95 % intervals over stays\n{text_table(heading, rows)}"


def _gaps(
    found: Found, variable: str, other: str, split: int | None
) -> Iterator[tuple[str, Difference]]:
    if (variable, other, split) not in found:
        return
    pair = [found[variable, name, split] for name in (OURS, other)]
    if not all(cell.scores for cell in pair):
        return
    for name in ("rmse_task", "rmse_pooled"):
        yield name, _difference(pair[0].scores[-1], pair[1].scores[-1], name)


def _difference(ours: Scores, other: Scores, name: str) -> Difference:
    a, b = metric(ours, name), metric(other, name)
    counts = bootstrap_counts(len(a.loss), 1000, 0)
    limits = percentile_limits(a.resampled(counts) - b.resampled(counts), 0.95)
    return Difference(a.value() - b.value(), *limits)


def _split_name(split: int | None) -> str:
    return "published split" if split is None else f"random split {split}"
