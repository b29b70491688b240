"""Whether 90 % intervals hold 90 %: for women, men, the young and the old, after every k.

HDL cholesterol (nafld-hdl): a model is fitted once, on half of the patients. The other half is
split at random, 20 times, into patients to calibrate on and patients to test. Coverage is the share
of a patient's later values that their intervals hold, averaged over patients, then over splits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone

from benchmarks.patients.data import load
from benchmarks.suite.cache import Cache
from benchmarks.suite.cells import Cell, run_cells
from benchmarks.suite.record import Record
from ehrmeta.baselines import MixedEffects, MixedProcessEffects
from ehrmeta.estimators import ConformalRegressor, MetaRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.conformal_limits import finest, tasks_needed
from ehrmeta.estimators.predictive import Prediction
from ehrmeta.evaluation import interval_score

__all__ = [
    "BY_K",
    "BY_KIND",
    "COVERAGE",
    "FULL",
    "LEVEL",
    "LOW_SHARE",
    "MANY",
    "MODELS",
    "OWN",
    "QUICK",
    "SCORE",
    "SERVED_BADLY",
    "SHOTS",
    "Plan",
    "run_conformal",
]

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


def run_conformal(
    say: Callable[[str], object],
    *,
    plan: Plan = FULL,
    cache: Cache | None = None,
    models: Sequence[str] = tuple(MODELS),
    workers: int = 1,
    seed: int = 0,
) -> list[Record]:
    """Coverage, interval score and badly served patients of every model and calibration."""
    cells = [
        Cell(
            {
                "cell": f"conformal {name}",
                "model": repr(MODELS[name]),
                "seed": seed,
                **asdict(plan),
            },
            partial(_measure, name, plan, seed),
        )
        for name in models
    ]
    return run_cells(cells, say, cache=cache, workers=workers)


class _Judged(ConformalRegressor):
    """Keeps the prediction and the model's own interval of every row beside its error."""

    def _columns(self, predicted: Prediction, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        kept = super()._columns(predicted, y)
        tail = 0.5 * (1.0 - LEVEL)
        kept |= {"low": predicted.quantile(tail), "high": predicted.quantile(1.0 - tail)}
        found: Any = predicted
        return kept | {"y": y, "loc": found.loc, "scale": found.scale}


def _measure(name: str, plan: Plan, seed: int) -> list[Record]:
    started = time.perf_counter()
    table = load(DATA_SET)
    if plan.max_tasks is not None:
        table = table.split(plan.max_tasks / table.n_tasks, random_state=seed)[1]
    train, pool = table.split(0.5, random_state=seed)
    model: Any = clone(MODELS[name])
    if isinstance(model, MetaRegressor):
        model.set_params(random_state=seed)
        model.set_params(**({} if plan.max_steps is None else {"max_steps": plan.max_steps}))
    model.fit(train.X, train.y, groups=train.groups, time=train.time)
    cuts = tuple(np.quantile(train.X["age"], [1 / 3, 2 / 3]).round())
    conformal = _Judged(model, shots=SHOTS, by={"male": (), "age": cuts})
    # The model is the same in every split, and so is what it predicts.
    rows = conformal._judged(pool.X, pool.y, pool.groups, pool.time, None)
    rows[["male", "third"]] = rows["level"].str.split(", ", expand=True).to_numpy()
    parts = []
    for split in range(plan.n_splits):
        held_out, _ = pool.split(0.5, random_state=split)
        calibrates = np.isin(pool.tasks.labels, held_out.groups)[rows["task"]]
        conformal._learn(rows[calibrates])
        parts += [_summary(found, split) for found in _tested(conformal, rows[~calibrates])]
    seconds = time.perf_counter() - started
    return list(_records(name, pd.concat(parts), pool.n_tasks, seconds, seed))


def _tested(conformal: ConformalRegressor, rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Every row of the test patients: whether it was held, and its interval score."""
    outcome = conformal.model.table_.outcome
    needed = tasks_needed(LEVEL)
    for k, at_k in rows.groupby("shots"):
        for method in METHODS:
            limits = np.empty((len(at_k), 2))
            for level in at_k["level"].unique():
                cell = finest(conformal.limits_, (k, level if method == BY_KIND else None), needed)
                limits[at_k["level"] == level] = conformal.limits_[cell].at(LEVEL)
            ends = at_k[["loc"]].to_numpy() + at_k[["scale"]].to_numpy() * limits
            low, high = (
                outcome.inverse(ends).T if method != OWN else at_k[["low", "high"]].to_numpy().T
            )
            yield pd.DataFrame(
                {
                    "method": method,
                    "k": k,
                    "male": at_k["male"],
                    "third": at_k["third"],
                    "patient": at_k["task"],
                    "held": (low <= at_k["y"]) & (at_k["y"] <= high),
                    "score": interval_score(at_k["y"], low, high, confidence_level=LEVEL),
                }
            )


def _summary(rows: pd.DataFrame, split: int) -> pd.DataFrame:
    """Means over patients, of one method at one k."""
    first = {"method": rows["method"].iloc[0], "k": rows["k"].iloc[0], "split": split}
    patients = rows.groupby("patient").agg(
        held=("held", "mean"), score=("score", "mean"), n=("held", "size")
    )
    many = patients[patients["n"] >= MANY]
    found = [
        first | {"case": "all", "metric": COVERAGE, "value": patients["held"].mean()},
        first | {"case": "all", "metric": SCORE, "value": patients["score"].mean()},
        first | {"case": "all", "metric": SERVED_BADLY, "value": (many["held"] < LOW_SHARE).mean()},
    ]
    for kind, columns in KINDS.items():
        held = rows.groupby([*columns, "patient"])["held"].mean().groupby(columns).mean()
        for level, value in held.items():
            at = level if isinstance(level, tuple) else (level,)
            words = ", ".join(at)
            found.append(first | {"case": f"{kind}: {words}", "metric": COVERAGE, "value": value})
    return pd.DataFrame(found)


def _records(
    model: str, parts: pd.DataFrame, n_tasks: int, seconds: float, seed: int
) -> Iterator[Record]:
    """Means over the splits."""
    means = parts.groupby(["case", "method", "metric", "k"], sort=False)["value"].mean()
    for (case, method, metric, k), value in means.items():
        yield Record(
            SUITE, case, f"{model}: {method}", metric, float(value), k=int(k), n_tasks=n_tasks,
            seconds=seconds, seed=seed,
        )  # fmt: skip
