import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone, is_regressor
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ehrmeta import (
    MAML,
    KShotScorer,
    MetaClassifier,
    MetaRegressor,
    MetaSearchCV,
    MetaSGD,
    PatientKFold,
    adapt,
    make_sinusoid,
    tune,
)
from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import DataError, NotFittedError, StudyError
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.batch import TaskRows
from ehrmeta.tuning.compared import BLOCKS
from ehrmeta.tuning.objective import MEASURES, read_folds, read_rows
from ehrmeta.tuning.paired import PairedPruner, error_in_full
from ehrmeta.tuning.summary import study_summary
from tests.tuning.small import SPACE, Fragile, lines, ridge


def search(**settings: Any) -> Any:
    given = {"n_trials": 4, "space": SPACE, "cv": 3, **lines(), **settings}
    estimator = given.pop("estimator", ridge())
    return tune(estimator, given.pop("X"), given.pop("y"), **given)


def drawn(study: optuna.Study) -> list[tuple[dict[str, Any], list[float] | None]]:
    return [(trial.params, trial.values) for trial in study.trials]


def test_the_same_seed_gives_the_same_trials() -> None:
    one, other = search(random_state=1), search(random_state=1)
    assert drawn(one.study) == drawn(other.study)
    assert drawn(one.study) != drawn(search(random_state=2).study)


@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_a_study_that_was_stopped_goes_on_as_if_it_had_not(tmp_path: Path, file: str) -> None:
    kept = {"storage": tmp_path / file, "study_name": "a"}
    search(n_trials=2, **kept)
    assert drawn(search(n_trials=5, **kept).study) == drawn(search(n_trials=5).study)


def test_the_value_is_the_k_shot_error_of_the_held_out_patients() -> None:
    data = lines()
    tuned = search(space={"penalty": [2.0]}, n_trials=1)
    rows = read_rows(ridge(), data["X"], data["y"], data["groups"], None)
    errors = []
    for fold in read_folds(rows, 3):
        model = ridge(penalty=2.0).fit(fold.train.X, fold.train.y, groups=fold.train.groups)
        for block in np.unique(fold.blocks):
            part = fold.test.take(fold.blocks == block)
            assert len(np.unique(part.tasks)) >= 5
            errors.append(MEASURES["rmse_macro"](model, part, np.zeros(len(part.y), int))[0])
        one_block = np.zeros(len(fold.test.y), int)
        scorer = KShotScorer(shots=(3,))
        assert MEASURES["rmse_macro"](model, fold.test, one_block)[0] == pytest.approx(
            -scorer(model, fold.test.X, fold.test.y, groups=fold.test.groups), rel=0.1
        )
    assert len(tuned.study.trials[0].intermediate_values) == len(errors)


def test_no_patient_is_in_training_and_held_out() -> None:
    data = lines()
    rows = read_rows(ridge(), data["X"], data["y"], data["groups"], None)
    for fold in read_folds(rows, 4):
        assert not set(fold.train.tasks) & set(fold.test.tasks)
        for patient in np.unique(fold.test.tasks):
            assert len(np.unique(fold.blocks[fold.test.tasks == patient])) == 1


def test_a_worse_setting_is_given_up_before_the_next_fold_is_trained() -> None:
    Fragile.fits = 0
    tuned = search(
        estimator=Fragile(score_shots=(3,)),
        space=lambda trial: {"penalty": [3.0, 1e6][trial.number]},
        n_trials=2,
        cv=4,
        refit=False,
        **lines(200),
    )
    assert Fragile.fits == 4 + 1
    assert tuned.study.trials[0].user_attrs.get("reason") is None
    assert tuned.study.trials[1].value > tuned.value
    assert tuned.study.trials[1].user_attrs["reason"] == "worse than others, in fold 1 of 4"
    assert tuned.params == {"penalty": 3.0}


def judged(values: Any, state: str = "RUNNING", **ended: Any) -> optuna.trial.FrozenTrial:
    """A trial with these errors by block."""
    state = optuna.trial.TrialState[state]
    return optuna.trial.create_trial(state=state, user_attrs={BLOCKS: list(values)}, **ended)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trials_are_compared_on_the_same_blocks_however_easy_these_are(direction: str) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    study = optuna.create_study(direction=direction)
    easy, hard = np.linspace(1, 2, 8), np.linspace(11, 12, 8)
    best = sign * np.concatenate([easy, hard])
    study.add_trial(judged(best, "COMPLETE", value=float(best.mean())))
    worse = sign * (easy + 0.1 + 0.01 * np.arange(8))
    assert abs(np.mean(worse)) < abs(best.mean())
    assert PairedPruner().prune(study, judged(worse))
    assert error_in_full(study, worse) == pytest.approx(best.mean() + sign * 0.135)
    better = sign * (easy - 0.1)
    assert not PairedPruner().prune(study, judged(better))
    assert error_in_full(study, better) == pytest.approx(best.mean())
    mixed = best[:8] + sign * np.tile([0.3, -0.2], 4)
    assert not PairedPruner().prune(study, judged(mixed))


