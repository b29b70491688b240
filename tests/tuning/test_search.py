from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import polars as pl
import pytest
from sklearn.model_selection import KFold

from ehrmeta import MAML, MetaRegressor, MetaSGD, make_sinusoid, tune
from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import DataError, StudyError
from ehrmeta.tuning.summary import study_summary
from tests.tuning.small import SPACE, Fragile, drawn, lines, ridge, search


def test_the_same_seed_gives_the_same_trials() -> None:
    one, other = search(random_state=1), search(random_state=1)
    assert drawn(one.study) == drawn(other.study)
    assert drawn(one.study) != drawn(search(random_state=2).study)


def test_a_trial_that_diverges_is_given_up_with_its_reason_and_the_study_goes_on() -> None:
    tuned = search(estimator=Fragile(score_shots=(3,)), n_trials=8, pruner=False)
    reasons = [t.user_attrs.get("reason", "") for t in tuned.study.trials]
    diverged = [t.params["penalty"] < 1 for t in tuned.study.trials]
    assert any(diverged)
    assert not all(diverged)
    assert [reason.startswith("diverged in fold 1") for reason in reasons] == diverged
    assert [t.state.name == "PRUNED" for t in tuned.study.trials] == diverged


def test_a_study_in_which_all_diverges_says_so() -> None:
    with pytest.raises(StudyError, match="none of 2 trials succeeded: diverged in fold 1"):
        search(estimator=Fragile(score_shots=(3,)), space={"penalty": (0.01, 0.5)}, n_trials=2)


def test_patients_and_times_may_be_columns() -> None:
    data = lines()
    time = np.tile(np.arange(8.0), 40)
    columns = {"x": data["X"][:, 0], "patient": data["groups"], "day": time}
    model = ridge(task="patient", time="day", known=("x",))
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        tuned = search(X=frame, groups=None, estimator=model)
        named = search(time=time, estimator=ridge(known=["x0"]))
        assert tuned.value == pytest.approx(named.value)


def test_the_start_of_meta_sgds_rates_is_searched() -> None:
    X, y, groups = make_sinusoid(n_tasks=40, n_points=8, random_state=0)
    model = MetaRegressor(MetaSGD(), max_steps=1, random_state=0, verbose=False)
    grid = optuna.samplers.GridSampler({"algorithm__inner_lr": ["0.001", "0.4"]}, seed=0)
    tuned = tune(
        model, X, y, groups=groups, n_trials=9, cv=2, space={"algorithm__inner_lr": [0.001, 0.4]},
        pruner=False, refit=False, sampler=grid,
    )  # fmt: skip
    assert len(tuned.study.trials) == 2  # the grid is used up
    assert len({trial.value for trial in tuned.study.trials}) == 2


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    study_summary(search(n_trials=2).study)
    assert capfd.readouterr() == ("", "")


