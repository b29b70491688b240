"""Share of a training step that goes into building its batch."""

import time
from collections.abc import Sequence

import torch

from benchmarks.speed.problem import standard_rows
from benchmarks.suite.record import Record, number, text_table
from benchmarks.suite.timing import interleave, timed_record
from ehrmeta.algorithms import MAML, Spec
from ehrmeta.nn import MLP, Normal
from ehrmeta.nn.batch import visible_width
from ehrmeta.training import EpisodeSampler, TrainingPlan, train

N_STEPS = 10


def measure_batch_building(
    seconds: float = 5.0, seed: int = 0, *, n_tasks: int = 256
) -> list[Record]:
    """Milliseconds of `EpisodeSampler.draw` and of a whole step of `train` on nafld-hdl."""
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


def batch_table(records: Sequence[Record]) -> str:
    """The step and the batch's share of it."""
    values = {record.metric: record.value or 0.0 for record in records}
    row = [
        records[0].case,
        number(values["step_ms"]),
        number(values["batch_ms"]),
        f"{100 * values['batch_share']:.1f} %",
    ]
    return text_table(["training", "ms a step", "building its batch", "share"], [row])
