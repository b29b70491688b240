"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["number", "text_table"]


def text_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a heading in aligned columns: the first to the left, the others to the right.

    Examples
    --------
    >>> print(text_table(["method", "ms"], [["low rank", "31.20"], ["vmap", "387.00"]]))
    method        ms
    ----------------
    low rank   31.20
    vmap      387.00
    """
    lines = [list(heading), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    text = [
        "  ".join(
            word.rjust(width) if i else word.ljust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, with all digits before the point.

    Examples
    --------
    >>> number(0.012345), number(3.14159), number(12345.6), number(None)
    ('0.0123', '3.14', '12,346', '')
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    places = digits - 1 - int(f"{value:e}".partition("e")[2])
    return f"{value:,.{max(places, 0)}f}"
