"""Training state: written and read, stepped back, an error for another run."""

from __future__ import annotations

import json

import pytest
import torch

from ehrmeta.errors import BundleError
from ehrmeta.training import TrainingPlan
from ehrmeta.training.state import TrainingState, snapshot

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
