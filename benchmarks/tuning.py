"""Suite ``tuning``: benefit of tuning MAML, and time saved by stopping trials early."""

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
PRUNED, IN_FULL = "stopping early", "all trials on all folds"
DEFAULTS, TUNED = "MAML, defaults", "MAML, tuned"


@dataclass(frozen=True)
class Plan:
    """Size of a run: of the studies, of each trial, and of the final trainings."""

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
    """Measure the benefit of tuning MAML on real patients, and the time saved by stopping early.

    Studies of 30 trials on training patients, with and without stopping trials early. The best
    setting and the defaults are then trained on all training patients, and compared on test
    patients after their first three values. --quick runs three short trials.

    \b
    Example:
        python -m benchmarks tuning --cache runs
    """
    plan, names = QUICK if run.quick else FULL, (PRUNED, IN_FULL)
    studies = [Cell(f"tuning {name}", measure_study, (name, plan, run.seed)) for name in names]
    records = run.records(studies)
    best, seeds = json.loads(_best(records)), range(plan.final_seeds)
    finals = [Cell(f"tuning final {seed}", measure_final, (best, plan, seed)) for seed in seeds]
    records += run.records(finals)
    run.show(tuning_table(records))
    return records


def _best(records: Sequence[Record]) -> str:
    """Best setting of the study with early stopping, as JSON."""
    return next(r.note for r in records if r.method == PRUNED and r.note)


def tuning_table(records: Sequence[Record]) -> str:
    """Tables of the studies, and of the errors on test patients."""

    def of(method: str, metric: str) -> float | None:
        return next(r.value for r in records if (r.method, r.metric) == (method, metric))

    names = {"best_error": "best rmse_macro", "cpu_seconds": "CPU s"}
    names |= {"fits": "trainings", "given_up": "stopped early"}
    studies = text_table(
        ["study", *names.values()],
        [[method, *(number(of(method, m), 4) for m in names)] for method in (PRUNED, IN_FULL)],
    )
    saved = 1 - (of(PRUNED, "cpu_seconds") or 0) / (of(IN_FULL, "cpu_seconds") or 1)
    difference = (of(PRUNED, "best_error") or 0) / (of(IN_FULL, "best_error") or 1) - 1
    finals = [r for r in records if r.k == SHOTS]
    compared = text_table(
        ["test patients", "seed", f"rmse_macro, k = {SHOTS}", "tuned - defaults"],
        [[r.method, str(r.seed), number(r.value, 4), _limits(r)] for r in finals],
    )
    return (
        f"{studies}\nstopping early saves {100 * saved:.0f} % of the CPU time and changes the best "
        f"error by {100 * difference:+.2f} %\n\n{compared}\n95 % interval of the difference, "
        f"paired over {finals[0].n_tasks:,} patients\ntuned: {_best(records)}"
    )


def _limits(record: Record) -> str:
    return "" if record.low is None else f"{record.low:+.3f} to {record.high:+.3f}"


def measure_study(name: str, plan: Plan, seed: int) -> list[Record]:
    """Best error of a study, and its time, trainings and early stops."""
    import_module("ehrmeta.tuning.study")  # imports Optuna before timing
    train, _ = _split()
    chosen = np.random.default_rng(seed).permutation(train.n_tasks) < plan.trial_tasks
    seen = train.take(chosen[train.tasks.codes])
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
    values = {"best_error": tuned.value, "cpu_seconds": cpu}
    values |= {"fits": float(fits), "given_up": float(given_up)}
    about: dict[str, Any] = {"n_tasks": seen.n_tasks, "seconds": seconds, "seed": seed}
    record = partial(Record, "tuning", DATA_SET, name, **about)
    best = json.dumps(tuned.params)
    return [
        record(metric=name, value=value, note=best if name == "best_error" else "")
        for name, value in values.items()
    ]


def measure_final(best: dict[str, Any], plan: Plan, seed: int) -> list[Record]:
    """Errors of the best setting and of the defaults on test patients."""
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
    """Training and test patients."""
    return load(DATA_SET).split(test_fraction=0.2, random_state=0)
