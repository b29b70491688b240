"""A search space in the words of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ehrmeta.errors import DataError

__all__ = ["space_of_words"]

_WORDS = {"true": True, "false": False, "none": None}


def space_of_words(searched: Sequence[str]) -> dict[str, Any] | None:
    """``NAME``, ``NAME=LOW:HIGH``, ``NAME=LOW:HIGH:log`` and ``NAME=A,B`` as a space.

    Raises
    ------
    DataError
        Nothing follows an equals sign.

    Examples
    --------
    >>> space_of_words(["width=16:64:log", "backbone__hidden=32,64x64", "n_deep"])
    {'width': (16, 64, 'log'), 'backbone__hidden': [32, (64, 64)], 'n_deep': None}
    """
    space: dict[str, Any] = {}
    for one in searched:
        name, sign, text = one.partition("=")
        ends = text.split(":")
        if not sign:
            space[name] = None
        elif not text:
            raise DataError(f"'{one}' has no range: write {name}=LOW:HIGH or {name}=A,B.")
        elif len(ends) == 1:
            space[name] = [_value(word) for word in text.split(",")]
        else:
            space[name] = (*map(_value, ends[:2]), *ends[2:])
    return space or None


def _value(text: str) -> Any:
    """A number, True, False or None where the text is one; ``64x64`` is (64, 64)."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    widths = text.split("x")
    if len(widths) > 1 and all(width.isdigit() for width in widths if width):
        return tuple(int(width) for width in widths if width)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
