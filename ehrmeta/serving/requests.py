"""Requests for predictions: their limits, their form, and their rows as columns."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrmeta.data.schema import Schema
from ehrmeta.errors import DataError

_KEYS = {"support", "query", "confidence_level"}
_LARGEST = 2**63
Row = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What a request may hold at most.

    Parameters
    ----------
    n_bytes : int
        Of the body, checked before it is parsed.
    n_rows : int
        Of support and query together.
    """

    n_bytes: int = 1 << 20
    n_rows: int = 10_000


@dataclass(frozen=True)
class Request:
    """The rows of one request.

    Attributes
    ----------
    support, query : list of dict
        Rows by column; those of the support have an outcome.
    confidence_level : float
    """

    support: list[Row]
    query: list[Row]
    confidence_level: float = 0.9

    @classmethod
    def from_json(cls, body: bytes, schema: Schema, limits: Limits) -> Request:
        """Parse a body.

        Raises
        ------
        DataError
            The body is no such request; the message holds none of its values.
        """
        try:
            parsed = json.loads(body, parse_constant=_refuse_constant)
        except DataError:
            raise
        except (ValueError, RecursionError) as error:
            raise DataError("the body is not valid JSON in UTF-8. Send one object.") from error
        if not isinstance(parsed, dict):
            raise DataError("the body must be an object with 'query' and, optionally, 'support'.")
        if unknown := parsed.keys() - _KEYS:
            raise DataError(
                f"the body has {len(unknown)} unknown keys. Its keys are "
                f"{', '.join(sorted(_KEYS))}."
            )
        support, query = (_rows(parsed.get(name, []), name) for name in ("support", "query"))
        if not query:
            raise DataError("'query' has no rows. Pass one row per prediction.")
        if len(support) + len(query) > limits.n_rows:
            raise DataError(
                f"the request has {len(support) + len(query):,} rows; the limit is "
                f"{limits.n_rows:,}. Send several requests."
            )
        level = parsed.get("confidence_level", 0.9)
        if type(level) not in (int, float) or not 0.0 < level < 1.0:
            raise DataError("confidence_level must be a number between 0 and 1.")
        _check_columns(support, query, schema)
        return cls(support, query, float(level))


def _refuse_constant(_text: str) -> None:
    raise DataError("the body holds NaN or Infinity, which JSON does not have. Write null.")


def _rows(rows: Any, name: str) -> list[Row]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"'{name}' must be a list of objects, one per row.")
    return rows


def _check_columns(support: list[Row], query: list[Row], schema: Schema) -> None:
    """Raise if a row has an unknown column or a cell that is no value."""
    known, outcome = set(schema.columns), str(schema.outcome and schema.outcome.name)
    for name, rows in (("support", support), ("query", query)):
        for number, row in enumerate(rows):
            if not row.keys() <= known:
                raise DataError(
                    f"row {number} of '{name}' has {len(row.keys() - known)} columns that the "
                    f"model does not know. Its columns are {', '.join(schema.columns)}."
                )
            for cell in row.values():
                if isinstance(cell, dict | list):
                    raise DataError(f"row {number} of '{name}' has a cell that is no value.")
                if type(cell) is int and abs(cell) >= _LARGEST:
                    raise DataError(
                        f"row {number} of '{name}' has a whole number of more than 63 bits. Send "
                        "ids as text."
                    )
            if row.get(outcome) is None and name == "support":
                raise DataError(
                    f"row {number} of 'support' has no '{outcome}'. Pass rows to predict in "
                    "'query'."
                )
            if row.get(outcome) is not None and name == "query":
                raise DataError(
                    f"row {number} of 'query' has a value of '{outcome}'. Pass rows with one in "
                    "'support'."
                )


def numbers(rows: list[Row], name: str) -> NDArray[np.float64] | None:
    """A column of numbers, NaN where it is null or absent; None if a cell is no number.

    Examples
    --------
    >>> numbers([{"age": 50}, {"age": None}, {}], "age")
    array([50., nan, nan])
    >>> numbers([{"age": "50"}], "age") is None
    True
    """
    cells = [row.get(name) for row in rows]
    if not {type(cell) for cell in cells} <= {int, float, type(None)}:
        return None
    try:
        values = np.array(cells, dtype=np.float64)
    except OverflowError:
        return None
    return None if np.isinf(values).any() else values


def texts(rows: list[Row], name: str, known: Container[str]) -> NDArray[Any] | None:
    """A column of known levels, (row,); None if a cell is none of them."""
    cells = [row.get(name) for row in rows]
    if not all(type(cell) is str and cell in known for cell in cells):
        return None
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column