@pytest.mark.parametrize("first", [optuna.pruners.MedianPruner(), False])
def test_a_study_may_go_on_under_another_pruner(tmp_path: Path, first: Any) -> None:
    kept = {"storage": tmp_path / "s.journal", "study_name": "a"}
    search(n_trials=1, pruner=first, **kept)
    resumed = search(n_trials=5, **kept).study
    assert drawn(resumed) == drawn(search(n_trials=5).study)


def test_a_trial_that_a_user_adds_by_hand_prunes_nobody(tmp_path: Path) -> None:
    kept = {"storage": tmp_path / "s.db", "study_name": "a"}
    study = search(n_trials=1, **kept).study
    distributions = study.trials[0].distributions
    study.add_trial(
        optuna.trial.create_trial(value=-1.0, params={"penalty": 1.0}, distributions=distributions)
    )
    assert len(search(n_trials=4, **kept).study.trials) == 4


def test_a_trial_that_diverges_is_given_up_with_its_reason_and_the_study_goes_on() -> None:
    tuned = search(estimator=Fragile(score_shots=(3,)), n_trials=8, pruner=False)
    reasons = [t.user_attrs.get("reason", "") for t in tuned.study.trials]
    diverged = [t.params["penalty"] < 1 for t in tuned.study.trials]
    assert any(diverged)
    assert not all(diverged)
    assert [reason.startswith("diverged in fold 1") for reason in reasons] == diverged
    assert [t.state.name == "PRUNED" for t in tuned.study.trials] == diverged


def test_a_study_in_which_all_diverges_says_so() -> None:
    with pytest.raises(StudyError, match="none of 2 trials ended well: diverged in fold 1"):
        search(estimator=Fragile(score_shots=(3,)), space={"penalty": (0.01, 0.5)}, n_trials=2)


@pytest.mark.parametrize("pruner", [optuna.pruners.MedianPruner(n_startup_trials=1),
                                    optuna.pruners.HyperbandPruner()])  # fmt: skip
def test_other_pruners_are_told_the_mean_so_far(pruner: Any) -> None:
    tuned = search(n_trials=6, pruner=pruner)
    trial = tuned.study.best_trial
    last = trial.intermediate_values[max(trial.intermediate_values)]
    assert last == pytest.approx(trial.value)


def test_patients_and_times_may_be_columns() -> None:
    data = lines()
    time = np.tile(np.arange(8.0), 40)
    columns = {"x": data["X"][:, 0], "patient": data["groups"], "day": time}
    model = ridge(task="patient", time="day")
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        tuned = search(X=frame, groups=None, estimator=model)
        named = search(time=time)
        assert tuned.value == pytest.approx(named.value)


def test_several_objectives_are_searched_at_once() -> None:
    tuned = search(
        estimator=MetaRegressor(MAML(), max_steps=2, random_state=0, verbose=False),
        space=["algorithm__inner_lr"],
        n_trials=2,
        scoring=["rmse_macro", "adapt_ms", "interval_error"],
        refit=False,
    )
    for trial in tuned.study.trials:
        error, milliseconds, calibration = trial.values
        assert error > 0
        assert milliseconds > 0
        assert 0 <= calibration <= 1


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


def test_a_classifier_is_judged_by_log_loss() -> None:
    X, y, groups = make_sinusoid(n_tasks=40, n_points=8, random_state=0)
    model = MetaClassifier(max_steps=1, random_state=0, verbose=False)
    tuned = tune(
        model, X, y > 0, groups=groups, n_trials=1, cv=2, space=["learning_rate"], refit=False
    )
    assert tuned.study.metric_names == ["log_loss"]
    assert 0 < tuned.value < 5


