"""Suite ``conformal``: coverage of calibrated 90 % intervals by sex, age and k.

A model of HDL cholesterol (nafld-hdl) is fitted to half of the patients. The other half is split at
random 20 times into patients for calibration and for testing. Coverage is the share of a patient's
later values inside their intervals, averaged over patients and splits.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.patients.data import load
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.command import CACHE, SEED, WORKERS, only, suite
from benchmarks.suite.fitting import prepared
from benchmarks.suite.record import Record, Target, number, target_table, text_table
from ehrmeta.baselines import MixedEffects, MixedProcessEffects
from ehrmeta.data import OutcomeScale, Table
from ehrmeta.estimators import MetaRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.conformal_limits import Limits, by_cell, finest, levels_of, tasks_needed
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits
from ehrmeta.evaluation import interval_score

SUITE, DATA_SET = "conformal", "nafld-hdl"
SHOTS = (1, 2, 3, 5, 10)
LEVEL = 0.9
METHODS = UNCALIBRATED, BY_K, BY_SUBGROUP = "uncalibrated", "by k", "by k, sex and age"
SUBGROUPS = {"sex": ["male"], "age third": ["third"], "sex and age": ["male", "third"]}
MANY, LOW_SHARE = 8, 0.7  # query rows of a patient, and coverage below which it is low
COVERAGE, SCORE, LOW_COVERAGE = "coverage", "interval_score", "low_coverage"

MODELS: dict[str, TaskRegressor] = {
    "deep mixed effects": MetaRegressor(verbose=False, device="cpu"),
    "mixed + OU": MixedProcessEffects(),
    "mixed": MixedEffects(),
}


@dataclass(frozen=True)
class Plan:
    """Size of a run: random splits, and maximum numbers of patients and training steps."""

    n_splits: int = 20
    max_tasks: int | None = None
    max_steps: int | None = None


FULL, QUICK = Plan(), Plan(n_splits=2, max_tasks=1200, max_steps=50)
OURS = f"deep mixed effects: {BY_SUBGROUP}"
_NOMINAL, _WORST_SCORE, _LOW_BEFORE = (0.89, 0.91), 1.02, 0.11
_TARGETS = ("sex", "age third")


@suite(CACHE, SEED, WORKERS, only("--model", "models", MODELS, "model"))
def conformal(run: Run, models: Sequence[str]) -> list[Record]:
    """Measure the coverage of calibrated intervals by sex, age and k.

    Each model is fitted once; other patients are split 20 times into those for calibration and for
    testing. The last table compares the figures of our default with targets. --quick uses two
    splits of 600 patients, so its shares are imprecise.

    \b
    Example:
        python -m benchmarks conformal --model 'mixed + OU'
    """
    records = run_conformal(run, QUICK if run.quick else FULL, models or tuple(MODELS))
    run.show(conformal_table(records))
    targets = target_table(conformal_targets(records), OURS)
    run.show(targets)
    if run.quick and targets:
        run.show("There are too few patients to assess the targets: run without --quick.")
    return records


def run_conformal(
    run: Run, plan: Plan = FULL, models: Sequence[str] = tuple(MODELS)
) -> list[Record]:
    """Coverage, interval score and share of low coverage of every model and calibration."""
    return run.records(
        [Cell(f"conformal {name}", measure_intervals, (name, plan, run.seed)) for name in models]
    )


def measure_intervals(name: str, plan: Plan, seed: int) -> list[Record]:
    """One model's intervals under every calibration, averaged over the splits."""
    started = time.perf_counter()
    table = load(DATA_SET)
    if plan.max_tasks is not None:
        table = table.split(plan.max_tasks / table.n_tasks, random_state=seed)[1]
    train, pool = table.split(0.5, random_state=seed)
    model = prepared(MODELS[name], seed, plan.max_steps)
    model.fit(train.X, train.y, groups=train.groups, time=train.time)
    cuts = tuple(np.quantile(train.X["age"], [1 / 3, 2 / 3]).round())
    # Model and predictions are the same in every split.
    rows = _predicted(model, pool, {"male": (), "age": cuts})
    parts = []
    for split in range(plan.n_splits):
        calibration, _ = pool.split(0.5, random_state=split)
        calibrates = np.isin(pool.tasks.labels, calibration.groups)[rows["task"]]
        limits = by_cell(rows[calibrates], _limits)
        tested = _tested(limits, rows[~calibrates], model.table_.outcome)
        parts += [_summary(scored, split) for scored in tested]
    seconds = time.perf_counter() - started
    return list(_records(name, pd.concat(parts), pool.n_tasks, seconds, seed))


