"""The demo: training, adaptation, comparison with baselines and saving, on one real data set."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrmeta.cli.evaluate import comparators, mark_held_out
from ehrmeta.cli.messages import stage
from ehrmeta.data import Table, load_dataset
from ehrmeta.errors import AtypicalWarning
from ehrmeta.estimators import MetaRegressor
from ehrmeta.evaluation import interval_coverage, k_shot_curve
from ehrmeta.report import TrajectoryDisplay, k_shot_table

DATA_SET = "nafld-hdl"
TEST_SHARE = 0.2
SHOTS = (1, 3, 5)
OURS = "ehrmeta"
NOT_ADAPTED = "the same, not adapted"
STORY_SHOTS, STORY_VISITS = 3, 10


def demo_model(*, quick: bool = False) -> MetaRegressor:
    """The model of the demo: `DeepMixedEffects` with default settings."""
    model = MetaRegressor(random_state=0)
    return model.set_params(max_steps=60) if quick else model


class NotAdapted:
    """A fitted model that ignores the support, for comparison."""

    def __init__(self, model: MetaRegressor) -> None:
        self.model = model

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> NotAdapted:
        """Return the model unchanged."""
        return self

    def predict(self, X: Any, *, groups: Any = None, time: Any = None) -> Any:
        """The population prediction."""
        return self.model.predict(X, time=time)


def run_demo(folder: str | Path, echo: Callable[[str], None], *, quick: bool = False) -> None:
    """Meta-train, adapt to new patients, compare, draw one patient and save the model.

    The folder gets ``patient.png`` and ``hdl.ehrmeta``; `echo` prints a line. `quick` uses fewer
    patients and steps, to check that everything works.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = load_dataset(DATA_SET)
    if quick:
        table = table.take(table.tasks.codes < 1000)
    train, test = table.split(test_fraction=TEST_SHARE, random_state=0)
    unit = table.schema.outcome.unit if table.schema.outcome else ""
    echo(f"{DATA_SET}: {len(table):,} values of {table.n_tasks:,} patients")
    echo(f"meta-training on {train.n_tasks:,} patients; {test.n_tasks:,} others are never seen\n")

    model = demo_model(quick=quick)
    with stage("meta-training"):
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
    last = model.history_[-1]
    steps, rate = f"{last['step']:,.0f} steps", f"{last['tasks_per_second']:,.0f} tasks/s"
    echo(f"meta-training: {steps} in {last['seconds']:.0f} s, {rate}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtypicalWarning)  # counted below
        echo(_adapting_line(model, test))
        baselines = comparators()
        with stage("fitting baselines"):
            for baseline in baselines.values():
                baseline.fit(train.X, train.y, groups=train.groups, time=train.time)
        with stage("scoring"):
            curve = k_shot_curve(
                baselines | {NOT_ADAPTED: NotAdapted(model), OURS: model},
                test.X,
                test.y,
                groups=test.groups,
                time=test.time,
                shots=SHOTS,
                reference=OURS,
                confidence_level=0.95,
            )
        echo(f"\nError after k values of each new patient, on all later values ({DATA_SET}):\n")
        echo(k_shot_table(curve, reference=OURS, unit=unit))
        echo(
            "ranges: 95 % interval of (this row - last row), paired over patients; * excludes 0.\n"
            "rmse_macro: square root of the mean over patients of the patient's mean squared error."
        )
        support, query = test.support_query(shots=STORY_SHOTS)
        adapted = model.adapt(support.X, support.y, groups=support.groups, time=support.time)
        predicted = adapted.predict(query.X, groups=query.groups, time=query.time)
        band = adapted.predict_interval(query.X, groups=query.groups, time=query.time)
    covered = interval_coverage(query.y, band[:, 0], band[:, 1], query.groups)
    odd = int(np.sum(adapted.atypical_ < 0.001))
    echo(f"90 % intervals at k = {STORY_SHOTS} contain {100 * covered:.1f} % of the later values.")
    echo(f"{odd} of {adapted.n_tasks:,} patients are unlike the training patients (p < 0.001).\n")

    patient = median_patient(test, query, predicted)
    picture, saved = folder / "patient.png", folder / "hdl.ehrmeta"
    display = TrajectoryDisplay.from_estimator(
        model, patient.X, patient.y, time=patient.time, shots=STORY_SHOTS
    )
    display.ax_.set_title("The patient of median error, not used in training", loc="left")
    display.figure_.savefig(picture)
    model.save(saved)
    mark_held_out(str(saved), TEST_SHARE, table.n_tasks)
    echo(
        f"{picture}: of the test patients with {STORY_VISITS} values or more, the one whose error "
        f"at k = {STORY_SHOTS} is the median"
    )
    echo(f"{saved}: the model, without any patient ({saved.stat().st_size / 1e3:,.0f} kB)")
    echo(f"peak memory: {_peak_memory()}")


def _adapting_line(model: MetaRegressor, test: Table) -> str:
    """Time of adapting one patient at a time, and all at once."""
    support, _ = test.support_query(shots=STORY_SHOTS)
    tasks, seconds = support.tasks, []
    for task in range(min(100, tasks.n_tasks)):
        one = support.take(tasks.codes == task)
        started = time.perf_counter()
        model.adapt(one.X, one.y, time=one.time)
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    model.adapt(support.X, support.y, groups=support.groups, time=support.time)
    per_second = support.n_tasks / (time.perf_counter() - started)
    return (
        f"adapting: one patient in {1e3 * np.median(seconds):.1f} ms (median), "
        f"all in one call {per_second:,.0f} patients/s"
    )


def median_patient(test: Table, query: Table, predicted: Any) -> Table:
    """All rows of the test patient with the median error, among those with enough visits."""
    error = pd.Series((predicted - query.y) ** 2).groupby(query.groups).mean()
    enough = test.tasks.labels[test.tasks.sizes >= STORY_VISITS]
    ranked = error[error.index.isin(enough)].sort_values(kind="stable")
    return test.take(test.groups == ranked.index[(len(ranked) - 1) // 2])


def _peak_memory() -> str:
    """Peak resident memory of this process."""
    if sys.platform == "win32":
        return "not measured on Windows"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