def test_a_scorer_of_ones_own_is_maximised() -> None:
    scored = search(scoring=KShotScorer(shots=(3,)))
    assert scored.study.directions[0].name == "MAXIMIZE"
    assert scored.value < 0


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
    kept = {"storage": tmp_path / "s.db", "study_name": "a"}

    class Stopped(TaskRidge):
        def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
            raise KeyboardInterrupt

    Stopped.__name__ = "TaskRidge"  # the study is about this model
    search(n_trials=1, **kept)
    for _ in range(4):  # more often than workers may be lost
        with pytest.raises(KeyboardInterrupt):
            search(n_trials=3, estimator=Stopped(score_shots=(3,)), **kept)
    assert drawn(search(n_trials=3, **kept).study) == drawn(search(n_trials=3).study)


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
            ({"space": lambda trial: 1.0}, "a function returns a dict of parameters, not 1.0"),
            ({"space": {"penalty": (1.0, np.inf)}}, "is not finite"),
        ],
    )
    def test_what_is_of_the_wrong_kind(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            search(**settings)

    def test_other_data(self, tmp_path: Path) -> None:
        kept = {"storage": tmp_path / "s.db", "study_name": "a", "n_trials": 1}
        search(**kept)
        data = lines()
        data["y"][0] += 1
        with pytest.raises(StudyError, match="'a' was made for other data"):
            search(**kept, **data)
        with pytest.raises(StudyError, match="other folds"):
            search(**kept, cv=4)
        with pytest.raises(StudyError, match="other model"):
            search(**kept, estimator=TaskRidge(score_shots=(2,)))
        with pytest.raises(StudyError, match="other measures .rmse_macro there, mae_macro here"):
            search(**kept, scoring="mae_macro")

    def test_a_study_of_other_parameters(self, tmp_path: Path) -> None:
        kept = {"storage": tmp_path / "s.journal", "study_name": "a"}
        both = {**SPACE, "score_shots": [(3,), (2,)]}
        search(n_trials=1, space=both, **kept)
        for other in (SPACE, {**both, "score_shots": [(3,)]}, {**both, "penalty": [1.0]}):
            with pytest.raises(StudyError, match="trial 0 of the study searched penalty, score_sh"):
                search(n_trials=1, space=other, **kept)
        assert search(n_trials=2, space={**both, "penalty": (1.0, 2.0, "log")}, **kept).params

    def test_a_false_start_stands_in_nobodys_way(self, tmp_path: Path) -> None:
        kept = {"storage": tmp_path / "s.journal", "study_name": "a", "n_trials": 1}
        with pytest.raises(DataError, match="no row after the first 3"):
            search(**kept, **lines(n_rows=3))
        assert len(search(**kept).study.trials) == 1

    @pytest.mark.parametrize("score", [np.nan, "good", None])
    def test_a_scorer_that_returns_no_number(self, score: Any) -> None:
        with pytest.raises(DataError, match="for a block of held-out patients: it must return a"):
            search(scoring=lambda *_, **__: score)

    @pytest.mark.parametrize(
        ("storage", "message"),
        [
            ("no/such/folder/s.db", "needs a file in a folder that is there"),
            ("/dev/null/s.db", "needs a file in a folder that is there"),
            ("mysql://host/base", "kind 'mysql' is not served"),
            ("redis://host", "is not served"),
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
        with pytest.raises(DataError, match="rows of one patient into training and held-out"):
            search(cv=KFold(3, shuffle=True, random_state=0))

    def test_patients_with_too_few_rows(self) -> None:
        with pytest.raises(DataError, match="no row after the first 3"):
            search(**lines(n_rows=3))

    def test_what_is_no_estimator_over_tasks(self) -> None:
        with pytest.raises(DataError, match="estimator over tasks"):
            search(estimator=MAML())


class TestMetaSearchCV:
    def test_it_fits_what_it_found(self) -> None:
        data = lines()
        search = MetaSearchCV(ridge(), 4, space=SPACE, cv=3)
        assert clone(search).get_params()["n_trials"] == 4
        with pytest.raises(NotFittedError):
            search.predict(data["X"])
        search.fit(data["X"], data["y"], groups=data["groups"])
        assert search.best_estimator_.penalty == search.best_params_["penalty"]
        assert search.estimator.penalty == 10.0  # as it was
        results = search.cv_results_
        best = int(np.argmin(results["rank_test_score"]))
        assert results["mean_test_score"][best] == search.best_score_
        assert results["params"][best] == search.best_params_
        shown, asked = slice(0, 3), slice(3, 8)
        adapted = search.adapt(data["X"][shown], data["y"][shown])
        assert adapted.predict(data["X"][asked]).shape == (5,)
        assert search.score(data["X"], data["y"], groups=data["groups"]) > 0
        assert search.n_features_in_ == 1
        assert is_regressor(search)

    def test_at_the_end_of_a_pipeline(self) -> None:
        data = lines()
        pipeline = make_pipeline(StandardScaler(), MetaSearchCV(ridge(), 2, space=SPACE, cv=3))
        pipeline.fit(data["X"], data["y"], metasearchcv__groups=data["groups"])
        adapted = adapt(pipeline, data["X"][:3], data["y"][:3])
        assert np.isfinite(adapted.predict(data["X"][3:8])).all()

    def test_in_cross_validation(self) -> None:
        data = lines()
        frame = pd.DataFrame({"x": data["X"][:, 0], "patient": data["groups"]})
        search = MetaSearchCV(ridge(task="patient"), 2, space=SPACE, cv=3)
        folds = PatientKFold(2, random_state=0, task="patient")
        assert (cross_val_score(search, frame, data["y"], cv=folds) > 0).all()
