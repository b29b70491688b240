"""Reading and writing of CSV and Parquet files."""

import csv
import re
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.lib import ArrowException

from ehrmeta.data.csv_file import read_csv
from ehrmeta.errors import DataError, DataWarning, Remedy, SchemaError, warn
from ehrmeta.whole_file import replace_file

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_WRITTEN = (".csv", ".parquet")
# Text that spreadsheets run, and text that was escaped; numbers such as -5 are harmless.
_NUMBER = r"[+-]?\d+(?:[.,]\d+)?$"
_FORMULA = rf"(?!{_NUMBER})'*[=+\-@\t\r\n]"
_ESCAPED = r"'+[=+\-@\t\r\n]"


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
    they are not commas (tabs in a ``.tsv``), points and UTF-8. The apostrophe that `write_frame`
    puts before a cell such as ``=1+1`` is taken away.

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
            pd.read_parquet(path)
            if is_parquet
            else _unescaped(read_csv(path, text, sep, decimal, encoding))
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
        warn(
            f"'{path}': dropped unnamed column(s) {unnamed}, probably row numbers. Name them in "
            "the file to use them.",
            DataWarning,
        )
    return frame.drop(columns=unnamed)


def write_frame(frame: pd.DataFrame, path: str | Path, *, mode: int = 0o600) -> None:
    r"""Write a ``.csv`` or ``.parquet`` file, whole or not at all.

    Spreadsheets run cells of a CSV that begin with ``=``, ``+``, ``-``, ``@``, a tab or a line end.
    Text that does, and is no number, is written with an apostrophe before it, with a `DataWarning`;
    `read_frame` takes it away.

    Parameters
    ----------
    frame : DataFrame
    path : str or Path
    mode : int
        Permissions; by default only the owner may read the file.

    Raises
    ------
    DataError
        The file cannot be written, or has another suffix.

    Examples
    --------
    >>> import tempfile, warnings
    >>> warnings.simplefilter("ignore", DataWarning)
    >>> path = Path(tempfile.mkdtemp(), "predictions.csv")
    >>> write_frame(pd.DataFrame({"patient": ["=1+1", "-5"]}), path)
    >>> path.read_text().split(), read_frame(path)["patient"].tolist()
    (['patient', "'=1+1", '-5'], ['=1+1', '-5'])
    """
    path = Path(path)
    suffix = file_suffix(path, _WRITTEN)
    write: Any = frame.to_parquet
    if suffix == ".csv":
        # By itself, pandas does not quote a cell with a line end of old Macs.
        texts = frame.select_dtypes(exclude="number").astype("str")
        has_line_end = any(texts[name].str.contains("\r").any() for name in texts)
        quoting = csv.QUOTE_NONNUMERIC if has_line_end else csv.QUOTE_MINIMAL
        write = partial(escaped_cells(frame, path).to_csv, quoting=quoting)
    try:
        replace_file(path, lambda temporary: write(temporary, index=False), mode)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write '{path}': {reason}. No file was changed.") from error


def escaped_cells(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Apostrophes before text that spreadsheets would run, with a warning."""
    names = frame.columns.astype("str")
    escaped = frame.set_axis(names.where(~names.str.match(_FORMULA), "'" + names), axis=1)
    counts = {}
    for i, name in enumerate(names):
        if pd.api.types.is_numeric_dtype(frame.dtypes.iloc[i]):
            continue
        cells = frame.iloc[:, i]
        text = cells.astype("str")
        formula = text.str.match(_FORMULA) & cells.notna()
        if formula.any():
            counts[name] = int(formula.sum())
            escaped.isetitem(i, cells.where(~formula, "'" + text))
    if counts:
        listed = ", ".join(f"'{name}': {count:,}" for name, count in counts.items())
        warn(
            f"'{path}': cells that a spreadsheet would run as formulas are written with an "
            f"apostrophe before them ({listed}). ehrmeta reads them without it; write .parquet to "
            "keep them as they are for others.",
            DataWarning,
        )
    return escaped


def _unescaped(frame: pd.DataFrame) -> pd.DataFrame:
    """The inverse of `escaped_cells`."""
    names = frame.columns.astype("str")
    frame = frame.set_axis(names.where(~names.str.match(_ESCAPED), names.str[1:]), axis=1)
    for i in range(len(names)):
        cells = frame.iloc[:, i]
        if pd.api.types.is_numeric_dtype(cells):
            continue
        escaped = cells.astype("str").str.match(_ESCAPED) & cells.notna()
        if escaped.any():
            frame.isetitem(i, cells.where(~escaped, cells.astype("str").str[1:]))
    return frame


def file_suffix(path: Path, allowed: tuple[str, ...] = SUFFIXES) -> str:
    """The suffix of a table's file in lower case; raises if it is not allowed."""
    name = path.name.lower()
    for suffix in allowed:
        if name.endswith(suffix) and name != suffix:
            return suffix
    listed = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
    raise DataError(f"'{path}': the suffix of a table must be {listed}. Rename or convert it.")
