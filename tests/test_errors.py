import builtins

import pytest
from sklearn.exceptions import NotFittedError as SklearnNotFittedError

from ehrmeta import errors


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
    for name in set(errors.__all__) - {"did_you_mean"}:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.EhrmetaError | builtins.UserWarning)


def test_a_long_list_of_names_is_cut() -> None:
    hint = errors.did_you_mean("zzz", [f"column{i}" for i in range(40)])
    assert hint.endswith("'column11' ....")
