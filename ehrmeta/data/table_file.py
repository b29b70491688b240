"""Reading and writing of CSV and Parquet files."""

import os
import re
import secrets
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.lib import ArrowException

from ehrmeta.errors import DataError, DataWarning


def read_frame(path: str | Path, *, text: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a ``.csv`` or ``.parquet`` file.

    Parameters
    ----------
    path : str or Path
    text : tuple of str
        Columns of a CSV to read as text, so that the id ``007`` keeps its zeros.

    Raises
    ------
    DataError
        The file cannot be read, or has another suffix.
    """
    path = Path(path)
    suffix = _suffix(path)
    try:
        frame = pd.read_parquet(path) if suffix == ".parquet" else _read_csv(path, text)
    except OSError as error:
        reason = error.strerror or "it is damaged or not a parquet file"
        raise DataError(f"cannot read '{path}': {reason}. Check the path.") from error
    except (ValueError, ArrowException, pd.errors.ParserWarning) as error:
        reason = f"as {suffix[1:]}: {str(error).strip().rstrip('.')}"
        raise DataError(f"cannot read '{path}' {reason}. Check the file.") from error
    no_name = re.compile(r"Unnamed: \d+|\s*")  # such as row numbers written by to_csv
    unnamed = [n for n in frame.columns if no_name.fullmatch(str(n)) and n not in text]
    if unnamed:
        warnings.warn(
            f"'{path}': dropped unnamed column(s) {unnamed}, probably row numbers. Name them in "
            "the file to use them.",
            DataWarning,
            stacklevel=2,
        )
    return frame.drop(columns=unnamed)


def write_frame(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a ``.csv`` or ``.parquet`` file, whole or not at all.

    Raises
    ------
    DataError
        The file cannot be written, or has another suffix.
    """
    path = Path(path)
    suffix = _suffix(path)
    partial = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        write: Any = frame.to_parquet if suffix == ".parquet" else frame.to_csv
        write(partial, index=False)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write '{path}': {reason}. No file was changed.") from error
    finally:
        partial.unlink(missing_ok=True)


def _read_csv(path: Path, text: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV; rows longer than the header raise, which pandas would shift or truncate."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        types = dict.fromkeys(text, "str")
        frame = pd.read_csv(path, dtype=types, index_col=False, low_memory=False)
    if len(frame.columns) == 1 and ";" in frame.columns[0]:
        raise ValueError("columns are separated by semicolons; save it with commas")
    return frame


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DataError(
            f"'{path}': the suffix of a table must be .csv or .parquet. Rename or convert it."
        )
    return suffix
