"""Reading and writing of CSV and Parquet files."""

import os
import re
import secrets
import warnings
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.lib import ArrowException

from ehrmeta.data.csv_file import read_csv
from ehrmeta.errors import DataError, DataWarning, Remedy, SchemaError

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_WRITTEN = (".csv", ".parquet")


def read_frame(
    path: str | Path,
    *,
    text: tuple[str, ...] = (),
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> pd.DataFrame:
    r"""Read a ``.csv``, ``.tsv`` or ``.parquet`` file; the first two may end in ``.gz``, too.

    Separator, decimal comma and encoding of a CSV are detected. A `DataWarning` names them where
    they are not commas (tabs in a ``.tsv``), points and UTF-8.

    Parameters
    ----------
    path : str or Path
    text : tuple of str
        Columns of a CSV to read as text, so that the id ``007`` keeps its zeros.
    sep : str, optional
        Separator of a CSV: ``","``, ``";"``, ``"\t"`` or another character.
    decimal : {".", ","}, optional
        Decimal separator of a CSV.
    encoding : str, optional
        Encoding of a CSV, such as ``"utf-8"``, ``"utf-16"`` or ``"cp1252"``.

    Raises
    ------
    DataError
        The file cannot be read, has another suffix, or names a column twice.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "visits.csv")
    ...     _ = path.write_text("patient;hdl\n007;48,5\n012;51\n")
    ...     read_frame(path, text=("patient",), sep=";", decimal=",")
      patient   hdl
    0     007  48.5
    1     012  51.0
    """
    path = Path(path)
    suffix = file_suffix(path)
    try:
        is_parquet = suffix == ".parquet"
        frame = (
            pd.read_parquet(path) if is_parquet else read_csv(path, text, sep, decimal, encoding)
        )
    except SchemaError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or f"it is damaged or not a {suffix[1:]} file"
        raise DataError(f"cannot read '{path}': {reason}. Check the path.") from error
    except LookupError as error:
        known = "Use a name such as utf-8, utf-16, cp1252 or latin-1."
        raise DataError(f"cannot read '{path}': {error}. {known}") from error
    except UnicodeError as error:
        reason = f"its bytes are not {encoding}"
        raise DataError(
            f"cannot read '{path}': {reason}.",
            Remedy("other-encoding", "Pass another encoding=, or leave it out."),
        ) from error
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
    suffix = file_suffix(path, _WRITTEN)
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


def file_suffix(path: Path, allowed: tuple[str, ...] = SUFFIXES) -> str:
    """The suffix of a table's file in lower case; raises if it is not allowed."""
    name = path.name.lower()
    for suffix in allowed:
        if name.endswith(suffix) and name != suffix:
            return suffix
    listed = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
    raise DataError(f"'{path}': the suffix of a table must be {listed}. Rename or convert it.")
