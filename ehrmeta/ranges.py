"""Search ranges of hyper-parameters, declared in type annotations, and checks of levels.

``inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.1`` has type, range, scale and default.
Tuner, command line and docs read them from there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from inspect import signature
from numbers import Integral
from typing import Any, get_type_hints

from ehrmeta.errors import DataError


def check_level(confidence_level: float) -> float:
    """The level itself, or an error unless it lies strictly between 0 and 1."""
    if not 0.0 < confidence_level < 1.0:
        raise DataError(
            f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
        )
    return confidence_level


@dataclass(frozen=True)
class Range:
    """A range of numbers, ends included; of integers if both ends are integers.

    Parameters
    ----------
    low, high : int or float
    log : bool
        Search on a log scale, as for rates and penalties.
    when : mapping, optional
        Values of other parameters of the class for which this one is used.

    Examples
    --------
    >>> Range(1, 5).kind, Range(1e-3, 1.0, log=True).kind
    ('int', 'float')
    """

    low: float
    high: float
    log: bool = False
    when: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise an error unless the range is finite and not empty."""
        ends = f"the range from {self.low} to {self.high}"
        if not all(map(math.isfinite, (self.low, self.high))):
            raise DataError(f"{ends} is not finite: pass finite ends.")
        if not self.low < self.high:
            raise DataError(f"{ends} is empty: low must be below high.")
        if self.log and self.low <= 0:
            raise DataError(f"the range from {self.low} cannot be on a log scale: start above 0.")

    @property
    def kind(self) -> str:
        """``"int"`` or ``"float"``."""
        whole = isinstance(self.low, Integral) and isinstance(self.high, Integral)
        return "int" if whole else "float"

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", log scale" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """A choice of values: numbers, text, tuples, or estimator parts such as ``MAML()``.

    Parameters
    ----------
    values : tuple
    when : mapping, optional
        As in `Range`.

    Examples
    --------
    >>> Choice(((32,), (64, 64))).labels
    ('(32,)', '(64, 64)')
    """

    values: tuple[Any, ...]
    when: Mapping[str, Any] = field(default_factory=dict)

    kind = "choice"

    def __post_init__(self) -> None:
        """Raise an error if the choice is empty or repeats a label."""
        if not self.values:
            raise DataError("the choice is empty: pass at least one value.")
        if len(set(self.labels)) < len(self.labels):
            raise DataError(
                f"the choice repeats a value: {', '.join(self.labels)}. Pass each value once."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """Each value as the text stored in a study; an estimator part by its class name."""
        classes = [type(value).__name__ for value in self.values]
        return tuple(
            name if hasattr(value, "get_params") and classes.count(name) == 1 else str(value)
            for value, name in zip(self.values, classes, strict=True)
        )

    def __str__(self) -> str:
        return " | ".join(self.labels)


def declared_ranges(cls: type) -> dict[str, Range | Choice]:
    """Ranges declared for the parameters of a class and its base classes.

    Raises
    ------
    DataError
        An annotation uses a name that its module does not define.

    Examples
    --------
    >>> from typing import Annotated
    >>> class Ridge:
    ...     def __init__(self, penalty: Annotated[float, Range(1e-2, 1e2, log=True)] = 1.0):
    ...         self.penalty = penalty
    >>> {name: str(declared) for name, declared in declared_ranges(Ridge).items()}
    {'penalty': '0.01 to 100, log scale'}
    """
    ranges: dict[str, Range | Choice] = {}
    for base in reversed(cls.__mro__):
        if "__init__" not in vars(base):
            continue
        # the __init__ of a dataclass has fields of classes from other modules
        source = base if is_dataclass(base) else vars(base)["__init__"]
        try:
            hints = get_type_hints(source, include_extras=True)
        except NameError as error:
            raise DataError(
                f"the annotations of {base.__name__} cannot be read: {error}. Import that name at "
                "the top of its module, not under TYPE_CHECKING."
            ) from error
        for name, hint in hints.items():
            for note in getattr(hint, "__metadata__", ()):
                if isinstance(note, Range | Choice):
                    ranges[name] = note
    return {name: ranges[name] for name in signature(cls).parameters if name in ranges}
