"""A study of hyper-parameters as pictures in a folder."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from ehrmeta.errors import StudyError
from ehrmeta.report import save_study_pictures
from ehrmeta.tuning.comparison import FIRST_FOLD
from tests.tuning.small import SPACE, Fragile, search


@pytest.fixture(scope="module")
def study() -> Any:
    space = {**SPACE, "score_shots": [(3,), (2,)]}
    return search(estimator=Fragile(), space=space, n_trials=30, random_state=3).study


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
