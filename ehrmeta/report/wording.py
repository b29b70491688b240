"""Numbers, intervals and outcomes as text, for reports and displays."""

import math
from typing import Any

from ehrmeta.data.schema import Schema


def outcome_label(schema: Schema | None) -> str:
    """Label and unit of the outcome."""
    if schema is None or schema.outcome is None:
        return "y"
    outcome = schema.outcome  # UCUM writes annotations that are not units in braces
    return with_unit(outcome.label or outcome.name, outcome.unit.strip("{}"))


def with_unit(text: str, unit: str) -> str:
    """Text followed by a unit in brackets, if there is one."""
    return f"{text} [{unit}]" if unit else text


def number(value: float) -> str:
    """Format to three significant digits with trailing zeros; 1000 or more without decimals.

    Examples
    --------
    >>> number(9.6), number(0.01234), number(12345.6)
    ('9.60', '0.0123', '12,346')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def ranged(value: float, low: float, high: float, *, digits: int | None = None) -> str:
    """Format a value with its interval, all with the same number of decimals.

    Examples
    --------
    >>> ranged(9.648, 9.31, 10.02)
    '9.6 (9.3 to 10.0)'
    """
    if digits is None:
        digits = decimals(max(abs(value), abs(low), abs(high)))
    return f"{value:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def row_range(row: Any, digits: int = 2) -> str:
    """Format the value and interval of a row with `value`, `low` and `high`, which may be NaN."""
    if math.isnan(row["value"]):
        return "not defined"
    if math.isnan(row["low"]):
        return f"{row['value']:.{digits}f}"
    return ranged(row["value"], row["low"], row["high"], digits=digits)


def decimals(largest: float) -> int:
    """Number of decimals that give the largest of several values three significant digits.

    Examples
    --------
    >>> decimals(16.2), decimals(0.4), decimals(12345.0)
    (1, 3, 0)
    """
    if not 0.0 < largest < math.inf:
        return 2
    return max(0, 2 - math.floor(math.log10(largest)))
