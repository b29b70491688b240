"""Training is reproducible, stops early, and names what diverges."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch

from ehrmeta import MAML, MLP, MetaRegressor
from ehrmeta.algorithms import Spec
from ehrmeta.errors import DataWarning, DivergenceError
from ehrmeta.nn import Normal, TaskRows
from ehrmeta.training import EpisodeLoss, EpisodeSampler, TrainingPlan, train
from ehrmeta.training.loop import _batches, _check, _step, stage
from ehrmeta.training.state import TrainingState
from tests.training.small import rows_of


def _spec(rows: TaskRows) -> Spec:
    n_features = rows.x.shape[1] + int(rows.timed)
    return Spec(MLP((8,), "tanh").network(n_features, 1), Normal(), n_features)


def _fit(rows, plan, *, held_out=None, callbacks=(), algorithm=None):
    algorithm, spec = algorithm or MAML(inner_steps=1), _spec(rows)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    return train(algorithm, spec, params, rows, held_out, plan, seed=3, callbacks=callbacks)


PLAN = TrainingPlan(max_steps=30, check_every=10, batch_size=8, progress_bar=False)


def test_same_seed_gives_the_same_numbers():
    rows = rows_of([5] * 12)
    (first, history), (second, again) = _fit(rows, PLAN), _fit(rows, PLAN)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert [r["loss"] for r in history] == [r["loss"] for r in again]


def test_chunk_size_changes_results_by_rounding_only():
    rows = rows_of([5] * 12)
    whole, _ = _fit(rows, PLAN)
    chunked, _ = _fit(rows, TrainingPlan(**{**vars(PLAN), "chunk_size": 3}))
    for name, value in whole.items():
        torch.testing.assert_close(value, chunked[name], rtol=1e-3, atol=1e-4)


def test_training_lowers_the_held_out_loss_and_restores_the_best_state():
    rows, held_out = rows_of([8] * 60), rows_of([8] * 30, seed=1)
    plan = TrainingPlan(max_steps=200, check_every=20, batch_size=16, progress_bar=False)
    losses = []
    _, history = _fit(rows, plan, held_out=held_out, callbacks=[losses.append])
    assert losses == history
    assert history[-1]["held_out_loss"] < history[0]["held_out_loss"] - 0.2


def test_early_stopping_waits_for_patience_checks():
    rows = rows_of([8] * 30)
    plan = TrainingPlan(
        max_steps=400, check_every=5, patience=3, learning_rate=0.0, progress_bar=False
    )
    _, history = _fit(rows, plan, held_out=rows_of([8] * 10, seed=1))
    assert history[-1]["step"] == 5 * (1 + 3)


def test_a_callback_can_stop_the_training():
    _, history = _fit(rows_of([5] * 12), PLAN, callbacks=[lambda record: record["step"] >= 20])
    assert [record["step"] for record in history] == [10, 20]


def test_without_held_out_tasks_the_last_state_is_kept():
    _, history = _fit(rows_of([5] * 12), PLAN)
    assert len(history) == 3
    assert all(math.isnan(record["held_out_loss"]) for record in history)


def test_a_task_whose_loss_is_not_finite_is_left_out_and_counted():
    rows = rows_of([5] * 12)
    rows.y[rows.codes == 7] = torch.nan
    with pytest.warns(DataWarning, match=r"of 240 training losses were not finite"):
        params, _ = _fit(rows, PLAN)
    assert all(value.isfinite().all() for value in params.values())


def test_divergence_steps_back_with_half_the_rate_and_then_goes_on():
    rows = rows_of([5] * 12)
    calm = TrainingPlan(max_steps=30, check_every=1, batch_size=8, progress_bar=False)
    broken = iter([False] * 10 + [True] * 2 + [False] * 18)

    def spoil(record):
        rows.y[:] = torch.inf if next(broken) else 1.0

    with pytest.warns(DataWarning, match="halved 2 times"):
        _, history = _fit(rows, calm, callbacks=[spoil])
    assert history[-1]["learning_rate"] == pytest.approx(calm.rate(30) / 4)


def test_lasting_divergence_names_the_task_and_the_step():
    rows = rows_of([5] * 12)
    rows.y[:] = torch.nan
    with pytest.raises(DivergenceError, match=r"task \d+ .* not finite at step 4") as error:
        _fit(rows, PLAN)
    assert "inner_lr" in str(error.value)


def test_a_stage_is_named_before_it_begins(capsys):
    with stage("fitting", shown=True):
        assert "fitting [00:00]" in capsys.readouterr().err
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize("verbose", [True, False])
def test_fit_names_its_stages_if_it_is_verbose(verbose, capsys):
    X, y = np.arange(60.0)[:, None], np.arange(60.0) % 7
    MetaRegressor(verbose=verbose).fit(X, y, groups=np.arange(60) // 3)
    shown = capsys.readouterr().err
    trees, start = shown.find("testing boosted trees"), shown.find("fitting start values")
    assert 0 <= trees < start if verbose else not shown


def test_a_record_holds_the_mean_loss_since_the_last_check():
    plan = TrainingPlan(max_steps=23, check_every=10, learning_rate=1.0, progress_bar=False)
    state = TrainingState.at_start({"w": torch.zeros(1)}, plan)
    state.step, state.running, state.n_seen, state.n_halved = 20, 5.0, 160, 1
    record = _check(state, None, plan, seconds=4.0)
    assert (record["step"], record["loss"], record["tasks_per_second"]) == (20.0, 0.5, 40.0)
    assert record["learning_rate"] == plan.rate(20) / 2
    assert (state.running, state.seconds, state.best_step) == (0.0, 4.0, 20)
    state.step, state.running = 23, 6.0  # three steps
    assert _check(state, None, plan, seconds=5.0)["loss"] == 2.0
    assert [one["step"] for one in state.history] == [20.0, 23.0]


@pytest.mark.parametrize(
    ("n_tasks", "batch_size", "sizes", "repeats"),
    [(10, 4, {4}, 1), (10, 10, {10}, 1), (5, 256, {30}, 6), (8, 16, {16}, 2), (20, 256, {20}, 1)],
)
def test_batches_hold_every_task_equally_often(n_tasks, batch_size, sizes, repeats):
    plan = TrainingPlan(batch_size=batch_size, progress_bar=False)
    drawn = [batch for batch, _ in islice(_batches(n_tasks, plan, 3), 20)]
    assert {len(batch) for batch in drawn} == sizes
    assert all(torch.bincount(batch).max() == repeats for batch in drawn)
    assert torch.cat(drawn).unique().tolist() == list(range(n_tasks))
    assert not torch.equal(drawn[0], drawn[-1])
    seeds = [generator.initial_seed() for _, generator in islice(_batches(n_tasks, plan, 3), 20)]
    assert len(set(seeds)) == 20


@pytest.mark.parametrize("n_broken", [3, 4])
def test_a_step_is_taken_if_more_than_half_of_a_batch_is_finite(n_broken):
    rows = rows_of([5] * 8)
    rows.y[rows.codes < n_broken] = torch.nan
    if n_broken < 4:
        with pytest.warns(DataWarning, match=r"90 of 240 training losses.* halved 0 times"):
            params, history = _fit(rows, PLAN)
        assert len(history) == 3
        assert math.isfinite(history[-1]["loss"])
    else:
        with pytest.raises(DivergenceError, match=r"of 4 such tasks.* at step 4.*0.125 of the"):
            _fit(rows, PLAN)


def test_every_step_has_its_progress_and_moves_weights_by_the_learning_rate():
    rows, seen = rows_of([5] * 12), []

    class Watched(MAML):
        """MAML whose stages are counted."""

        def at(self, progress):
            seen.append(progress)
            return super().at(progress)

    _fit(rows, TrainingPlan(**{**vars(PLAN), "max_steps": 4}), algorithm=Watched(inner_steps=1))
    assert seen == [0.25, 0.5, 0.75, 1.0]
    plan = TrainingPlan(max_steps=1, batch_size=8, progress_bar=False)
    after, _ = _fit(rows, plan)
    before = MAML(inner_steps=1).init(_spec(rows), torch.Generator().manual_seed(0))
    moves = [float((after[name] - value).abs().max()) for name, value in before.items()]
    assert max(moves) == pytest.approx(plan.rate(1), rel=0.05)  # by AdamW


def test_the_best_of_the_checks_is_returned():
    rows, held_out = rows_of([5] * 12), rows_of([5] * 12, seed=1)
    best, history = _fit(rows, PLAN, held_out=held_out)
    losses = [record["held_out_loss"] for record in history]
    ending, _ = _fit(
        rows,
        PLAN,
        held_out=held_out,
        callbacks=[lambda record: record["held_out_loss"] == min(losses)],
    )
    assert all(torch.equal(best[name], value) for name, value in ending.items())


def test_an_algorithm_that_keeps_its_start_leaves_it_for_a_gain_only():
    class Kept(MAML):
        """MAML that keeps its start."""

        keeps_start = True

    rows = rows_of([8] * 60)
    start = Kept(inner_steps=1).init(_spec(rows), torch.Generator().manual_seed(0))
    same, history = _fit(rows, PLAN, algorithm=Kept(inner_steps=1))
    assert history == []
    assert all(torch.equal(same[name], value) for name, value in start.items())
    plan = TrainingPlan(max_steps=100, check_every=20, batch_size=16, progress_bar=False)
    held_out = rows_of([8] * 40, seed=1)
    better, _ = _fit(rows, plan, held_out=held_out, algorithm=Kept(inner_steps=1))
    assert any(not torch.equal(better[name], value) for name, value in start.items())
    still = TrainingPlan(**{**vars(plan), "learning_rate": 1e-9, "max_steps": 20})
    kept, _ = _fit(rows, still, held_out=held_out, algorithm=Kept(inner_steps=1))
    assert all(torch.equal(kept[name], value) for name, value in start.items())


def test_a_step_adds_its_mean_loss_and_counts_its_tasks():
    rows = rows_of([5] * 6)
    algorithm, spec = MAML(inner_steps=1), _spec(rows)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    state, loss = TrainingState.at_start(params, PLAN), EpisodeLoss(algorithm, spec)
    episode = EpisodeSampler(rows, (1, 2), 3, 1.0).draw(
        torch.arange(6), torch.Generator().manual_seed(0)
    )
    expected = loss.losses(params, *episode).mean()
    _step(state, loss, torch.arange(6), *episode, PLAN)
    assert state.running == pytest.approx(float(expected), rel=1e-5)
    assert (state.step, state.n_seen, state.n_skipped) == (1, 6, 0)
    assert state.optimiser.param_groups[0]["lr"] == PLAN.rate(1)


def test_the_gradient_is_clipped_to_the_largest_norm():
    rows = rows_of([5] * 6)
    algorithm, spec = MAML(inner_steps=1), _spec(rows)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    episode = EpisodeSampler(rows, (1, 2), 3, 1.0).draw(
        torch.arange(6), torch.Generator().manual_seed(0)
    )
    for max_norm in (1e-3, 1e9):
        plan = TrainingPlan(**{**vars(PLAN), "max_norm": max_norm})
        state, loss = TrainingState.at_start(params, plan), EpisodeLoss(algorithm, spec)
        _step(state, loss, torch.arange(6), *episode, plan)
        grads = [p.grad.flatten() for p in state.params.values() if p.grad is not None]
        norm = float(torch.cat(grads).norm())
        assert norm == pytest.approx(1e-3, rel=1e-3) if max_norm < 1 else norm > 1e-2


def test_records_hold_the_time_since_the_start():
    _, history = _fit(rows_of([5] * 12), PLAN)
    seconds = [record["seconds"] for record in history]
    assert 0 < seconds[0] < seconds[1] < seconds[2] < 60
    for record in history:
        assert record["tasks_per_second"] == pytest.approx(8 * record["step"] / record["seconds"])


def test_a_finite_loss_with_an_infinite_gradient_is_no_step():
    class Broken(MAML):
        """Its loss is that of MAML, and its gradient is not finite."""

        def loss(self, spec, params, support, query, progress):
            zero = sum((value - value.detach()).sum() for value in params.values())
            return super().loss(spec, params, support, query, progress) + zero.abs().sqrt()

    with pytest.raises(DivergenceError, match="the meta-gradient is not finite at step 4"):
        _fit(rows_of([5] * 8), PLAN, algorithm=Broken(inner_steps=1))
