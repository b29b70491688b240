"""Data frames in files, for the command line: CSV and parquet, chosen by the suffix."""

from __future__ import annotations

import os
import re
import secrets
import warnings
from pathlib import Path

import pandas as pd
from pyarrow.lib import ArrowException

from ehrmeta.errors import DataError, DataWarning

__all__ = ["read_frame", "write_frame"]


def read_frame(path: str | Path, *, text: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a ``.csv`` or ``.parquet`` file.

    Parameters
    ----------
    path : str or Path
    text : tuple of str
        Columns of a CSV to read as text, so that the id ``007`` stays what it is.

    Raises
    ------
    DataError
        The file cannot be read, or its suffix is another.
    """
    path = Path(path)
    suffix = _suffix(path)
    try:
        frame = pd.read_parquet(path) if suffix == ".parquet" else _read_csv(path, text)
    except OSError as error:
        reason = error.strerror or "it is no parquet file, or it is damaged"
        raise DataError(f"cannot read '{path}': {reason}. Check the path.") from error
    except (ValueError, ArrowException, pd.errors.ParserWarning) as error:
        kind = suffix[1:]
        reason = str(error).strip().rstrip(".")
        raise DataError(f"cannot read '{path}' as {kind}: {reason}. Check the file.") from error
    return _without_index(frame, path, text)


def write_frame(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a ``.csv`` or ``.parquet`` file, whole or not at all.

    Raises
    ------
    DataError
        The file cannot be written, or its suffix is another.
    """
    path = Path(path)
    suffix = _suffix(path)
    partial = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if suffix == ".parquet":
            frame.to_parquet(partial, index=False)
        else:
            frame.to_csv(partial, index=False)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write '{path}': {reason}. Nothing there was changed.") from error
    finally:
        partial.unlink(missing_ok=True)


def _read_csv(path: Path, text: tuple[str, ...]) -> pd.DataFrame:
    """A CSV whose rows must be no longer than its header: pandas would shift or cut them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(
            path, dtype=dict.fromkeys(text, "str"), index_col=False, low_memory=False
        )
    if len(frame.columns) == 1 and ";" in frame.columns[0]:
        raise ValueError("its columns are separated by semicolons; save it with commas")
    return frame


def _without_index(frame: pd.DataFrame, path: Path, text: tuple[str, ...]) -> pd.DataFrame:
    """Leave out columns without a name, such as the row numbers that pandas' to_csv writes."""
    nameless = [
        name
        for name in frame.columns
        if re.fullmatch(r"Unnamed: \d+|\s*", str(name)) and name not in text
    ]
    if nameless:
        warnings.warn(
            f"'{path}': column(s) {nameless} without a name left out, most likely row numbers. "
            "Name them in the file to use them.",
            DataWarning,
            stacklevel=3,
        )
    return frame.drop(columns=nameless)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DataError(
            f"'{path}': tables are .csv or .parquet files, by their suffix. Rename or convert it."
        )
    return suffix
