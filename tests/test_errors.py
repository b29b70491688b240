import builtins
import copy

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError as SklearnNotFittedError

from ehrmeta import MetaRegressor, errors, make_sinusoid


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (errors.DataError, ValueError),
        (errors.CellError, TypeError),
        (errors.SchemaError, ValueError),
        (errors.GroupError, ValueError),
        (errors.NotFittedError, SklearnNotFittedError),
        (errors.DivergenceError, ArithmeticError),
        (errors.BundleError, ValueError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_every_error_is_ours_and_a_familiar_one(
    error: type[Exception], also: type[Exception]
) -> None:
    assert issubclass(error, errors.EhrmetaError)
    assert issubclass(error, also)


def test_everything_public_is_an_error_a_warning_or_a_hint() -> None:
    for name in set(errors.__all__) - {"Remedy", "did_you_mean"}:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.EhrmetaError | builtins.UserWarning)


def test_a_long_list_of_names_is_cut() -> None:
    hint = errors.did_you_mean("zzz", [f"column{i}" for i in range(40)])
    assert hint.endswith("'column11' ....")


REMEDY = errors.Remedy("open-with", "Open it with Adapted.load.", {"name": "Adapted"})


@pytest.mark.parametrize("kind", [errors.BundleError, errors.DataWarning, errors.MissingExtraError])
def test_a_remedy_is_a_sentence_in_python_and_stays_data(kind: type[Exception]) -> None:
    error = kind("It is adapted.", REMEDY)
    for same in (error, copy.copy(error), copy.deepcopy(error)):
        assert str(same) == "It is adapted. Open it with Adapted.load."
        assert same.args[1] == REMEDY


def test_an_error_of_one_text_is_that_text() -> None:
    assert str(errors.DataError("2 rows are missing.")) == "2 rows are missing."
    assert str(errors.DataError()) == ""


def test_a_warning_points_at_the_callers_own_line_however_deep_it_began() -> None:
    X, y, groups = make_sinusoid(n_tasks=3, n_points=4, random_state=0)
    time = np.append(np.arange(11.0), 1e5)
    calls = (
        lambda: MetaRegressor(max_steps=1).fit(X, y, groups=groups, time=time),
        lambda: errors.warn("from here", errors.DataWarning),
    )
    for call in calls:
        with pytest.warns(errors.DataWarning) as caught:
            call()
        assert {one.filename for one in caught} == {__file__}
