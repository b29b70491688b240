"""What tuning gains, and what giving up early saves: a study of MAML on real patients.

A study sees training patients only. Its best setting and MAML's defaults are then trained alike, on
all of these, and compared on patients that neither has seen, after their first three values.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.patients.data import load
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.command import CACHE, SEED, WORKERS, suite
from benchmarks.suite.record import Record, number, text_table
from benchmarks.suite.task_scores import metric, score_split
from ehrmeta.algorithms import MAML
from ehrmeta.data import Table, first_k
from ehrmeta.estimators import MetaRegressor
from ehrmeta.evaluation import paired_bootstrap
from ehrmeta.nn.mlp import MLP
from ehrmeta.ranges import Range
from ehrmeta.tuning import tune

DATA_SET, SHOTS = "nafld-hdl", 3
SPACE: dict[str, Any] = {
    "algorithm__inner_lr": None,
    "algorithm__inner_steps": None,
    "backbone__hidden": [(16, 16), (32, 32), (64, 64), (128, 128)],
    "learning_rate": Range(3e-4, 3e-2, log=True),
}
PRUNED, IN_FULL = "giving up early", "every trial in full"
DEFAULTS, TUNED = "MAML, defaults", "MAML, tuned"


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Parameters
    ----------
    n_trials, folds : int
        Of a study.
    trial_tasks, trial_steps, trial_batch : int
        Training patients of a study, and training steps and batch of each of its fits.
    final_steps : int
        Of the two settings compared in the end.
    final_seeds : int
        Trainings of each.
    """

    n_trials: int = 30
    folds: int = 5
    trial_tasks: int = 800
    trial_steps: int = 300
    trial_batch: int = 32
    final_steps: int = 1000
    final_seeds: int = 2


FULL = Plan()
QUICK = Plan(3, 2, 120, 10, 32, 20, 1)


@suite(CACHE, SEED, WORKERS)
def tuning(run: Run) -> list[Record]:
    """Tune MAML on real patients: what it gains, and what giving up early saves.

    A study of 30 trials on training patients, with and without giving up; then its best setting and
    the defaults are trained alike and compared on other patients. --quick runs three short trials.

    \b
    Example:
        python -m benchmarks tuning --cache runs
    """
    plan = QUICK if run.quick else FULL
    records = run.records(
        [
            Cell(f"tuning {name}", measure_study, (name, plan, run.seed))
            for name in (PRUNED, IN_FULL)
        ]
    )
    best = json.loads(_best(records))
    records += run.records(
        [
            Cell(f"tuning final {seed}", measure_final, (best, plan, seed))
            for seed in range(plan.final_seeds)
        ]
    )
    run.show(tuning_table(records))
    return records


def _best(records: Sequence[Record]) -> str:
    """The best setting of the study that gives up early, as JSON."""
    return next(r.note for r in records if r.method == PRUNED and r.note)


def tuning_table(records: Sequence[Record]) -> str:
    """The studies, then the errors on patients that no study has seen."""

    def of(method: str, metric: str) -> float | None:
        return next(r.value for r in records if (r.method, r.metric) == (method, metric))

    names = {
        "best_error": "best rmse_macro",
        "cpu_seconds": "CPU s",
        "fits": "trainings",
        "given_up": "given up",
    }
    studies = text_table(
        ["study", *names.values()],
        [[method, *(number(of(method, m), 4) for m in names)] for method in (PRUNED, IN_FULL)],
    )
    saved = 1 - (of(PRUNED, "cpu_seconds") or 0) / (of(IN_FULL, "cpu_seconds") or 1)
    difference = (of(PRUNED, "best_error") or 0) / (of(IN_FULL, "best_error") or 1) - 1
    finals = [r for r in records if r.k == SHOTS]
    compared = text_table(
        ["held-out patients", "seed", f"rmse_macro, k = {SHOTS}", "tuned - defaults"],
        [[r.method, str(r.seed), number(r.value, 4), _limits(r)] for r in finals],
    )
    return (
        f"{studies}\ngiving up early saves {100 * saved:.0f} % of the CPU time; its best error is "
        f"{100 * difference:+.2f} % from the other's\n\n{compared}\n95 % interval of the "
        f"difference, paired over {finals[0].n_tasks:,} patients\ntuned: {_best(records)}"
    )


def _limits(record: Record) -> str:
    return "" if record.low is None else f"{record.low:+.3f} to {record.high:+.3f}"


def measure_study(name: str, plan: Plan, seed: int) -> list[Record]:
    """One study: its best error, and what it took."""
    import_module("ehrmeta.tuning.study")  # loads Optuna before the clock runs
    train, _ = _split()
    few = np.random.default_rng(seed).permutation(train.n_tasks) < plan.trial_tasks
    seen = train.take(few[train.tasks.codes])
    model = _model(plan.trial_steps, 0).set_params(batch_size=plan.trial_batch)
    started, cpu = time.perf_counter(), time.process_time()
    tuned = tune(
        model,
        seen.X,
        seen.y,
        groups=seen.groups,
        time=seen.time,
        n_trials=plan.n_trials,
        space=SPACE,
        cv=plan.folds,
        pruner=None if name == PRUNED else False,
        refit=False,
        random_state=seed,
    )
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    trials = tuned.study.trials
    fits = sum(trial.user_attrs["folds"] for trial in trials)
    given_up = sum("reason" in trial.user_attrs for trial in trials)
    values = {
        "best_error": tuned.value,
        "cpu_seconds": cpu,
        "fits": float(fits),
        "given_up": float(given_up),
    }
    record = partial(
        Record, "tuning", DATA_SET, name, n_tasks=seen.n_tasks, seconds=seconds, seed=seed
    )
    best = json.dumps(tuned.params)
    return [
        record(metric=name, value=value, note=best if name == "best_error" else "")
        for name, value in values.items()
    ]


def measure_final(best: dict[str, Any], plan: Plan, seed: int) -> list[Record]:
    """Errors of the best setting and of the defaults on patients that no study has seen."""
    train, test = _split()
    support, query = first_k(test.tasks, SHOTS, time=test.time)
    losses, seconds = {}, {}
    params = {name: tuple(v) if isinstance(v, list) else v for name, v in best.items()}
    for name, setting in ((DEFAULTS, {}), (TUNED, params)):
        model = _model(plan.final_steps, seed).set_params(**setting)
        started = time.perf_counter()
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
        seconds[name] = time.perf_counter() - started
        losses[name] = metric(score_split(model, test, support, query), "rmse_macro")
    gap = paired_bootstrap(losses[TUNED].loss, losses[DEFAULTS].loss, confidence_level=0.95)
    record = partial(Record, "tuning", DATA_SET, metric="rmse_macro", k=SHOTS, seed=seed)
    limits = {DEFAULTS: (None, None), TUNED: (gap.low, gap.high)}
    return [
        record(name, value=loss.value(), low=low, high=high, n_tasks=len(loss.loss), seconds=s)
        for (name, loss), (low, high), s in zip(
            losses.items(), limits.values(), seconds.values(), strict=True
        )
    ]


def _model(max_steps: int, seed: int) -> MetaRegressor:
    settings: dict[str, Any] = {"device": "cpu", "verbose": False, "random_state": seed}
    return MetaRegressor(MAML(), MLP(), score_shots=(SHOTS,), max_steps=max_steps, **settings)


def _split() -> tuple[Table, Table]:
    """Patients of the studies and the trainings, and those that only the end sees."""
    return load(DATA_SET).split(test_fraction=0.2, random_state=0)
