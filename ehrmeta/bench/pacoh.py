"""The PACOH protocol on PhysioNet 2012: a stay is a task, its first day tells about its second.

100 stays to train on, 500 to test; context is the first 24 hours (4 values or more), the query the
hours from 24 to 48. The published split is fixed in file order; five random ones are added.
Settings are the learners' defaults but for supports as large as the contexts, and were fixed before
any test stay was scored.

References
----------
Rothfuss, Fortuin, Josifoski, Krause (2021), PACOH, arXiv:2002.05551.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from ehrmeta.algorithms import MAML, DeepMixedEffects, NeuralProcess
from ehrmeta.baselines import LastValue, MixedProcessEffects
from ehrmeta.bench.pacoh_data import OUTCOMES, read_stays, split_stays, support_and_query
from ehrmeta.bench.record import Record
from ehrmeta.bench.score_files import Fitted, kept
from ehrmeta.bench.task_scores import METRICS, Scores, calibration, metric, score_split
from ehrmeta.bench.text_table import number, text_table
from ehrmeta.errors import DivergenceError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.evaluation import Difference, bootstrap_counts
from ehrmeta.evaluation.bootstrap import percentile_limits

__all__ = ["METHODS", "OURS", "SPLITS", "pacoh_records", "pacoh_table", "run_pacoh"]

Array = NDArray[np.float64]
Found = dict[tuple[str, str, int | None], Fitted]  # variable, method, split

SUITE = "pacoh"
SPLITS: tuple[int | None, ...] = (None, 0, 1, 2, 3, 4)  # None is the published one
_SHOTS = (4, 20)  # as many as a context holds

OURS, PROCESS, LAST = "deep mixed effects", "mixed + OU, 9 parameters", "last value"


def _meta(algorithm: Any) -> MetaRegressor:
    return MetaRegressor(algorithm, shots=_SHOTS, verbose=False, device="cpu")


METHODS: dict[str, Any] = {
    OURS: _meta(DeepMixedEffects()),
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

    Returns
    -------
    dict
        By variable, method and split; scores stand under k = -1, as contexts differ in size.
    """
    found: Found = {}
    for variable in OUTCOMES:
        table = read_stays(data, variable)
        for name, model in methods.items():
            for split in SPLITS[:1] if quick else SPLITS:
                chosen = clone(model)
                if "random_state" in chosen.get_params():
                    chosen.set_params(random_state=split or 0)
                if quick and "max_steps" in chosen.get_params():
                    chosen.set_params(max_steps=60)
                settings = [variable, repr(chosen), split, table.n_tasks]
                measure = partial(_measure, table, chosen, split)
                cell = kept(folder, f"pacoh {variable} {name} {split}", settings, measure)
                found[variable, name, split] = cell
            say(f"{variable}: {name}: {cell.note or f'fit {cell.seconds:.1f} s a split'}")
    return found


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


def _measure(table: Any, model: Any, split: int | None) -> Fitted:
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
