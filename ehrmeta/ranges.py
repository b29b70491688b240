"""Where to search for a hyper-parameter, declared beside its default.

``inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.1`` says it all: type, range, scale and
default. Tuner, command line and docs read it from there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from inspect import signature
from numbers import Integral
from typing import Any, get_type_hints

from ehrmeta.errors import DataError


@dataclass(frozen=True)
class Range:
    """A range of numbers, ends included; of whole numbers where both ends are whole.

    Parameters
    ----------
    low, high : int or float
    log : bool
        Search the exponent: for rates and penalties.
    when : mapping, optional
        Parameters beside this one and the value each must have for this one to matter.

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
        """Refuse what holds no number to draw."""
        ends = f"the range from {self.low} to {self.high}"
        if not all(map(math.isfinite, (self.low, self.high))):
            raise DataError(f"{ends} is not finite: name its ends.")
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
    """One of some values: numbers, words, tuples, or whole parts such as ``MAML()``.

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
        """Refuse an empty choice, and values that cannot be told apart."""
        if not self.values:
            raise DataError("the choice is empty: name at least one value.")
        if len(set(self.labels)) < len(self.labels):
            raise DataError(f"the choice repeats a value: {', '.join(self.labels)}.")

    @property
    def labels(self) -> tuple[str, ...]:
        """Each value as the short text that a study keeps; a part by the name of its class."""
        classes = [type(value).__name__ for value in self.values]
        return tuple(
            name if hasattr(value, "get_params") and classes.count(name) == 1 else str(value)
            for value, name in zip(self.values, classes, strict=True)
        )

    def __str__(self) -> str:
        return " | ".join(self.labels)


def declared_ranges(cls: type) -> dict[str, Range | Choice]:
    """The ranges declared beside the parameters of a class or of those that it derives from.

    Raises
    ------
    DataError
        An annotation names what is not defined where the class is.

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
        # a dataclass writes its __init__ from fields of classes of other modules too
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
