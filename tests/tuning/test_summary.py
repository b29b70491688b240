from pathlib import Path
from typing import Any

import optuna
import pytest

from ehrmeta import MLP, MetaRegressor
from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.errors import StudyError
from ehrmeta.ranges import declared_ranges
from ehrmeta.report import save_study_pictures
from ehrmeta.tuning.compared import FIRST_FOLD
from ehrmeta.tuning.summary import declared_table, study_summary
from tests.tuning.small import SPACE, Fragile
from tests.tuning.test_search import search


@pytest.fixture(scope="module")
def study() -> Any:
    space = {**SPACE, "score_shots": [(3,), (2,)]}
    return search(estimator=Fragile(), space=space, n_trials=30, random_state=3).study


def test_the_guide_shows_the_ranges_that_are_declared() -> None:
    parts = [MetaRegressor, MLP, *(c for c in ALGORITHMS.values() if declared_ranges(c))]
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text()
    assert declared_table(parts) in page


def test_the_summary_says_what_mattered(study: optuna.Study) -> None:
    text = study_summary(study)
    assert f"best of 30 trials: rmse_macro {study.best_value:.4g}" in text
    assert "because training diverged" in text
    assert "what mattered in the first fold" in text
    assert "penalty: " in text


def test_pictures_are_saved(study: optuna.Study, tmp_path: Path) -> None:
    saved = save_study_pictures(study, tmp_path / "pictures")
    assert [path.stem for path in saved] == ["history", "slice", "importance", "parallel"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved)


def test_more_objectives_than_a_picture_has_room_for(tmp_path: Path) -> None:
    study = optuna.create_study(directions=["minimize"] * 4)
    for error in (1.0, 2.0):
        ended = {"values": [error] * 4, "user_attrs": {FIRST_FOLD: error}}
        drawn = {"x": error}, {"x": optuna.distributions.FloatDistribution(0, 3)}
        trial = optuna.trial.create_trial(params=drawn[0], distributions=drawn[1], **ended)
        study.add_trial(trial)
    assert [path.stem for path in save_study_pictures(study, tmp_path)] == ["slice", "importance"]


def test_a_study_without_a_trial_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nothing to compare"):
        save_study_pictures(optuna.create_study(), tmp_path)
