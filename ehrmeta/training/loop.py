"""The meta-training loop, and the progress of the stages before it."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from ehrmeta.algorithms._base import Algorithm, Spec
from ehrmeta.errors import DataWarning, DivergenceError, Remedy, warn
from ehrmeta.nn.batch import TaskRows, TaskSet
from ehrmeta.nn.device import for_points
from ehrmeta.training.checkpoints import Checkpoints, fingerprint, on_termination
from ehrmeta.training.episodes import EpisodeLoss, EpisodeSampler
from ehrmeta.training.held_out import HeldOut, gained
from ehrmeta.training.state import MOST_HALVINGS, History, TrainingPlan, TrainingState, snapshot

Callback = Callable[[dict[str, float]], bool | None]


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
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = True,
) -> tuple[dict[str, Tensor], History]:
    """Meta-train with AdamW over batches of episodes, and restore the best held-out state.

    A task whose loss is not finite is dropped from the step. If at least half of a batch is
    dropped, or if the gradient is not finite, training returns to its best state and halves the
    learning rate.

    Parameters
    ----------
    held_out : TaskRows or None
        Tasks for early stopping. With None, the last parameters are returned, or the start values
        for an algorithm with `keeps_start`.
    callbacks : sequence of callable
        Called with every record of the history. Training ends if one of them returns True.
    checkpoint_dir : path, optional
        Folder for checkpoints. One is saved at every check. On SIGTERM, one more is saved and the
        process exits.
    resume : bool
        Whether to continue from the newest checkpoint in the folder.

    Returns
    -------
    params, history
        Best parameters, and one record ``{step, loss, held_out_loss, learning_rate, seconds,
        tasks_per_second}`` per check.

    Raises
    ------
    DivergenceError
        The loss or its gradient is still not finite at an eighth of the learning rate.
    BundleError
        A checkpoint cannot be read or written, or belongs to another training run.
    """
    sampler = EpisodeSampler(tasks, plan.shots, plan.max_queries, plan.time_unit)
    loss = EpisodeLoss(
        algorithm, spec, chunk_size=plan.chunk_size, precision=plan.precision, compiled=plan.compile
    )
    evaluation = None
    if held_out is not None:
        queries = 2 * plan.max_queries
        held_out_sampler = EpisodeSampler(held_out, plan.shots, queries, plan.time_unit)
        evaluation = HeldOut(held_out_sampler, loss, seed + 1)

    start = snapshot(params)
    if evaluation is None and algorithm.keeps_start:
        return start, []
    state = TrainingState.at_start(params, plan)
    checkpoints = None
    if checkpoint_dir is not None:
        training = fingerprint(algorithm, spec, start, tasks, held_out, plan, seed)
        checkpoints = Checkpoints(checkpoint_dir, training, resume=resume)
        state = checkpoints.newest(start, plan) or state

    batches = islice(_batches(tasks.n_tasks, plan, seed), state.step, None)
    began = time.perf_counter() - state.seconds
    with (
        tqdm(
            total=plan.max_steps, initial=state.step, unit="step", disable=not plan.progress_bar
        ) as bar,
        on_termination(active=checkpoints is not None) as is_terminated,
    ):
        while not state.over:
            batch, generator = next(batches)
            support, query = sampler.draw(batch.to(tasks.y.device), generator)
            n_points = support.y.numel() + query.y.numel()
            step = partial(_step, state, loss, batch, support, query, plan)
            for_points(n_points, step, query.y.device)
            bar.update()
            if state.step % plan.check_every == 0 or state.step == plan.max_steps:
                record = _check(state, evaluation, plan, time.perf_counter() - began)
                bar.set_postfix({name: f"{record[name]:.3f}" for name in ("loss", "held_out_loss")})
                stops = [bool(callback(record)) for callback in callbacks]
                waited = state.step - state.best_step >= plan.patience * plan.check_every
                state.over = any(stops) or waited or state.step == plan.max_steps
                if checkpoints is not None:
                    checkpoints.save(state)
            if checkpoints is not None and is_terminated() and not state.over:
                state.seconds = time.perf_counter() - began
                checkpoints.save(state)
                raise SystemExit(128 + signal.SIGTERM)

    if state.n_skipped:
        message = (
            f"{state.n_skipped:,} of {state.n_seen:,} training losses were not finite and were "
            f"dropped; the learning rate was halved {state.n_halved} times."
        )
        remedy = Remedy(
            "robust-likelihood",
            "Check the outcomes for gross errors, or use likelihood='student_t'.",
        )
        warn(DataWarning(message, remedy))
    best = state.best
    if evaluation is not None and algorithm.keeps_start:
        best = best if gained(evaluation.losses(start), evaluation.losses(best)) else start
    return best, state.history


def _step(
    state: TrainingState,
    loss: EpisodeLoss,
    batch: Tensor,
    support: TaskSet,
    query: TaskSet,
    plan: TrainingPlan,
) -> None:
    """Take one optimiser step, or return to the best state if too few losses are finite."""
    state.step += 1
    progress = state.step / plan.max_steps
    losses, gradient = loss.gradient(state.params, support, query, progress)
    finite = losses.isfinite()
    n_finite = int(finite.sum())
    dropped = batch[~finite.cpu()]
    state.n_seen += len(batch)
    state.n_skipped += len(dropped)
    if len(batch) / 2 < n_finite < len(batch):
        support, query = support.tasks(finite), query.tasks(finite)
        losses, gradient = loss.gradient(state.params, support, query, progress)
    for name, p in state.params.items():
        p.grad = gradient.get(name)
    norm = torch.nn.utils.clip_grad_norm_(state.params.values(), plan.max_norm)
    if n_finite <= len(batch) / 2 or not bool(norm.isfinite()):
        if state.n_halved == MOST_HALVINGS:
            raise _diverged(dropped, state.step)
        state.step_back(plan)
        return
    for group in state.optimiser.param_groups:
        group["lr"] = plan.rate(state.step) * 0.5**state.n_halved
    state.optimiser.step()
    state.running += float(losses.mean())


def _check(
    state: TrainingState, evaluation: HeldOut | None, plan: TrainingPlan, seconds: float
) -> dict[str, float]:
    """Record the held-out loss, and save the parameters if they are the best so far."""
    losses = None if evaluation is None else evaluation.losses(state.params)
    held_out_loss = math.nan if losses is None else float(losses.mean())
    record = {
        "step": float(state.step),
        "loss": state.running / ((state.step - 1) % plan.check_every + 1),
        "held_out_loss": held_out_loss,
        "learning_rate": plan.rate(state.step) * 0.5**state.n_halved,
        "seconds": seconds,
        "tasks_per_second": state.n_seen / seconds,
    }
    state.history.append(record)
    state.running, state.seconds = 0.0, seconds
    if evaluation is None or held_out_loss < state.best_loss:
        state.best, state.best_step = snapshot(state.params), state.step
        state.best_loss = held_out_loss
    return record


def _batches(
    n_tasks: int, plan: TrainingPlan, seed: int
) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Endless batches of task numbers, each with a random generator for its episodes.

    A batch holds a task at most once, unless ``min(batch_size, 32)`` is at least twice the number
    of tasks: then it holds every task several times. All batches have the same size, and the
    remainder of a shuffle is dropped. Each generator is seeded from (seed, step).
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


def _diverged(dropped: Tensor, step: int) -> DivergenceError:
    what = f"the loss of training task {int(dropped[0])}" if len(dropped) else "the meta-gradient"
    others = f" (of {len(dropped)} such tasks in this batch)" if len(dropped) else ""
    return DivergenceError(
        f"{what}{others} is not finite at step {step}, even at "
        f"{0.5**MOST_HALVINGS:g} of the learning rate.",
        Remedy(
            "smaller-steps",
            "Lower inner_lr, max_inner_lr or learning_rate, or use likelihood='student_t' if "
            "outcomes contain gross errors.",
        ),
    )


@contextmanager
def stage(name: str, *, shown: bool) -> Iterator[None]:
    """Show the name of a stage when it begins, and the time that it took when it ends.

    Parameters
    ----------
    name : str
        What is being done.
    shown : bool
        If False, nothing is written.

    Examples
    --------
    >>> with stage("fitting start values", shown=False):
    ...     pass
    """
    with tqdm(bar_format="{desc} [{elapsed}]", desc=name, disable=not shown):
        yield