class TestRefused:
    def test_no_trial(self) -> None:
        for n_trials in (0, -1, 1.5, True):
            with pytest.raises(DataError, match="n_trials must be a whole number, 1 or more"):
                search(n_trials=n_trials)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
            ({"random_state": "a"}, "random_state must be a whole number, 0 or more"),
            ({"sampler": "tpe"}, "sampler must be one of optuna.samplers"),
            ({"pruner": "median"}, "pruner must be one of optuna.pruners, or False"),
            ({"study_name": 3}, "study_name must be text, got 3"),
            ({"space": {1: (1.0, 2.0)}}, "unknown parameter '1' in the space"),
            ({"cv": "five"}, "cv must be a number of folds or a splitter"),
            ({"scoring": 3}, "unknown scoring 3"),
            ({"space": "penalty"}, "space must be a list of names, a dict of ranges or a function"),
            ({"space": lambda trial: 1.0}, "a function must return a dict of parameters, not 1.0"),
            ({"space": {"penalty": (1.0, np.inf)}}, "is not finite"),
        ],
    )
    def test_what_is_of_the_wrong_kind(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            search(**settings)

    def test_other_data(self, tmp_path: Path) -> None:
        stored = {"storage": tmp_path / "s.db", "study_name": "a", "n_trials": 1}
        search(**stored)
        data = lines()
        data["y"][0] += 1
        with pytest.raises(StudyError, match="'a' was made for other data"):
            search(**stored, **data)
        with pytest.raises(StudyError, match="other folds"):
            search(**stored, cv=4)
        with pytest.raises(StudyError, match="other model"):
            search(**stored, estimator=TaskRidge(score_shots=(2,)))
        with pytest.raises(StudyError, match="other measures .rmse_macro there, mae_macro here"):
            search(**stored, scoring="mae_macro")

    def test_a_study_of_other_parameters(self, tmp_path: Path) -> None:
        stored = {"storage": tmp_path / "s.journal", "study_name": "a"}
        both = {**SPACE, "score_shots": [(3,), (2,)]}
        search(n_trials=1, space=both, **stored)
        for other in (SPACE, {**both, "score_shots": [(3,)]}, {**both, "penalty": [1.0]}):
            with pytest.raises(StudyError, match="trial 0 of the study searched penalty, score_sh"):
                search(n_trials=1, space=other, **stored)
        assert search(n_trials=2, space={**both, "penalty": (1.0, 2.0, "log")}, **stored).params

    def test_a_false_start_stands_in_nobodys_way(self, tmp_path: Path) -> None:
        stored = {"storage": tmp_path / "s.journal", "study_name": "a", "n_trials": 1}
        with pytest.raises(DataError, match="nobody has a row after the first 3"):
            search(**stored, **lines(n_rows=3))
        assert len(search(**stored).study.trials) == 1

    @pytest.mark.parametrize("score", [np.nan, "good", None])
    def test_a_scorer_that_returns_no_number(self, score: Any) -> None:
        with pytest.raises(DataError, match="for a block of held-out patients: it must return a"):
            search(scoring=lambda *_, **__: score)

    @pytest.mark.parametrize(
        ("storage", "message"),
        [
            ("no/such/folder/s.db", "is not a file in an existing folder"),
            ("/dev/null/s.db", "is not a file in an existing folder"),
            ("mysql://host/base", "kind 'mysql' is not supported"),
            ("redis://host", "is not supported"),
            ("postgresql://me:secret@127.0.0.1:1/base", "cannot be reached"),
        ],
    )
    def test_a_storage_that_cannot_be_reached(self, storage: str, message: str) -> None:
        if storage.startswith("postgresql"):
            pytest.importorskip("psycopg")
        with pytest.raises(StudyError, match=message) as refused:
            search(storage=storage, study_name="a")
        assert "secret" not in str(refused.value)

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "s.db").write_text("something else, and long enough to be read as a page" * 99)
        with pytest.raises(StudyError, match="cannot be reached"):
            search(storage=tmp_path / "s.db", study_name="a")

    def test_a_place_where_no_lock_can_be(self, tmp_path: Path) -> None:
        (tmp_path / "s.db.locks").write_text("a file, not a folder")
        with pytest.raises(StudyError, match="cannot be reached: .*exists"):
            search(storage=tmp_path / "s.db", study_name="a")

    def test_scoring_that_is_not_known(self) -> None:
        with pytest.raises(DataError, match="Did you mean 'rmse_macro'"):
            search(scoring="rmse_makro")
        with pytest.raises(DataError, match="at least one"):
            search(scoring=[])

    def test_rows_without_patients(self) -> None:
        with pytest.raises(DataError, match="needs groups"):
            search(groups=None)

    @pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
    def test_folds_that_cut_patients(self) -> None:
        with pytest.raises(DataError, match="rows of one patient into both training and held-out"):
            search(cv=KFold(3, shuffle=True, random_state=0))

    def test_patients_with_too_few_rows(self) -> None:
        with pytest.raises(DataError, match="nobody has a row after the first 3"):
            search(**lines(n_rows=3))

    def test_what_is_no_estimator_over_tasks(self) -> None:
        with pytest.raises(DataError, match="needs a task estimator"):
            search(estimator=MAML())
