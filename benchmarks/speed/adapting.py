"""Time of adapting through the public interface, and of a training step and its batch."""

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge

from benchmarks.speed.problem import simulate_patients, standard_rows
from benchmarks.suite.record import Record, number, text_table
from benchmarks.suite.timing import interleave, timed_record
from ehrmeta.algorithms import MAML, Algorithm, MetaSGD, Spec
from ehrmeta.data import load_dataset
from ehrmeta.errors import DataWarning
from ehrmeta.estimators import MetaRegressor
from ehrmeta.nn import MLP, Normal
from ehrmeta.nn.batch import visible_width
from ehrmeta.training import EpisodeSampler, TrainingPlan, train

ALGORITHMS: dict[str, Algorithm] = {"MAML": MAML(inner_steps=3), "Meta-SGD": MetaSGD(inner_steps=3)}
RIDGE = "Ridge"
SHOTS = 5
N_STEPS = 10


def adapt_one(seconds: float = 5.0, seed: int = 0) -> list[Record]:
    """Milliseconds of ``model.adapt`` for one patient with 5 rows, and of ``Ridge().fit``.

    Rows have ten numeric columns as an array or a frame, or are the first visits of a patient of
    nafld-hdl with time, which is an additional column for Ridge.
    """
    started = time.perf_counter()
    patients = simulate_patients(np.full(200, 10), seed=seed)
    frame = pd.DataFrame(patients.X).add_prefix("x")
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        hdl = load_dataset("nafld-hdl")
        inputs: dict[str, tuple[Any, ...]] = {
            "NumPy array, 10 features": (patients.X, patients.y, patients.groups, None),
            "pandas frame, 10 features": (frame, patients.y, patients.groups, None),
            "nafld-hdl, pandas with time": (hdl.X, hdl.y, hdl.groups, hdl.time),
        }
        records = []
        for case, (X, y, groups, clock) in inputs.items():
            first = np.flatnonzero(groups == groups[0])[:SHOTS]
            rows = X.iloc[first] if isinstance(X, pd.DataFrame) else X[first]
            at = {} if clock is None else {"time": clock[first]}
            plain = rows if clock is None else rows.assign(time=at["time"])
            calls: dict[str, Callable[[], object]] = {RIDGE: partial(Ridge().fit, plain, y[first])}
            for name, algorithm in ALGORITHMS.items():
                model = _trained(algorithm, seed).fit(X, y, groups=groups, time=clock)
                calls[name] = partial(model.adapt, rows, y[first], **at)
            times = interleave(calls, seconds=seconds / len(inputs), slot=0.02)
            record = partial(
                timed_record, f"adapt one patient: {case}", started, k=SHOTS, n_tasks=1, seed=seed
            )
            for name, values in times.items():
                records.append(record(name, "ms", 1e3 * values))
                records.append(record(name, "ratio", values / times[RIDGE]))
    return records


def adapt_many(
    n_patients: int = 10_000, seconds: float = 5.0, seed: int = 0, *, n_single: int = 100
) -> list[Record]:
    """Patients per second of one ``adapt`` and ``predict`` call for patients of 1 to 10 rows.

    Each patient's next row is predicted. The loop does the same with `n_single` of them one by one.
    """
    started = time.perf_counter()
    random = np.random.default_rng(seed)
    patients = simulate_patients(random.integers(2, 12, n_patients), seed=seed)
    last = np.append(np.diff(patients.groups) > 0, True)
    first = ~last
    case = f"adapt and predict {n_patients:,} patients of 1 to 10 rows"
    records = []
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        for name, algorithm in ALGORITHMS.items():
            model = _trained(algorithm, seed).fit(patients.X, patients.y, groups=patients.groups)
            one_by_one = [
                (first & (patients.groups == i), last & (patients.groups == i))
                for i in range(n_single)
            ]

            def together(model: MetaRegressor = model) -> object:
                adapted = model.adapt(
                    patients.X[first], patients.y[first], groups=patients.groups[first]
                )
                return adapted.predict(patients.X[last], groups=patients.groups[last])

            def loop(model: MetaRegressor = model, masks: Any = one_by_one) -> object:
                return [
                    model.adapt(patients.X[support], patients.y[support]).predict(patients.X[query])
                    for support, query in masks
                ]

            times = interleave({"together": together, "loop": loop}, seconds=seconds)
            rates = {
                "patients_per_second": n_patients / times["together"],
                "patients_per_second_in_a_loop": n_single / times["loop"],
                "ratio": times["loop"] / n_single / (times["together"] / n_patients),
            }
            records += [
                timed_record(case, started, name, metric, values, n_tasks=n_patients, seed=seed)
                for metric, values in rates.items()
            ]
    return records


