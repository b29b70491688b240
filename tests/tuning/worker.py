"""A worker that a test starts in a process of its own and may kill."""

import os
import time
from pathlib import Path

import optuna

from ehrmeta.tuning.study import open_study, seeded_tpe


def work(storage: str, log: str, n_trials: int, seconds: float) -> None:
    """Work on a study; write one line at the start and one at the end of every trial."""
    shared = open_study(
        storage,
        "shared",
        made_for={"data": "of a test"},
        measures=["error"],
        directions=["minimize"],
        pruner=optuna.pruners.NopPruner(),
    )

    def objective(trial: optuna.Trial) -> list[float]:
        x = trial.suggest_float("x", 0.0, 1.0)
        _note(log, f"begin {trial.number} {os.getpid()} {x!r}")
        for step in range(4):
            time.sleep(seconds / 4)
            trial.set_user_attr(f"step {step}", step)
        return [x]

    def note_end(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        _note(log, f"end {trial.number} {os.getpid()} {trial.params['x']!r}")

    shared.run(objective, n_trials=n_trials, sampler=seeded_tpe(0), callback=note_end)
    shared.close()


def _note(log: str, line: str) -> None:
    with Path(log).open("a") as file:  # short appended lines do not mix
        file.write(line + "\n")
