"""The one optimiser loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ehrmeta.algorithms._base import Algorithm, Spec
from ehrmeta.errors import DivergenceError
from ehrmeta.nn.task_rows import TaskRows
from ehrmeta.training.episodes import EpisodeSampler
from ehrmeta.training.gradient import EpisodeLoss
from ehrmeta.training.held_out import HeldOut, gained

__all__ = ["Callback", "TrainingPlan", "train"]

Callback = Callable[[dict[str, float]], bool | None]
History = list[dict[str, float]]


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how hard to train; the estimators document each field."""

    shots: tuple[int, int] = (0, 10)
    max_queries: int = 10
    max_steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    max_norm: float = 1.0
    warmup_fraction: float = 0.05
    check_every: int = 50
    patience: int = 10
    chunk_size: int | None = None
    precision: str = "float32"
    compile: bool = False
    time_unit: float = 1.0
    progress_bar: bool = field(default_factory=sys.stderr.isatty)


def train(
    algorithm: Algorithm,
    spec: Spec,
    params: dict[str, Tensor],
    tasks: TaskRows,
    held_out: TaskRows | None,
    plan: TrainingPlan,
    *,
    seed: int,
    callbacks: Sequence[Callback] = (),
) -> tuple[dict[str, Tensor], History]:
    """Meta-train: AdamW over batches of episodes, best state on held-out tasks restored.

    Parameters
    ----------
    held_out : TaskRows or None
        Tasks for early stopping. With None the last state is kept, or the start, for an
        algorithm that leaves its start only for a gain on held-out tasks.
    callbacks : sequence of callable
        Called with every record of the history; one that returns True ends the training.

    Returns
    -------
    params, history
        Best parameters, and one record ``{step, loss, held_out_loss, learning_rate, seconds,
        tasks_per_second}`` per check.

    Raises
    ------
    DivergenceError
        A task's loss is not finite; names the task by ordinal and the step.
    """
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    optimiser = torch.optim.AdamW(
        params.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warmup_cosine(plan))
    sampler = EpisodeSampler(tasks, plan.shots, plan.max_queries, plan.time_unit)
    loss = EpisodeLoss(
        algorithm,
        spec,
        chunk_size=plan.chunk_size,
        precision=plan.precision,
        compiled=plan.compile,
    )
    judge = None
    if held_out is not None:
        judged = EpisodeSampler(held_out, plan.shots, 2 * plan.max_queries, plan.time_unit)
        judge = HeldOut(judged, loss, seed + 1)

    start = best = _snapshot(params)
    best_loss, best_step = math.inf, 0
    history: History = []
    if judge is None and algorithm.keeps_start:
        return start, history
    running, seen, started = 0.0, 0, time.perf_counter()
    batches = _batches(tasks.n_tasks, plan, seed)
    with tqdm(total=plan.max_steps, unit="step", disable=not plan.progress_bar) as bar:
        for step in range(1, plan.max_steps + 1):
            batch, generator = next(batches)
            support, query = sampler.draw(batch.to(tasks.y.device), generator)
            losses, gradient = loss.gradient(params, support, query, step / plan.max_steps)
            _guard(losses, batch, step)
            for name, p in params.items():
                p.grad = gradient.get(name)
            torch.nn.utils.clip_grad_norm_(params.values(), plan.max_norm)
            optimiser.step()
            schedule.step()
            running += float(losses.mean())
            seen += len(batch)
            bar.update()
            if step % plan.check_every and step != plan.max_steps:
                continue

            seconds = time.perf_counter() - started
            record = {
                "step": float(step),
                "loss": running / ((step - 1) % plan.check_every + 1),
                "held_out_loss": math.nan if judge is None else float(judge.losses(params).mean()),
                "learning_rate": float(schedule.get_last_lr()[0]),
                "seconds": seconds,
                "tasks_per_second": seen / seconds,
            }
            running = 0.0
            history.append(record)
            bar.set_postfix(loss=f"{record['loss']:.3f}", held_out=f"{record['held_out_loss']:.3f}")
            if judge is None or record["held_out_loss"] < best_loss:
                best, best_loss, best_step = _snapshot(params), record["held_out_loss"], step
            asked_to_stop = [bool(callback(record)) for callback in callbacks]
            if any(asked_to_stop) or step - best_step >= plan.patience * plan.check_every:
                break
    if judge is not None and algorithm.keeps_start:
        best = best if gained(judge.losses(start), judge.losses(best)) else start
    return best, history


def _batches(
    n_tasks: int, plan: TrainingPlan, seed: int
) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Task numbers of each batch for ever, with the generator of its episodes.

    A batch holds each task at most once, or, where there are fewer tasks than half a batch,
    several episodes of every task. All are of one size: what is left of a shuffle is dropped. The
    generators are keyed by (seed, step).
    """
    repeats = max(1, min(plan.batch_size, 32) // n_tasks)
    shuffle = torch.Generator().manual_seed(seed)
    step = 0
    while True:
        order = torch.cat([torch.randperm(n_tasks, generator=shuffle) for _ in range(repeats)])
        full = max(1, len(order) // plan.batch_size) * plan.batch_size
        for batch in torch.split(order[:full], plan.batch_size):
            step += 1
            yield batch, torch.Generator().manual_seed(seed * 1_000_003 + step)


def _warmup_cosine(plan: TrainingPlan) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine down to 2 % of the rate."""
    warmup = max(1, int(plan.warmup_fraction * plan.max_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        angle = math.pi * (step - warmup) / max(1, plan.max_steps - warmup)
        return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(angle))

    return factor


def _guard(losses: Tensor, batch: Tensor, step: int) -> None:
    finite = losses.isfinite()
    if not bool(finite.all()):
        worst = batch[~finite.cpu()]
        raise DivergenceError(
            f"the loss of training task {int(worst[0])} (of {len(worst)} such tasks in this batch) "
            f"is not finite at step {step}. Lower inner_lr, max_inner_lr or learning_rate, or use "
            "likelihood='student_t' where outcomes hold gross errors."
        )


def _snapshot(params: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in params.items()}
