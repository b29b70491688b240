"""Exceptions and warnings: every error is an `EhrmetaError` and also a built-in error.

The remedy is stored as data, a `Remedy`, which the command line replaces by its options.
"""

import difflib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, TypeVar

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
    "Remedy",
    "RenamedWarning",
    "SchemaError",
    "StudyError",
    "did_you_mean",
]

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
_INSIDE = ("ehrmeta.", "contextlib")  # modules whose lines no warning names


@dataclass(frozen=True)
class Remedy:
    """How to fix the cause of an error, a warning or a finding.

    Attributes
    ----------
    kind : str
        Key by which the command line finds its text.
    words : str
        A sentence for callers in Python.
    values : mapping of str to str
        Values to insert into the text: a column, a class.

    Examples
    --------
    >>> error = DataError("2 rows are missing.", Remedy("drop", "Pass drop=True."))
    >>> str(error), error.args[1].kind
    ('2 rows are missing. Pass drop=True.', 'drop')
    """

    kind: str
    words: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.words


class _Message(Exception):  # noqa: N818 - the base of errors and warnings alike
    """An error or a warning whose arguments are text, remedies or findings."""

    def __str__(self) -> str:
        return " ".join(map(str, self.args))


class EhrmetaError(_Message):
    """Base of all errors that this package raises on purpose."""


class DataError(EhrmetaError, ValueError):
    """The values of a table, or other arguments, cannot be used."""


class CellError(DataError, TypeError):
    """A cell is neither text nor a number (a dict, a list, bytes)."""


class SchemaError(DataError):
    """A column is missing, misnamed, or has a role that does not fit."""


class GroupError(DataError):
    """The task ids (`groups`) are missing, too few, or unknown."""


class NotFittedError(EhrmetaError, _SklearnNotFittedError):
    """The estimator was used before `fit`."""


class DivergenceError(EhrmetaError, ArithmeticError):
    """Training or adaptation produced numbers that are not finite."""


class BundleError(EhrmetaError, ValueError):
    """A model file is damaged, of another format, or does not fit."""


class StudyError(EhrmetaError, ValueError):
    """A study of hyper-parameters cannot be opened, or was created for other data or settings."""


class MissingExtraError(EhrmetaError, ImportError):
    """An optional dependency is missing; the message has the pip command."""


class DataWarning(_Message, UserWarning):
    """Values were masked or rows were dropped; the message counts them."""


class MemoryWarning(_Message, UserWarning):
    """A device ran out of memory, so fewer tasks than planned are computed at once."""


class AtypicalWarning(DataWarning):
    """Adapted tasks are unlike the training tasks."""


class RenamedWarning(_Message, UserWarning):
    """An argument or a method has a new name; the old one works for one more release."""


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """Warn at the line of the caller's own code: the first frame outside this package."""
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, category, stacklevel=stacklevel)


def warn_renamed(old: str, instead: str) -> None:
    """Warn that a name is deprecated, and name its replacement."""
    message = f"{old} has a new name: {instead}. The old one works for one more release."
    warn(message, RenamedWarning)


def renamed_argument(
    old: str, new: str
) -> Callable[[Callable[Arguments, Value]], Callable[Arguments, Value]]:
    """Decorator of functions that still take a keyword argument under its deprecated name."""

    def decorate(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
        @wraps(function)
        def renamed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
            if old in kwargs:
                warn_renamed(f"{old}=", f"pass {new}=")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return renamed

    return decorate


def renamed_parameter(old: str, new: str) -> Callable[[type[Value]], type[Value]]:
    """Decorator of classes that can still be made with a parameter under its deprecated name."""

    def decorate(cls: type[Value]) -> type[Value]:
        cls.__init__ = renamed_argument(old, new)(cls.__init__)  # type: ignore[method-assign]
        return cls

    return decorate


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Names closest to `name`, as a sentence at the end of an error message.

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
