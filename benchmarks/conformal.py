"""Whether 90 % intervals hold 90 %: for women, men, the young and the old, after every k.

HDL cholesterol (nafld-hdl): a model is fitted once, on half of the patients. The other half is
split at random, 20 times, into patients to calibrate on and patients to test. Coverage is the share
of a patient's later values that their intervals hold, averaged over patients, then over splits.
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
METHODS = OWN, BY_K, BY_KIND = "its own", "by k", "by k, sex and age"
KINDS = {"sex": ["male"], "age third": ["third"], "sex and age": ["male", "third"]}
MANY, LOW_SHARE = 8, 0.7  # queries of a patient, and share held, below which it was served badly
COVERAGE, SCORE, SERVED_BADLY = "coverage", "interval_score", "badly_served"

MODELS: dict[str, TaskRegressor] = {
    "deep mixed effects": MetaRegressor(verbose=False, device="cpu"),
    "mixed + OU": MixedProcessEffects(),
    "mixed": MixedEffects(),
}


@dataclass(frozen=True)
class Plan:
    """How much is run: random splits, and patients of the data set at most."""

    n_splits: int = 20
    max_tasks: int | None = None
    max_steps: int | None = None


FULL, QUICK = Plan(), Plan(n_splits=2, max_tasks=1200, max_steps=50)
OURS = f"deep mixed effects: {BY_KIND}"
_COVERED, _WORST_SCORE, _SERVED_BADLY_BEFORE = (0.89, 0.91), 1.02, 0.11
_KINDS = ("sex", "age third")


@suite(CACHE, SEED, WORKERS, only("--model", "models", MODELS, "model"))
def conformal(run: Run, models: Sequence[str]) -> list[Record]:
    """Count how often calibrated intervals hold, by sex, age and k.

    Each model is fitted once; patients it has not seen are split 20 times into those to calibrate
    on and those to test. Targets are printed beside the default's figures. --quick takes two splits
    of 600 patients, so its shares are rough.

    \b
    Example:
        python -m benchmarks conformal --model 'mixed + OU'
    """
    records = run_conformal(run, QUICK if run.quick else FULL, models or tuple(MODELS))
    run.show(conformal_table(records))
    targets = target_table(conformal_targets(records), OURS)
    run.show(targets)
    if run.quick and targets:
        run.show("So few patients cannot judge them: run without --quick.")
    return records


def run_conformal(
    run: Run, plan: Plan = FULL, models: Sequence[str] = tuple(MODELS)
) -> list[Record]:
    """Coverage, interval score and badly served patients of every model and calibration."""
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
    # The model is the same in every split, and so is what it predicts.
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
    """Every later row after every k: its prediction, its error, and the model's own interval."""
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
    """Every row of the test patients: whether it was held, and its interval score."""
    needed = tasks_needed(LEVEL)
    for k, at_k in rows.groupby("shots"):
        for method in METHODS:
            reach = np.empty((len(at_k), 2))
            for level in at_k["level"].unique():
                cell = finest(limits, (k, level if method == BY_KIND else None), needed)
                reach[at_k["level"] == level] = limits[cell].at(LEVEL)
            ends = at_k[["loc"]].to_numpy() + at_k[["scale"]].to_numpy() * reach
            uncalibrated = at_k[["low", "high"]].to_numpy()
            low, high = (uncalibrated if method == OWN else outcome.inverse(ends)).T
            columns = {
                "method": method,
                "k": k,
                "patient": at_k["task"],
                "held": (low <= at_k["y"]) & (at_k["y"] <= high),
                "score": interval_score(at_k["y"], low, high, confidence_level=LEVEL),
            }
            yield at_k[["male", "third"]].assign(**columns)


def _summary(rows: pd.DataFrame, split: int) -> pd.DataFrame:
    """Means over patients, of one method at one k."""
    first = {"method": rows["method"].iloc[0], "k": rows["k"].iloc[0], "split": split}
    patients = rows.groupby("patient").agg(
        held=("held", "mean"), score=("score", "mean"), n=("held", "size")
    )
    many = patients[patients["n"] >= MANY]
    values = [
        first | {"case": "all", "metric": COVERAGE, "value": patients["held"].mean()},
        first | {"case": "all", "metric": SCORE, "value": patients["score"].mean()},
        first | {"case": "all", "metric": SERVED_BADLY, "value": (many["held"] < LOW_SHARE).mean()},
    ]
    for kind, columns in KINDS.items():
        held = rows.groupby([*columns, "patient"])["held"].mean().groupby(columns).mean()
        for level, value in held.items():
            at = level if isinstance(level, tuple) else (level,)
            words = ", ".join(at)
            values.append(first | {"case": f"{kind}: {words}", "metric": COVERAGE, "value": value})
    return pd.DataFrame(values)


