from typing import Any

import optuna
import pytest

from ehrmeta import MAML, MLP, FineTune, MetaRegressor, MetaSGD
from ehrmeta.ranges import declared_ranges
from ehrmeta.tuning import read_space
from ehrmeta.tuning.summary import (
    declared_table,
    script_storage,
    space_table,
    study_script,
    study_summary,
)
from tests.tuning.small import SPACE, Fragile, search


@pytest.fixture(scope="module")
def study() -> Any:
    space = {**SPACE, "score_shots": [(3,), (2,)]}
    return search(estimator=Fragile(), space=space, n_trials=30, random_state=3).study


def test_the_table_of_ranges_has_a_row_for_every_parameter_with_a_range() -> None:
    rows = declared_table([MLP, MAML]).splitlines()
    assert len(rows) == 2 + len(declared_ranges(MLP)) + len(declared_ranges(MAML))
    assert "| `MAML` | `inner_steps` | 3 | 1 to 8 |  |" in rows


def test_the_summary_has_importances(study: optuna.Study) -> None:
    text = study_summary(study)
    assert f"best of 30 trials: rmse_macro {study.best_value:.4g}" in text
    assert "because training diverged" in text
    assert "importance in the first fold" in text
    assert "penalty: " in text


def test_the_script_of_a_search_is_python_and_holds_no_password() -> None:
    storage = script_storage("postgresql://me:secret@host/base")
    assert storage == "postgresql+psycopg://me@host/base"
    assert script_storage("a.journal") == "sqlite:///a.journal.db"
    model = MetaRegressor(MAML())
    space = read_space(model, {"algorithm": [MAML(), MetaSGD()], "learning_rate": None})
    text = study_script(
        space,
        table="Table.from_file('a.csv')",
        reader="from ehrmeta import Table",
        model=model,
        shots=(1, 3),
        metric="rmse_macro",
        folds=5,
        study="a",
        storage=storage,
        n_trials=3,
        seed=0,
    )
    compile(text, "search.py", "exec")
    assert "from ehrmeta import KShotScorer, MAML, MetaRegressor, MetaSGD" in text
    assert 'trial.suggest_categorical("algorithm", ["MAML", "MetaSGD"])' in text


def test_a_space_is_listed_with_defaults_and_conditions() -> None:
    model = MetaRegressor(FineTune(learn_inner_lr=False))
    rows = space_table(read_space(model), model).splitlines()
    assert rows[0].split() == ["parameter", "default", "search", "only", "when"]
    (row,) = [row for row in rows if row.startswith("algorithm__max_inner_lr")]
    assert row.endswith("algorithm__learn_inner_lr = True")