def _predicted(model: Any, pool: Table, by: Mapping[str, tuple[float, ...]]) -> pd.DataFrame:
    """Prediction, error and uncalibrated interval of every later row after every k."""
    level = levels_of({name: pool.X[name].to_numpy() for name in by}, by)
    tail = 0.5 * (1.0 - LEVEL)
    parts = []
    inputs = model.model_.read(pool.X, pool.y, groups=pool.groups, time=pool.time)
    for k, support, query in k_shot_splits(inputs, SHOTS):
        adapted, later = adapt_to_rows(model, pool.X, inputs, support, query)
        predicted, y = adapted.predict_distribution(**later), pool.y[query]
        columns = {
            "shots": k,
            "task": pool.tasks.codes[query],
            "level": level[query],
            "y": y,
            "loc": predicted.loc,
            "scale": predicted.scale,
            "error": (predicted.outcome.forward(y) - predicted.loc) / predicted.scale,
            "low": predicted.quantile(tail),
            "high": predicted.quantile(1.0 - tail),
        }
        parts.append(pd.DataFrame(columns))
    rows = pd.concat(parts, ignore_index=True)
    rows[["male", "third"]] = rows["level"].str.split(", ", expand=True).to_numpy()
    return rows


def _limits(rows: pd.DataFrame) -> Limits:
    return Limits.of(rows["error"].to_numpy(), rows["task"].to_numpy())


def _tested(
    limits: Mapping[Any, Limits], rows: pd.DataFrame, outcome: OutcomeScale
) -> Iterator[pd.DataFrame]:
    """Coverage and interval score of every row of the test patients."""
    needed = tasks_needed(LEVEL)
    for k, at_k in rows.groupby("shots"):
        for method in METHODS:
            quantiles = np.empty((len(at_k), 2))
            for level in at_k["level"].unique():
                cell = finest(limits, (k, level if method == BY_SUBGROUP else None), needed)
                quantiles[at_k["level"] == level] = limits[cell].at(LEVEL)
            ends = at_k[["loc"]].to_numpy() + at_k[["scale"]].to_numpy() * quantiles
            uncalibrated = at_k[["low", "high"]].to_numpy()
            low, high = (uncalibrated if method == UNCALIBRATED else outcome.inverse(ends)).T
            columns = {
                "method": method,
                "k": k,
                "patient": at_k["task"],
                "covered": (low <= at_k["y"]) & (at_k["y"] <= high),
                "score": interval_score(at_k["y"], low, high, confidence_level=LEVEL),
            }
            yield at_k[["male", "third"]].assign(**columns)


def _summary(rows: pd.DataFrame, split: int) -> pd.DataFrame:
    """Means over patients, of one method at one k."""
    first = {"method": rows["method"].iloc[0], "k": rows["k"].iloc[0], "split": split}
    patients = rows.groupby("patient")[["covered", "score"]].mean()
    many = patients[rows.groupby("patient").size() >= MANY]
    values = {
        ("all", COVERAGE): patients["covered"].mean(),
        ("all", SCORE): patients["score"].mean(),
        ("all", LOW_COVERAGE): (many["covered"] < LOW_SHARE).mean(),
    }
    for kind, columns in SUBGROUPS.items():
        means = rows.groupby([*columns, "patient"])["covered"].mean().groupby(columns).mean()
        for level, value in means.items():
            levels = level if isinstance(level, tuple) else (level,)
            values[f"{kind}: {', '.join(levels)}", COVERAGE] = value
    return pd.DataFrame(
        [first | {"case": c, "metric": m, "value": value} for (c, m), value in values.items()]
    )


