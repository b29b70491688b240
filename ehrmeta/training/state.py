"""Settings and state of a training run, and conversion of the state to tensors and JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ehrmeta.errors import BundleError

History = list[dict[str, float]]
_COUNTS = ("step", "best_step", "n_seen", "n_skipped", "n_halved")
_NUMBERS = (*_COUNTS, "running", "seconds", "over")
_MOST = 2**53  # larger counts are no exact floats
MOST_HALVINGS = 3  # of the learning rate
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW holds of a parameter
_RECORD = {"step", "loss", "held_out_loss", "learning_rate", "seconds", "tasks_per_second"}


@dataclass
class TrainingState:
    """A training run between two steps."""

    params: dict[str, Tensor]  # with gradients
    optimiser: torch.optim.AdamW  # over `params`, in their order
    best: dict[str, Tensor]  # parameters with the lowest held-out loss so far
    step: int = 0  # number of steps
    best_step: int = 0  # the step of `best`
    best_loss: float = math.inf
    running: float = 0.0  # sum of the steps' losses since the last check
    # n_seen, n_skipped: number of all episodes, and of episodes whose loss was not finite
    n_seen: int = 0
    n_skipped: int = 0
    n_halved: int = 0  # number of times that the learning rate was halved
    seconds: float = 0.0  # training time until the last check
    over: bool = False  # whether the run has ended
    history: History = field(default_factory=list)  # one record per check

    @classmethod
    def at_start(cls, params: Mapping[str, Tensor], plan: TrainingPlan) -> TrainingState:
        """State before the first step."""
        leaves = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        return cls(leaves, _optimiser(leaves, plan), snapshot(leaves))

    def step_back(self, plan: TrainingPlan) -> None:
        """Return to the best parameters, with half the learning rate and a new optimiser."""
        with torch.no_grad():
            for name, value in self.params.items():
                value.copy_(self.best[name])
        self.optimiser = _optimiser(self.params, plan)
        self.n_halved += 1

    def to_file(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state as tensors and a JSON object."""
        tensors = {f"params.{name}": value.detach() for name, value in self.params.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, leaf in self.params.items():
            for kind, value in self.optimiser.state[leaf].items():
                tensors[f"optimiser.{kind}.{name}"] = value
        numbers: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        numbers["best_loss"] = _finite_or_none(self.best_loss)
        numbers["history"] = [
            {name: _finite_or_none(value) for name, value in record.items()}
            for record in self.history
        ]
        return tensors, numbers

    @classmethod
    def from_file(
        cls,
        tensors: Mapping[str, Tensor],
        numbers: Mapping[str, Any],
        start: Mapping[str, Tensor],
        plan: TrainingPlan,
    ) -> TrainingState:
        """The inverse of `to_file`, for a run that started at `start`.

        Raises
        ------
        BundleError
            The file's tensors are not those of this run.
        """

        def values(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }

        params, best = values("params."), values("best.")
        shapes = {name: (value.shape, value.dtype) for name, value in start.items()}
        for weights in (params, best):
            if {name: (value.shape, value.dtype) for name, value in weights.items()} != shapes:
                raise BundleError(
                    "the checkpoint's parameters do not match those of this training run. Pass "
                    "another checkpoint_dir, or resume=False to restart."
                )
        _check_numbers(numbers, plan)
        state = cls.at_start({name: params[name].to(start[name].device) for name in start}, plan)
        state.best = {name: best[name].to(start[name].device) for name in start}
        moments = {kind: values(f"optimiser.{kind}.") for kind in _MOMENTS}
        for name, leaf in state.params.items():
            of_leaf = {kind: of_kind.get(name) for kind, of_kind in moments.items()}
            if set(of_leaf.values()) == {None}:  # before the first step
                continue
            for kind, value in of_leaf.items():
                like = torch.zeros(()) if kind == "step" else leaf
                if (
                    value is None
                    or (value.shape, value.dtype) != (like.shape, like.dtype)
                    or (kind != "exp_avg" and bool((value < 0).any()))
                ):
                    raise _inconsistent(f"{kind} of the optimiser")
                of_leaf[kind] = value.to(leaf.device)
            state.optimiser.state[leaf] = of_leaf
        for name in _NUMBERS:
            setattr(state, name, numbers[name])
        state.best_loss = _number_or(numbers["best_loss"], math.inf)
        state.history = [
            {name: _number_or(value, math.nan) for name, value in record.items()}
            for record in numbers["history"]
        ]
        return state


def snapshot(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A detached copy of the parameters."""
    return {name: value.detach().clone() for name, value in params.items()}


def _optimiser(leaves: Mapping[str, Tensor], plan: TrainingPlan) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        leaves.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
    )


def _check_numbers(numbers: Mapping[str, Any], plan: TrainingPlan) -> None:
    """Raise a `BundleError` unless the numbers of a file can be those of a run."""
    for name in _COUNTS:
        if type(numbers.get(name)) is not int or not 0 <= numbers[name] < _MOST:
            raise _inconsistent(name)
    if numbers["n_halved"] > MOST_HALVINGS:
        raise _inconsistent("n_halved")
    for name in ("running", "seconds"):
        if not _is_number(numbers.get(name)):
            raise _inconsistent(name)
    if not numbers["best_step"] <= numbers["step"] <= plan.max_steps:
        raise _inconsistent("step")
    over, history = numbers.get("over"), numbers.get("history")
    if type(over) is not bool or (numbers["step"] == plan.max_steps and not over):
        raise _inconsistent("over")
    if not _is_number(numbers.get("best_loss", ""), or_none=True):
        raise _inconsistent("best_loss")
    if not isinstance(history, list) or not all(
        isinstance(record, dict)
        and record.keys() == _RECORD
        and all(_is_number(value, or_none=True) for value in record.values())
        for record in history
    ):
        raise _inconsistent("history")


def _is_number(value: Any, *, or_none: bool = False) -> bool:
    return (value is None and or_none) or type(value) is float


def _inconsistent(what: str) -> BundleError:
    return BundleError(
        f"the checkpoint's {what} cannot come from a training run. Pass another checkpoint_dir, or "
        "resume=False to restart."
    )


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number_or(value: float | None, missing: float) -> float:
    return missing if value is None else value


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a training run; the estimators document each field."""

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
    progress_bar: bool = field(default_factory=sys.stderr.isatty, compare=False, repr=False)

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine down to 2 %.

        Examples
        --------
        >>> plan = TrainingPlan(max_steps=100, learning_rate=1.0)
        >>> [round(plan.rate(step), 2) for step in (1, 5, 50, 100)]
        [0.2, 1.0, 0.57, 0.02]
        """
        warmup = max(1, int(self.warmup_fraction * self.max_steps))
        done = step - 1
        if done < warmup:
            return self.learning_rate * (done + 1) / warmup
        angle = math.pi * (done - warmup) / max(1, self.max_steps - warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(angle)))
