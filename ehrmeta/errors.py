"""The exception tree: every error of the package is an `EhrmetaError` and a built-in error too."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sklearn.exceptions import NotFittedError as _SklearnNotFittedError

__all__ = [
    "AtypicalWarning",
    "BundleError",
    "CellError",
    "DataError",
    "DataWarning",
    "DivergenceError",
    "EhrmetaError",
    "GroupError",
    "MemoryWarning",
    "MissingExtraError",
    "NotFittedError",
    "SchemaError",
    "StudyError",
    "did_you_mean",
]


class EhrmetaError(Exception):
    """Base of every error this package raises on purpose."""


class DataError(EhrmetaError, ValueError):
    """The values of a table cannot be used as they are."""


class CellError(DataError, TypeError):
    """A cell is neither text nor a number (a dict, a list, bytes)."""


class SchemaError(DataError):
    """A column is missing, misnamed, or has a role that does not fit."""


class GroupError(DataError):
    """The task ids (`groups`) are missing, too few, or unknown."""


class NotFittedError(EhrmetaError, _SklearnNotFittedError):
    """The estimator was used before `fit`."""


class DivergenceError(EhrmetaError, ArithmeticError):
    """Training or adaptation left the finite numbers."""


class BundleError(EhrmetaError, ValueError):
    """A model file is damaged, of another format, or does not fit."""


class StudyError(EhrmetaError, ValueError):
    """A study of hyper-parameters cannot be opened, or was made for something else."""


class MissingExtraError(EhrmetaError, ImportError):
    """An optional dependency is needed; the message names the pip command."""


class DataWarning(UserWarning):
    """Values were masked or rows were left out; the message counts them."""


class MemoryWarning(UserWarning):
    """A device's memory was full, so fewer tasks than planned are computed at once."""


class AtypicalWarning(DataWarning):
    """Adapted tasks are unlike the training tasks."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the names closest to `name`, as a sentence to end an error message with.

    Examples
    --------
    >>> did_you_mean("albumn", ["albumin", "age", "bili"])
    "Did you mean 'albumin'?"
    >>> did_you_mean("zzz", ["albumin", "age"])
    "Known: 'albumin', 'age'."
    >>> did_you_mean("zzz", [])
    'There are none.'
    """
    names = list(known)
    folded = {known.casefold(): known for known in names}
    close = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=3)]
    if close:
        return f"Did you mean {' or '.join(repr(n) for n in close)}?"
    if not names:
        return "There are none."
    shown = ", ".join(repr(n) for n in names[:12])
    return f"Known: {shown}{' ...' if len(names) > 12 else ''}."