def measure_batch_building(
    seconds: float = 5.0, seed: int = 0, *, n_tasks: int = 256
) -> list[Record]:
    """Milliseconds of `EpisodeSampler.draw` and of a training step on nafld-hdl."""
    started = time.perf_counter()
    rows, time_unit = standard_rows()
    plan = TrainingPlan(
        max_steps=N_STEPS, batch_size=n_tasks, time_unit=time_unit, progress_bar=False
    )
    algorithm = MAML(inner_steps=3)
    network = MLP((64, 64)).network(visible_width(rows), 1)
    spec = Spec(network, Normal(), visible_width(rows))
    generator = torch.Generator().manual_seed(seed)
    params = algorithm.init(spec, generator)
    sampler = EpisodeSampler(rows, plan.shots, plan.max_queries, time_unit)
    tasks = torch.randperm(rows.n_tasks, generator=generator)[:n_tasks]
    times = interleave(
        {
            "draw": lambda: sampler.draw(tasks, generator),
            "step": lambda: train(algorithm, spec, params, rows, None, plan, seed=seed),
        },
        seconds=seconds,
    )
    step = times["step"] / N_STEPS
    case = f"training step of {n_tasks} tasks, nafld-hdl, MAML"
    values = {
        "batch_ms": 1e3 * times["draw"],
        "step_ms": 1e3 * step,
        "batch_share": times["draw"] / step,
    }
    about = {"k": plan.shots[1], "n_tasks": n_tasks, "seed": seed}
    return [timed_record(case, started, "ehrmeta", m, v, **about) for m, v in values.items()]


def latency_table(records: Sequence[Record]) -> str:
    """Milliseconds by input and method, with the ratio to Ridge."""
    by_key = {(r.case, r.method, r.metric): r.value for r in records}
    rows = [
        [case, method, number(value), f"{number(by_key[case, method, 'ratio'])} x"]
        for (case, method, metric), value in by_key.items()
        if metric == "ms"
    ]
    return text_table([f"public interface, {SHOTS} rows", "method", "ms", "time / Ridge"], rows)


def throughput_table(records: Sequence[Record]) -> str:
    """Patients per second in one call and one by one."""
    by_key = {(r.method, r.metric): r.value for r in records}
    rows = []
    for method, metric in by_key:
        if metric == "patients_per_second":
            values = [by_key[method, f"{metric}{how}"] for how in ("", "_in_a_loop")]
            rows.append([method, *map(number, values), f"{number(by_key[method, 'ratio'])} x"])
    return text_table([records[0].case, "patients/s", "one by one", "faster"], rows)


def _trained(algorithm: Algorithm, seed: int) -> MetaRegressor:
    """A model of typical size; its speed does not depend on the number of training steps."""
    return MetaRegressor(
        algorithm, backbone=MLP((64, 64)), max_steps=2, verbose=False, random_state=seed
    )


def batch_table(records: Sequence[Record]) -> str:
    """Milliseconds of the step and of its batch, and their ratio."""
    values = {record.metric: record.value or 0.0 for record in records}
    share = f"{100 * values['batch_share']:.1f} %"
    row = [records[0].case, number(values["step_ms"]), number(values["batch_ms"]), share]
    return text_table(["training", "ms a step", "building its batch", "share"], [row])