def _records(
    model: str, parts: pd.DataFrame, n_tasks: int, seconds: float, seed: int
) -> Iterator[Record]:
    """Means over the splits."""
    record = partial(Record, SUITE, n_tasks=n_tasks, seconds=seconds, seed=seed)
    means = parts.groupby(["case", "method", "metric", "k"], sort=False)["value"].mean()
    for (case, method, metric, k), value in means.items():
        yield record(case, f"{model}: {method}", metric, float(value), k=int(k))


def conformal_table(records: Sequence[Record]) -> str:
    """Table of minimum and maximum coverage by kind of subgroup, interval score, low coverage."""
    frame = _frame(records)
    ends, worst, low = _coverage(frame), _score_to_best(frame), _low_coverage(frame)
    kinds = list(dict.fromkeys(ends.index.get_level_values("kind")))
    rows = [
        [
            method,
            *(_range(ends.loc[(method, kind)]) for kind in kinds),
            number(worst[method], 4),
            f"{100 * low[method]:.1f}",
        ]
        for method in dict.fromkeys(frame["method"])
    ]
    heading = ["intervals", *kinds, "score / best", f"% under {100 * LOW_SHARE:g} %"]
    return (
        f"Coverage in % of {100 * LEVEL:g} % intervals: minimum and maximum over k of "
        f"{', '.join(map(str, SHOTS))} and subgroups; the largest ratio of the interval score to "
        f"the best method; patients with {MANY} or more query rows and a coverage under "
        f"{100 * LOW_SHARE:g} %\n\n" + text_table(heading, rows)
    )


def conformal_targets(records: Sequence[Record]) -> Iterator[Target]:
    """Targets of the intervals of our default."""
    frame = _frame(records)
    if OURS not in set(frame["method"]):
        return
    low, high = _NOMINAL
    for kind in _TARGETS:
        ends = _coverage(frame).loc[(OURS, kind)]
        met = bool(low <= ends["min"] and ends["max"] <= high)
        wanted = f"{100 * low:.1f}-{100 * high:.1f}"
        yield Target(f"coverage in %, every k by {kind}", _range(ends), wanted, met)
    if not frame["method"].str.startswith(OURS.partition(":")[0]).all():  # with other models
        worst, n = _score_to_best(frame)[OURS], frame["method"].nunique()
        claim = f"interval score / best of {n} methods"
        met = bool(worst <= _WORST_SCORE)
        yield Target(claim, number(worst, 4), f"at most {_WORST_SCORE}", met)
    claim = f"% of patients with {MANY} or more query rows covered under {100 * LOW_SHARE:g} %"
    figure = f"{100 * _low_coverage(frame)[OURS]:.1f}"
    yield Target(claim, figure, f"{100 * _LOW_BEFORE:.1f} before", None)


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    return pd.DataFrame([asdict(record) for record in records])


def _coverage(frame: pd.DataFrame) -> pd.DataFrame:
    """Minimum and maximum coverage over k and levels, by method and kind of subgroup."""
    coverage = frame[frame["metric"] == COVERAGE]
    kind = coverage["case"].str.partition(":")[0].rename("kind")
    return coverage.groupby(["method", kind], sort=False)["value"].agg(["min", "max"])


def _score_to_best(frame: pd.DataFrame) -> pd.Series:
    """Largest ratio of interval scores over k, by method."""
    scores = frame[frame["metric"] == SCORE].pivot(index="method", columns="k", values="value")
    return (scores / scores.min()).max(axis=1)


def _low_coverage(frame: pd.DataFrame) -> pd.Series:
    """Largest share of low coverage over k, by method."""
    return frame[frame["metric"] == LOW_COVERAGE].groupby("method")["value"].max()


def _range(ends: pd.Series) -> str:
    return f"{100 * ends['min']:.1f}-{100 * ends['max']:.1f}"
