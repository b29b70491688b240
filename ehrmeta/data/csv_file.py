"""CSV files as hospitals export them: encoding, separator and decimal comma are detected."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pandas as pd

from ehrmeta.errors import DataWarning, Remedy, SchemaError, warn

_SAMPLE = 1 << 16  # characters from which the separator is detected
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_MARKS = {  # byte order marks
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_COMMA = r"\s*[<>]?=?\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*"  # 3,5 and <0,5
_POINT = r"\s*[<>]?=?\s*[+-]?\d[\d.]*\.\d+(?:,\d+)?\s*"
_GROUPED = r"\s*[+-]?[1-9]\d{0,2}(?:,\d{3})+\s*"  # 1,234: a decimal or thousands
# What words of other languages look like in the encoding of Western European Windows
_WORDS = {
    "cp1250": re.compile(r"[^\W\d_][³¹¿](?=[^\W\d_])|(?<!\S)[£¯][^\W\d_]"),  # Polish
    "cp1253": re.compile(r"[à-þ][Ü-ß][à-þ]"),  # Greek
    "cp1251": re.compile(r"(?<![^\W\d_])[À-ÿ]{3,}(?![^\W\d_])"),  # Cyrillic
}
_DATE = r"\s*\d{1,2}\.\d{1,2}\.\d{2,4}.*"


@dataclass(frozen=True)
class CsvForm:
    """Format of a CSV file.

    Attributes
    ----------
    encoding, separator : str
    n_skipped : int
        Lines before the header: 1 with ``sep=;``, as spreadsheets write it.
    """

    encoding: str
    separator: str
    n_skipped: int = 0

    @classmethod
    def detect(cls, path: Path, sep: str | None = None, encoding: str | None = None) -> CsvForm:
        """Detect the format of a file, except for the parts given as arguments."""
        encoding = encoding or _detect_encoding(path)
        with _open_text(path, encoding) as file:
            sample = file.read(_SAMPLE)
        first = re.match(r'"?sep=(.?)"?\s*\n', sample, flags=re.IGNORECASE)
        if first:
            return cls(encoding, sep or first[1], 1)
        return cls(encoding, sep or _detect_separator(sample))

    def rows(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Header and rows, each with the line of the file where it begins, counted from 1."""
        with _open_text(path, self.encoding) as file:
            for _ in range(self.n_skipped):
                file.readline()
            reader, line = csv.reader(file, delimiter=self.separator), 1 + self.n_skipped
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1 + self.n_skipped

    def read(self, path: Path, text: tuple[str, ...], decimal: str) -> pd.DataFrame:
        """Rows longer than the header raise an error; pandas would shift or cut them."""
        rows = self.rows(path)
        (_, header), (line, first) = next(rows, (0, [])), next(rows, (0, []))
        if len(first) > len(header) == 1:
            raise ValueError(
                f"its first line has one cell, line {line} has {len(first)}. Delete the lines "
                "above the names of the columns"
            )
        with warnings.catch_warnings(), open_bytes(path) as file:
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                file,
                sep=self.separator,
                decimal=decimal,
                encoding=self.encoding,
                skiprows=self.n_skipped,
                dtype=dict.fromkeys(text, "str"),
                index_col=False,
                low_memory=False,
            )


def read_csv(
    path: Path, text: tuple[str, ...], sep: str | None, decimal: str | None, encoding: str | None
) -> pd.DataFrame:
    """Read a CSV file; a warning names an unusual encoding, separator or decimal mark.

    Parameters are those of `read_frame`. A column named twice is an error: pandas would rename the
    second ``hdl`` to ``hdl.1``, a feature that copies the outcome.
    """
    form = CsvForm.detect(path, sep, encoding)
    frame = form.read(path, text, decimal or ".")
    _, header = next(form.rows(path))
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise SchemaError(
            f"'{path}' has more than one column {repeated}. Rename or remove the others."
        )
    unusual = []
    if encoding is None and not form.encoding.startswith("utf-8"):
        unusual.append(f"encoding {form.encoding}")
    if sep is None and form.separator != ("\t" if ".tsv" in path.name.lower() else ","):
        unusual.append(f"separated by {_SEPARATORS.get(form.separator, repr(form.separator))}")
    if decimal is None and _has_decimal_commas(frame, text):
        frame, decimal = form.read(path, text, ","), ","
        unusual.append("decimal commas")
    if unusual:
        remedy = Remedy("other-form", "Pass encoding=, sep= or decimal= if this is wrong.")
        message = f"'{path}' is read as: {', '.join(unusual)}."
        warn(DataWarning(message, remedy))
    return _with_points(frame, text, path) if decimal == "," else frame


