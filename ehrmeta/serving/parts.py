"""Parts of a large table, one file each: read in pieces of whole tasks, and written whole."""

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ehrmeta.data.columns import require_columns
from ehrmeta.data.table_file import SUFFIXES, escaped_cells, file_suffix, read_frame
from ehrmeta.errors import DataError
from ehrmeta.whole_file import replace_file

TEXT = SUFFIXES[:-1]
PART_SUFFIXES = (*SUFFIXES, ".arrow", ".feather")
ROWS_AT_ONCE = 100_000  # of a piece; a task with more rows is one piece
_MOST_UNSORTED = 20_000_000  # rows of a part whose tasks are not together, which is read at once


@dataclass(frozen=True)
class TaskScan:
    """The tasks of one part.

    Attributes
    ----------
    hashes : ndarray of uint64, (task,)
        Hashes of the ids as text, sorted.
    n_rows : int
    together : bool
        Whether the rows of every task follow each other.
    """

    hashes: NDArray[np.uint64]
    n_rows: int
    together: bool


def parts_of(folder: Path) -> list[Path]:
    """Files of a folder with the suffix of a table, sorted by name; hidden ones are left out."""
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}'. Pass the folder with the parts.")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] not in "._")
    parts = [path for path in files if path.name.lower().endswith(PART_SUFFIXES)]
    if not parts:
        raise DataError(
            f"'{folder}' has no file of a table. Parts are named *{', *'.join(PART_SUFFIXES)}."
        )
    return parts


def scan_tasks(path: Path, task: str, text: tuple[str, ...]) -> TaskScan:
    """Read the column of tasks of a part."""
    uniques: list[pd.Index] = []
    n_rows, n_runs, last = 0, 0, object()
    for frame in _batches(path, [task], text):
        require_columns(frame, [task])
        codes, ids = pd.factorize(frame[task])
        if not len(codes):
            continue
        cells = frame[task].iloc[[0, -1]].tolist()
        n_runs += int(np.count_nonzero(np.diff(codes))) + (cells[0] != last)
        n_rows, last = n_rows + len(codes), cells[-1]
        uniques.append(pd.Index(ids))
    names = np.unique(np.concatenate([_hashes(ids) for ids in uniques] or [np.empty(0, np.uint64)]))
    return TaskScan(names, n_rows, together=n_runs <= len(names))


def _hashes(ids: pd.Index) -> NDArray[np.uint64]:
    """Hashes of ids as text: the same for the same id in a CSV and in a parquet file."""
    texts = np.asarray(ids.astype(str), dtype=object)
    return np.asarray(pd.util.hash_array(texts, categorize=False))


def read_pieces(
    path: Path, columns: tuple[str, ...], task: str, text: tuple[str, ...], scan: TaskScan
) -> Iterator[pd.DataFrame]:
    """Rows of a part in pieces of whole tasks; the index counts the rows of the part."""
    if not scan.together and scan.n_rows > _MOST_UNSORTED:
        raise DataError(
            f"the rows of a task are not together, and {scan.n_rows:,} rows are too many to be "
            f"read at once. Sort the part by '{task}', or split it by task."
        )
    waiting: list[pd.DataFrame] = []
    at = 0
    frame = pd.DataFrame()
    for batch in _batches(path, list(columns), text):
        frame = batch.set_axis(pd.RangeIndex(at, at + len(batch)), axis=0)
        at += len(batch)
        if not len(frame):
            continue
        codes, _ = pd.factorize(frame[task])
        changes = np.flatnonzero(np.diff(codes)) + 1
        if scan.together and len(changes):
            waiting.append(frame[: changes[-1]])
            yield pd.concat(waiting)
            waiting = [frame[changes[-1] :]]
        elif scan.together and waiting and waiting[-1][task].iloc[-1] != frame[task].iloc[0]:
            yield pd.concat(waiting)
            waiting = [frame]
        else:
            waiting.append(frame)
    yield pd.concat(waiting) if waiting else frame


def _batches(path: Path, columns: list[str], text: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """Rows of a file in order, those of a CSV read at once; other columns are left out."""
    if path.name.lower().endswith(TEXT):
        frame = read_frame(path, text=text)
        frame = frame[[name for name in columns if name in frame]]
        for start in range(0, max(len(frame), 1), ROWS_AT_ONCE):
            yield frame[start : start + ROWS_AT_ONCE]
        return
    with _readable(path):
        for table in _arrow_tables(path, columns):
            yield table.to_pandas()


def _arrow_tables(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of a parquet or Arrow file, in tables of bounded length."""
    if path.name.lower().endswith(".parquet"):
        with pq.ParquetFile(path, memory_map=False) as file:
            names = [name for name in columns if name in file.schema_arrow.names]
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
                yield pa.Table.from_batches([batch])
            if not file.metadata.num_rows:
                yield schema.empty_table()
        return
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        names = [name for name in columns if name in file.schema.names]
        yield file.schema.empty_table().select(names)
        for i in range(file.num_record_batches):
            table = pa.Table.from_batches([file.get_batch(i)]).select(names)
            for start in range(0, table.num_rows, ROWS_AT_ONCE):
                yield table.slice(start, ROWS_AT_ONCE)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A `DataError` without any value of the file, if it cannot be read."""
    try:
        yield
    except (OSError, pa.ArrowException, EOFError) as error:
        reason = getattr(error, "strerror", None) or f"it is damaged or not a {path.suffix} file"
        raise DataError(f"cannot read it: {reason}. Check the file.") from error


def write_pieces(path: Path, pieces: Iterable[pd.DataFrame], mode: int) -> int:
    """Write frames of the same columns to one file, whole or not at all; the number of rows."""
    n_rows = 0

    def write(temporary: Path) -> None:
        nonlocal n_rows
        frames, empty = iter(pieces), pd.DataFrame()
        for first in frames:  # the types of the columns are those of the first rows
            if len(first):
                break
            empty = first
        else:
            first = empty
        write_all = _write_text if file_suffix(path, PART_SUFFIXES) in TEXT else _write_arrow
        n_rows = write_all(path, temporary, chain([first], frames))

    try:
        replace_file(path, write, mode)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write '{path}': {reason}. No file was changed.") from error
    return n_rows


def _write_text(path: Path, temporary: Path, frames: Iterable[pd.DataFrame]) -> int:
    """Write a CSV, with the separator and the compression of its name."""
    suffix, n_rows = file_suffix(path, TEXT), 0
    opened: Any = gzip.open if suffix.endswith(".gz") else open
    with opened(temporary, "wt", encoding="utf-8", newline="") as text:
        for i, frame in enumerate(frames):
            cells = escaped_cells(frame, path)
            cells.to_csv(text, index=False, header=i == 0, sep="\t" if ".tsv" in suffix else ",")
            n_rows += len(frame)
    return n_rows


def _write_arrow(path: Path, temporary: Path, frames: Iterable[pd.DataFrame]) -> int:
    """Write a parquet or an Arrow file."""
    writer: Any = None
    n_rows = 0
    try:
        for frame in frames:
            if writer is None:
                schema = pa.Schema.from_pandas(frame, preserve_index=False)
                is_parquet = path.name.lower().endswith(".parquet")
                opened = pq.ParquetWriter if is_parquet else pa.ipc.new_file
                writer = opened(str(temporary), schema)
            writer.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))
            n_rows += len(frame)
    finally:
        if writer is not None:
            writer.close()
    return n_rows
