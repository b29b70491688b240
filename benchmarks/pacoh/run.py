"""Suite ``pacoh``: the protocol of PACOH on PhysioNet 2012, forecasts of ICU stays.

100 stays for training, 500 for testing; the support is the first 24 hours (4 values or more), the
query the hours from 24 to 48. The published split is by file order; five random ones are added.
The settings of our model were chosen on set b, which the protocol does not use; the other learners
have default settings, except for supports as large as the contexts. Errors per stay are those of
the predictive median, pooled errors those of the mean.

References
----------
Rothfuss, Fortuin, Josifoski, Krause (2021), PACOH, arXiv:2002.05551.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.pacoh.data import OUTCOMES, read_stays, split_stays, support_and_query
from benchmarks.suite.cells import Cell, Fitted, Run
from benchmarks.suite.command import CACHE, WORKERS, suite
from benchmarks.suite.fitting import prepared
from benchmarks.suite.record import Record, number, text_table
from benchmarks.suite.task_scores import METRICS, calibration, difference, metric, score_split
from ehrmeta.algorithms import MAML, CarryForward, NeuralProcess
from ehrmeta.baselines import LastValue, MixedProcessEffects
from ehrmeta.data import Table
from ehrmeta.errors import DivergenceError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.evaluation import Difference

Key = tuple[str, str, int | None]  # variable, method, split
Results = dict[Key, Fitted]

SUITE = "pacoh"
SPLITS: tuple[int | None, ...] = (None, 0, 1, 2, 3, 4)  # None is the published one
_SHOTS = (4, 20)  # range of the number of values in a context

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

#: published rmse per stay on the fixed split
PUBLISHED = {
    "GP": {"GCS": 2.24, "HCT": 2.77},
    "MAML": {"GCS": 1.90, "HCT": 2.41},
    "NP": {"GCS": 2.06, "HCT": 2.59},
    "PACOH-GP": {"GCS": 1.50, "HCT": 2.36},
}


@suite(
    click.option(
        "--data",
        metavar="DIR",
        required=True,
        type=click.Path(path_type=Path),
        help="Folder of the challenge's files: set-a/*.txt, or set_a.parquet.",
    ),
    CACHE,
    WORKERS,
)
def pacoh(run: Run, data: Path) -> list[Record]:
    """Forecast the second day of an ICU stay from its first (PhysioNet 2012).

    The protocol of PACOH: 100 stays to train on, 500 to test, on Glasgow coma score and
    haematocrit; the published split and five random ones. --quick runs the published split only,
    with short training.

    \b
    Example:
        python -m benchmarks pacoh --data physionet2012 --quick
    """
    fitted = run_pacoh(run, data)
    run.show(pacoh_table(fitted))
    return pacoh_records(fitted)


def run_pacoh(run: Run, data: Path, methods: Sequence[str] = tuple(METHODS)) -> Results:
    """Train and score every method on every split, by variable, method and split.

    `data` is the folder of `read_stays`. Scores have k = -1, as contexts differ in size.
    """
    splits = SPLITS[:1] if run.quick else SPLITS
    max_steps = 60 if run.quick else None
    tables = {variable: read_stays(data, variable) for variable in OUTCOMES}
    keys = [(v, name, split) for v in OUTCOMES for name in methods for split in splits]
    cells = [
        Cell(f"pacoh {v}: {name}, {_split_name(s)}", measure_stays, (tables[v], name, s, max_steps))
        for v, name, s in keys
    ]
    return dict(zip(keys, run.results(cells), strict=True))


def measure_stays(table: Table, name: str, split: int | None, max_steps: int | None) -> Fitted:
    """Scores of one method on one split."""
    model = prepared(METHODS[name], split or 0, max_steps)
    train, test = split_stays(table, split)
    started = time.perf_counter()
    try:
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
    except DivergenceError:
        return Fitted({}, note="diverged")
    seconds = time.perf_counter() - started
    return Fitted({-1: score_split(model, test, *support_and_query(test))}, seconds)


def pacoh_table(results: Results) -> str:
    """Tables of errors by variable, with published figures, and of paired differences."""
    parts = []
    for variable in dict.fromkeys(variable for variable, _, _ in results):
        splits = list(dict.fromkeys(split for v, _, split in results if v == variable))
        heading = ["", "per stay", "pooled", "crps", "log lik", "cover 90", "calib"]
        random: list[int | None] = [split for split in splits if split is not None]
        titled: dict[str, list[int | None]] = {
            "published split": [None],
            f"mean of {len(random)} random splits": random,
        }
        for title, chosen in ((title, part) for title, part in titled.items() if part):
            rows = [
                [name, *_cells([results[variable, name, split] for split in chosen])]
                for name in dict.fromkeys(n for v, n, _ in results if v == variable)
            ]
            if chosen == [None]:
                rows += [
                    [f"{name}, as published", number(values[variable]), *[""] * 5]
                    for name, values in PUBLISHED.items()
                ]
            unit = OUTCOMES[variable][0]
            parts.append(f"{variable} {unit}, {title}: rmse\n{text_table(heading, rows)}")
        parts += list(_comparison(results, variable, splits))
    return "\n\n".join(parts)


def pacoh_records(results: Results) -> list[Record]:
    """All metrics on all splits, and the paired differences of our method."""
    records = []
    for (variable, name, split), cell in results.items():
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
            for key, gap in _gaps(results, variable, other, split):
                gap_name, n = f"{key} - {other}", len(scores["rows"])
                records.append(
                    record(gap_name, gap.difference, low=gap.low, high=gap.high, n_tasks=n)
                )
    for name, published in PUBLISHED.items():
        for variable, value in published.items():
            case = f"{variable}, {_split_name(None)}"
            records.append(
                Record(SUITE, case, f"{name}, as published", "rmse_task", value, note="published")
            )
    return records


def _cells(cells: list[Fitted]) -> list[str]:
    if not all(cell.scores for cell in cells):
        return [next(cell.note for cell in cells if not cell.scores), *[""] * 5]
    every = [cell.scores[-1] for cell in cells]
    names = ("rmse_task", "rmse_pooled", "crps", "log_likelihood", "coverage")
    values = [float(np.mean([metric(s, name).value() for s in every])) for name in names]
    values.append(float(np.mean([calibration(s) for s in every])))
    return list(map(number, values))


def _comparison(results: Results, variable: str, splits: list[int | None]) -> Iterator[str]:
    """Paired differences of our method to the last value and to the process, by split."""
    others = [other for other in (LAST, PROCESS) if (variable, other, None) in results]
    if (variable, OURS, None) not in results or not others:
        return
    rows = []
    for other in others:
        for split in splits:
            cells = [
                f"{gap.difference:.3f} [{gap.low:.3f}, {gap.high:.3f}]"
                for _, gap in _gaps(results, variable, other, split)
            ]
            rows.append([f"{other}, {_split_name(split)}", *(cells or ["", ""])])
    heading = [f"{OURS} minus", "per stay", "pooled"]
    yield f"{variable}, paired 95 % intervals over stays\n{text_table(heading, rows)}"


def _gaps(
    results: Results, variable: str, other: str, split: int | None
) -> Iterator[tuple[str, Difference]]:
    if (variable, other, split) not in results:
        return
    pair = [results[variable, name, split] for name in (OURS, other)]
    if not all(cell.scores for cell in pair):
        return
    for name in ("rmse_task", "rmse_pooled"):
        yield name, difference(pair[0].scores[-1], pair[1].scores[-1], name)


def _split_name(split: int | None) -> str:
    return "published split" if split is None else f"random split {split}"