def open_bytes(path: Path) -> BinaryIO:
    """Open a file, unpacked if its name ends in ``.gz``."""
    return cast(BinaryIO, gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb"))


def _open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    codecs.lookup(encoding)  # raises before the file is open
    return io.TextIOWrapper(open_bytes(path), encoding, newline="")


def _detect_encoding(path: Path) -> str:
    """UTF-16 and UTF-8 if the bytes are valid, else that of Windows for the likely language."""
    with open_bytes(path) as file:
        start = file.read(1 << 12)
        for mark, encoding in _MARKS.items():
            if start.startswith(mark):
                return encoding
        if b"\0" in start:
            return "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
    for encoding in ("utf-8", "cp1252", "cp1250"):
        with _open_text(path, encoding) as file, suppress(UnicodeDecodeError):
            sample = text = file.read(1 << 20)
            while text:
                text = file.read(1 << 20)
            if encoding != "cp1252":
                return encoding
            likely = (name for name, words in _WORDS.items() if words.search(sample))
            return next(likely, encoding)
    return "latin-1"


def _detect_separator(sample: str) -> str:
    """Separator that gives most lines as many cells as the header, which needs at least two."""
    best, chosen = (0.0, 0), ","
    lines = sample.splitlines(keepends=True)
    whole = lines[:-1] if len(sample) == _SAMPLE else lines
    for separator in _SEPARATORS:
        widths = [len(row) for row in csv.reader(whole, delimiter=separator) if row]
        if widths and widths[0] > 1:
            fit = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
            if fit > best:
                best, chosen = fit, separator
    return chosen


def _text_columns(frame: pd.DataFrame, text: tuple[str, ...]) -> Iterator[tuple[int, pd.Series]]:
    """Position and cells of the columns that hold text, except those read as `text`."""
    for i, name in enumerate(frame.columns):
        cells = frame.iloc[:, i]
        if name not in text and not pd.api.types.is_numeric_dtype(cells):
            yield i, cells.dropna().astype("str")


def _has_decimal_commas(frame: pd.DataFrame, text: tuple[str, ...]) -> bool:
    """Whether a column holds numbers with decimal commas; raises if they may be thousands."""
    n_commas = n_grouped = 0
    names = []
    for i, cells in _text_columns(frame, text):
        commas = cells.str.fullmatch(_COMMA)
        n_numbers = int((commas | cells.str.fullmatch(r"\s*[+-]?\d+\s*")).sum())
        if commas.any() and 2 * n_numbers >= len(cells):
            names.append(str(frame.columns[i]))
            n_commas += int(commas.sum())
            n_grouped += int(cells.str.fullmatch(_GROUPED).sum())
    if n_commas and n_grouped == n_commas:
        raise ValueError(
            f"{n_commas:,} cells of {names} are written as 1,234, which may be a decimal or "
            "thousands. Write them with a point or without a comma"
        )
    return n_commas > 0


def _with_points(frame: pd.DataFrame, text: tuple[str, ...], path: Path) -> pd.DataFrame:
    """Replace decimal commas by points in other cells, such as ``<0,5``.

    A warning names columns of numbers with points, which may hold thousands or codes.
    """
    frame, pointed = frame.copy(), []
    for i, cells in list(_text_columns(frame, text)):
        commas = cells.str.fullmatch(_COMMA)
        points = cells.str.fullmatch(_POINT) & ~cells.str.fullmatch(_DATE)
        if points.any() and 2 * int((points | commas).sum()) >= len(cells):
            pointed.append(frame.columns[i])
        elif commas.any():
            column = frame.iloc[:, i].astype("str").copy()
            column[cells.index[commas]] = cells[commas].str.replace(",", ".")
            frame.isetitem(i, column)
    if pointed:
        remedy = Remedy(
            "one-decimal", "Write one form of numbers, or name the decimal by decimal=."
        )
        warn(
            DataWarning(
                f"'{path}': column(s) {pointed} hold numbers with decimal points in a file with "
                "decimal commas: they are read as text.",
                remedy,
            )
        )
    return frame
