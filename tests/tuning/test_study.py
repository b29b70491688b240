"""A study is resumed, and shared, as if it had never been stopped."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import StudyError
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows
from ehrmeta.tuning.study import open_study, recall, seeded_tpe
from tests.tuning.small import drawn, lines, search


@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_a_study_that_was_stopped_goes_on_as_if_it_had_not(tmp_path: Path, file: str) -> None:
    stored = {"storage": tmp_path / file, "study_name": "a"}
    search(n_trials=2, **stored)
    assert drawn(search(n_trials=5, **stored).study) == drawn(search(n_trials=5).study)


@pytest.mark.parametrize("first", [optuna.pruners.MedianPruner(), False])
def test_a_study_may_go_on_under_another_pruner(tmp_path: Path, first: Any) -> None:
    stored = {"storage": tmp_path / "s.journal", "study_name": "a"}
    search(n_trials=1, pruner=first, **stored)
    resumed = search(n_trials=5, **stored).study
    assert drawn(resumed) == drawn(search(n_trials=5).study)


def test_a_trial_that_a_user_adds_by_hand_prunes_nobody(tmp_path: Path) -> None:
    stored = {"storage": tmp_path / "s.db", "study_name": "a"}
    study = search(n_trials=1, **stored).study
    distributions = study.trials[0].distributions
    study.add_trial(
        optuna.trial.create_trial(value=-1.0, params={"penalty": 1.0}, distributions=distributions)
    )
    assert len(search(n_trials=4, **stored).study.trials) == 4


def test_a_user_may_not_find_a_patient_in_the_study(tmp_path: Path) -> None:
    data = lines()
    data["groups"] = np.array([f"patient-{code:05d}" for code in data["groups"]], dtype=object)
    data["y"] = np.round(data["y"], 6)
    for file in ("study.db", "study.journal"):
        search(**data, storage=tmp_path / file, study_name="a")
    text = "\n".join(sqlite3.connect(tmp_path / "study.db").iterdump())
    text += (tmp_path / "study.journal").read_text()
    assert "penalty" in text
    assert "patient-" not in text
    assert not any(f"{value:.6f}" in text for value in data["y"])


def test_ctrl_c_puts_the_trial_back_and_the_study_goes_on(tmp_path: Path) -> None:
    stored = {"storage": tmp_path / "s.db", "study_name": "a"}

    class Stopped(TaskRidge):
        def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
            raise KeyboardInterrupt

    Stopped.__name__ = "TaskRidge"  # the study is about this model
    search(n_trials=1, **stored)
    for _ in range(4):  # more often than workers may be lost
        with pytest.raises(KeyboardInterrupt):
            search(n_trials=3, estimator=Stopped(score_shots=(3,)), **stored)
    assert drawn(search(n_trials=3, **stored).study) == drawn(search(n_trials=3).study)


@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_a_note_is_recalled_and_a_study_that_is_not_there_is_named(
    tmp_path: Path, file: str
) -> None:
    search(n_trials=1, storage=tmp_path / file, study_name="a", notes={"table": "hdl.csv"})
    assert recall(tmp_path / file, "a", "table") == "hdl.csv"
    assert recall(tmp_path / file, "a", "other") is None
    with pytest.raises(StudyError, match="no study 'b' in that storage. It has: a"):
        recall(tmp_path / file, "b", "table")


def test_a_sampler_draws_by_seed_and_number_of_the_trial() -> None:
    def first_draw(seed: int, number: int) -> float:
        study = optuna.create_study(sampler=seeded_tpe(seed)(number))
        return study.ask().suggest_float("x", 0.0, 1.0)

    assert first_draw(0, 3) == first_draw(0, 3)
    assert len({first_draw(seed, number) for seed in (0, 1) for number in (0, 1)}) == 4


def test_a_trial_whose_worker_is_lost_too_often_fails(tmp_path: Path) -> None:
    shared = open_study(
        tmp_path / "s.journal",
        "a",
        made_for={"data": "x"},
        measures=["error"],
        directions=["minimize"],
        pruner=None,
    )
    shared.study.ask()  # by a worker that holds no lock: it is gone
    drawn_by: list[int] = []

    def objective(trial: optuna.Trial) -> list[float]:
        drawn_by.append(trial.number)
        return [float(trial.number)]

    shared.run(objective, n_trials=2)
    shared.close()
    assert drawn_by == [0, 1]  # the lost one first, under its number
    assert [trial.user_attrs.get("tries") for trial in shared.study.trials] == [2, None]