def _records(
    model: str, parts: pd.DataFrame, n_tasks: int, seconds: float, seed: int
) -> Iterator[Record]:
    """Means over the splits."""
    record = partial(Record, SUITE, n_tasks=n_tasks, seconds=seconds, seed=seed)
    means = parts.groupby(["case", "method", "metric", "k"], sort=False)["value"].mean()
    for (case, method, metric, k), value in means.items():
        yield record(case, f"{model}: {method}", metric, float(value), k=int(k))


def conformal_table(records: Sequence[Record]) -> str:
    """Least and most coverage over the cells of each kind; interval score beside the best."""
    frame = _frame(records)
    ends, worst, served = _coverage(frame), _score_to_best(frame), _served_badly(frame)
    kinds = list(dict.fromkeys(ends.index.get_level_values("kind")))
    rows = [
        [
            method,
            *(_range(ends.loc[(method, kind)]) for kind in kinds),
            number(worst[method], 4),
            f"{100 * served[method]:.1f}",
        ]
        for method in dict.fromkeys(frame["method"])
    ]
    heading = ["intervals", *kinds, "score / best", f"% under {100 * LOW_SHARE:g} %"]
    return (
        f"Coverage in % of {100 * LEVEL:g} % intervals: least and most over k of "
        f"{', '.join(map(str, SHOTS))} and the cells of a kind; the largest ratio of the interval "
        f"score to the best method's; patients with {MANY} or more queries held under "
        f"{100 * LOW_SHARE:g} %\n\n" + text_table(heading, rows)
    )


def conformal_targets(records: Sequence[Record]) -> Iterator[Target]:
    """The claims on the default's intervals, by k and kind; none without it."""
    frame = _frame(records)
    if OURS not in set(frame["method"]):
        return
    low, high = _COVERED
    for kind in _KINDS:
        ends = _coverage(frame).loc[(OURS, kind)]
        met = bool(low <= ends["min"] and ends["max"] <= high)
        wanted = f"{100 * low:.1f}-{100 * high:.1f}"
        yield Target(f"coverage in %, every k by {kind}", _range(ends), wanted, met)
    if not frame["method"].str.startswith(OURS.partition(":")[0]).all():  # beside other models
        worst, n = _score_to_best(frame)[OURS], frame["method"].nunique()
        claim = f"interval score / that of the best of {n} methods"
        met = bool(worst <= _WORST_SCORE)
        yield Target(claim, number(worst, 4), f"at most {_WORST_SCORE}", met)
    claim = f"% of patients with {MANY} or more queries held under {100 * LOW_SHARE:g} %"
    figure = f"{100 * _served_badly(frame)[OURS]:.1f}"
    yield Target(claim, figure, f"{100 * _SERVED_BADLY_BEFORE:.1f} before", None)


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    return pd.DataFrame([asdict(record) for record in records])


def _coverage(frame: pd.DataFrame) -> pd.DataFrame:
    """Least and most over k and cells, by method and kind."""
    coverage = frame[frame["metric"] == COVERAGE]
    kind = coverage["case"].str.partition(":")[0].rename("kind")
    return coverage.groupby(["method", kind], sort=False)["value"].agg(["min", "max"])


def _score_to_best(frame: pd.DataFrame) -> pd.Series:
    """Largest ratio over k, by method."""
    scores = frame[frame["metric"] == SCORE].pivot(index="method", columns="k", values="value")
    return (scores / scores.min()).max(axis=1)


def _served_badly(frame: pd.DataFrame) -> pd.Series:
    """Most over k, by method."""
    return frame[frame["metric"] == SERVED_BADLY].groupby("method")["value"].max()


def _range(ends: pd.Series) -> str:
    return f"{100 * ends['min']:.1f}-{100 * ends['max']:.1f}"
