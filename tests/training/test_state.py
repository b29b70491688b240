"""Training state: written and read, stepped back, an error for another run."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
import torch

from ehrmeta import MetaRegressor
from ehrmeta.errors import BundleError
from ehrmeta.training import TrainingPlan
from ehrmeta.training.state import _RECORD, TrainingState, snapshot

PLAN = TrainingPlan(max_steps=10, progress_bar=False)
START = {"weight": torch.tensor([1.0, -2.0]), "bias": torch.tensor(0.5)}


def after_a_step() -> TrainingState:
    state = TrainingState.at_start(START, PLAN)
    for leaf in state.params.values():
        leaf.grad = torch.ones_like(leaf)
    state.optimiser.step()
    state.step = 1
    return state


def test_a_state_read_from_a_file_goes_on_bit_for_bit() -> None:
    state = after_a_step()
    tensors, numbers = state.to_file()
    again = TrainingState.from_file(tensors, json.loads(json.dumps(numbers)), START, PLAN)
    assert again.step == 1
    assert again.best_loss == state.best_loss == float("inf")
    for one in (state, again):
        for leaf in one.params.values():
            leaf.grad = torch.ones_like(leaf)
        one.optimiser.step()
    for name, leaf in state.params.items():
        assert torch.equal(leaf, again.params[name])


def test_parameters_of_another_training_are_refused() -> None:
    tensors, numbers = after_a_step().to_file()
    other = {**START, "bias": torch.zeros(2)}
    with pytest.raises(BundleError, match="do not match those of this training"):
        TrainingState.from_file(tensors, numbers, other, PLAN)


def test_stepping_back_restores_the_best_parameters_and_forgets_momentum() -> None:
    state = after_a_step()
    assert not torch.equal(state.params["weight"].detach(), START["weight"])
    state.step_back(PLAN)
    assert torch.equal(state.params["weight"].detach(), START["weight"])
    assert state.n_halved == 1
    assert not state.optimiser.state


def test_a_snapshot_does_not_change_with_its_source() -> None:
    source = {"a": torch.zeros(2)}
    copy = snapshot(source)
    source["a"] += 1.0
    assert not copy["a"].any()


def test_the_learning_rate_rises_and_then_falls_like_half_a_cosine() -> None:
    plan = TrainingPlan(max_steps=100, learning_rate=2.0, progress_bar=False)
    assert [plan.rate(step) for step in range(1, 6)] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    for step in (6, 30, 53, 80):
        share = (step - 6) / 95
        expected = 2.0 * (0.02 + 0.98 * (1.0 + math.cos(math.pi * share)) / 2.0)
        assert plan.rate(step) == pytest.approx(expected)
    assert plan.rate(101) == pytest.approx(0.04)  # 2 %
    assert TrainingPlan(max_steps=1, learning_rate=2.0).rate(1) == 2.0


def test_defaults_are_those_of_the_estimator_and_the_documented_ones() -> None:
    plan, model = TrainingPlan(), MetaRegressor()
    settings = model.get_params(deep=False)
    shared = [field.name for field in fields(plan) if field.name in settings]
    assert len(shared) >= 8
    assert {name: getattr(plan, name) for name in shared} == {
        name: settings[name] for name in shared
    }
    others = plan.check_every, plan.max_norm, plan.warmup_fraction, plan.time_unit
    assert others == (50, 1.0, 0.05, 1.0)


def test_numbers_that_are_not_finite_survive_a_file() -> None:
    state = after_a_step()
    state.best_loss = 0.5
    record = dict.fromkeys(_RECORD, 1.0)
    state.history = [record | {"held_out_loss": math.nan}, record]
    tensors, numbers = state.to_file()
    assert numbers["history"][0]["held_out_loss"] is None
    again = TrainingState.from_file(tensors, numbers, START, PLAN)
    assert math.isnan(again.history[0]["held_out_loss"])
    assert (again.history[1], again.best_loss) == (record, 0.5)


FORGED = {
    "a count of text": {"n_seen": "1"},
    "a truth value as count": {"step": True},
    "a negative count": {"n_skipped": -1},
    "a huge count": {"n_seen": 2**53},
    "a missing count": {"best_step": None},
    "a step past the end": {"step": 11},
    "a best step in the future": {"best_step": 2},
    "four halvings": {"n_halved": 4},
    "an integer as time": {"seconds": 1},
    "a sum of text": {"running": "0.0"},
    "no truth value": {"over": 0},
    "a last step that is not the end": {"step": 10},
    "a loss of text": {"best_loss": "low"},
    "no history": {"history": None},
    "a history of numbers": {"history": [1.0]},
    "an incomplete record": {"history": [{"step": 1.0}]},
    "a record of text": {"history": [dict.fromkeys(_RECORD, "1")]},
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_numbers_that_no_run_has_are_refused(forged) -> None:
    tensors, numbers = after_a_step().to_file()
    with pytest.raises(BundleError, match="cannot come from a training run"):
        TrainingState.from_file(tensors, numbers | forged, START, PLAN)
    del numbers["best_loss"]
    with pytest.raises(BundleError, match="best_loss cannot"):
        TrainingState.from_file(tensors, numbers, START, PLAN)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exp_avg.weight", torch.zeros(3)),
        ("exp_avg.weight", torch.zeros(2).double()),
        ("exp_avg_sq.weight", torch.tensor([1.0, -1.0])),
        ("step.bias", torch.tensor(-1.0)),
        ("step.bias", torch.tensor([1.0])),
        ("exp_avg.bias", None),
    ],
)
def test_moments_that_no_optimiser_has_are_refused(name, value) -> None:
    tensors, numbers = after_a_step().to_file()
    tensors[f"optimiser.{name}"] = value
    if value is None:
        del tensors[f"optimiser.{name}"]
    with pytest.raises(BundleError, match="of the optimiser cannot come from"):
        TrainingState.from_file(tensors, numbers, START, PLAN)


def test_limits_of_counts_are_still_valid() -> None:
    tensors, numbers = after_a_step().to_file()
    numbers |= {"step": 10, "best_step": 10, "n_halved": 3, "n_seen": 2**53 - 1, "over": True}
    state = TrainingState.from_file(tensors, numbers, START, PLAN)
    assert (state.step, state.n_halved, state.over) == (10, 3, True)


def test_a_run_starts_at_0_with_its_best_parameters_and_an_infinite_loss() -> None:
    state = TrainingState.at_start(START, PLAN)
    numbers = state.to_file()[1]
    zeros = ("step", "best_step", "running", "n_seen", "n_skipped", "n_halved", "seconds")
    assert {name: numbers[name] for name in zeros} == dict.fromkeys(zeros, 0)
    assert (state.best_loss, state.over, state.history) == (math.inf, False, [])
    assert all(torch.equal(state.best[name], value) for name, value in START.items())
    assert all(leaf.requires_grad for leaf in state.params.values())
