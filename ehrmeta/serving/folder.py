"""Scoring of a folder: each part of a large table to a file of predictions of the same name."""

import hashlib
import json
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ehrmeta.data.schema import Schema
from ehrmeta.errors import DataError, DataWarning, EhrmetaError, warn
from ehrmeta.serving.columns import schema_of, text_columns
from ehrmeta.serving.parts import TaskScan, parts_of, read_pieces, scan_tasks, write_pieces
from ehrmeta.serving.score import load_once, score_partition
from ehrmeta.whole_file import replace_file

_RECORD = ".ehrmeta-score.json"
_ROW = re.compile(r"\b(rows?) (\d+)(?:( and |-)(\d+))?")


@dataclass(frozen=True)
class Scored:
    """The result of one part."""

    name: str
    n_rows: int = 0
    n_predictions: int = 0
    seconds: float = 0.0
    error: str = ""
    warnings: tuple[str, ...] = ()


@dataclass
class FolderScores:
    """What `score_folder` did.

    Attributes
    ----------
    scored : list of str
        Parts whose predictions were written.
    skipped : list of str
        Parts that were finished before.
    failed : dict of str to str
        Error by part; nothing was written for them.
    n_rows, n_predictions : int
        Over the parts that were scored.
    """

    scored: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    n_rows: int = 0
    n_predictions: int = 0


def score_folder(
    model: str | os.PathLike[str],
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    confidence_level: float = 0.9,
    mode: int = 0o600,
    progress: Callable[[str], object] = lambda line: None,
) -> FolderScores:
    """Score every part of a folder by `score_partition`, to a file of the same name.

    Each file of predictions is written whole or not at all. Files that are newer than their part
    are kept, so that the same call goes on after an interruption. All rows of a task must be in one
    part. Parts in parquet or Arrow whose tasks are together are read in pieces, so that memory does
    not grow with the part; CSV files are read at once.

    Parameters
    ----------
    model : path
        A file of a fitted or calibrated model.
    source : path
        Folder with the parts: .parquet, .arrow, .feather, .csv, .tsv, .csv.gz or .tsv.gz.
    out : path
        Folder to write to; created if there is none. It holds the predictions of one model.
    workers : int
        Processes.
    confidence_level : float, default 0.9
        Of the intervals.
    mode : int
        Permissions of the files of predictions; by default only the owner may read them.
    progress : callable
        Called with a line after each part.

    Returns
    -------
    FolderScores
        Parts that were scored, skipped and failed. A part fails as a whole, and the others go on.

    Raises
    ------
    DataError
        A folder cannot be used, or `out` holds predictions of another model or level.

    Examples
    --------
    >>> import tempfile
    >>> from ehrmeta import MetaRegressor, Table
    >>> frame = pd.DataFrame({"patient": np.repeat(np.arange(40), 5), "age": 50.0})
    >>> frame["hdl"] = 40.0 + frame["patient"] + np.tile([-1.0, 1.0, 0.0, 1.0, -1.0], 40)
    >>> table = Table.from_frame(frame, task="patient", outcome="hdl")
    >>> model = MetaRegressor(max_steps=5, random_state=0).fit(
    ...     table.X, table.y, groups=table.groups
    ... )
    >>> folder = Path(tempfile.mkdtemp())
    >>> model.save(folder / "hdl.ehrmeta")
    >>> (folder / "in").mkdir()
    >>> rows = pd.DataFrame({"patient": ["a", "a"], "age": 50.0, "hdl": [70.0, None]})
    >>> rows.to_csv(folder / "in" / "1.csv", index=False)
    >>> score_folder(folder / "hdl.ehrmeta", folder / "in", folder / "out").scored
    ['1.csv']
    >>> pd.read_csv(folder / "out" / "1.csv").columns.tolist()
    ['patient', 'prediction', 'lower', 'upper']
    """
    source, out = Path(source), Path(out)
    if workers < 1:
        raise DataError(f"workers must be 1 or more, got {workers}.")
    parts = parts_of(source)
    fitted = load_once(model)
    schema = schema_of(fitted.unadapted().model, f"the model in '{model}'")
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    if out.samefile(source):
        raise DataError(f"'{out}' is the folder of the parts. Pass another folder to write to.")
    _check_record(out, model, confidence_level, mode)
    task, text, result = str(schema.task), text_columns(schema), FolderScores()
    score = partial(_score_part, str(model), out=out, level=confidence_level, mode=mode)
    with _pool(workers) as pool:
        scans = _scan(pool, parts, task, text, result)
        for part in [part for part in scans if _is_finished(part, out)]:
            result.skipped.append(part.name)
            del scans[part]
        shown: set[str] = set()
        for i, (name, done) in enumerate(_completed(pool, score, scans), 1):
            scored = _result(done, name)
            for text_of_warning in scored.warnings:
                kind = re.sub(r"[\d.,]+", "", text_of_warning)
                if kind not in shown:  # of the first part only: most parts have the same
                    shown.add(kind)
                    warn(f"{scored.name}: {text_of_warning}", DataWarning)
            progress(_add(result, scored, f"{i} of {len(scans)}"))
    return result


def _completed(
    pool: Executor, score: Callable[..., Scored], scans: dict[Path, TaskScan]
) -> Iterator[tuple[str, Future[Scored]]]:
    """Name and result of each part, as they are finished."""
    without = {part: replace(scan, hashes=scan.hashes[:0]) for part, scan in scans.items()}
    if isinstance(pool, _InProcess):
        yield from ((part.name, pool.submit(score, part, scan)) for part, scan in without.items())
        return
    running = {pool.submit(score, part, scan): part.name for part, scan in without.items()}
    yield from ((running[done], done) for done in as_completed(running))


def _add(result: FolderScores, scored: Scored, place: str) -> str:
    """Count a part, and a line on it."""
    if scored.error:
        result.failed[scored.name] = scored.error
        return f"{scored.name}: {scored.error} ({place})"
    result.scored.append(scored.name)
    result.n_rows += scored.n_rows
    result.n_predictions += scored.n_predictions
    counts = f"{scored.n_rows:,} rows, {scored.n_predictions:,} predictions"
    return f"{scored.name}: {counts}, {scored.seconds:.0f} s ({place})"


def _check_record(out: Path, model: Any, level: float, mode: int) -> None:
    """Raise if a folder holds predictions of another model or level; record those of this one."""
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    record = {"model_sha256": digest, "confidence_level": level}
    path = out / _RECORD
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"'{path}' is damaged. Pass an empty folder.") from error
        if before != record:
            raise DataError(
                f"'{out}' holds predictions of another model or confidence level. Pass an empty "
                "folder."
            )
    else:
        text = json.dumps(record)
        replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), mode)


def _is_finished(part: Path, out: Path) -> bool:
    """Whether the predictions of a part were written after the part itself."""
    written = out / part.name
    return written.is_file() and written.stat().st_mtime_ns >= part.stat().st_mtime_ns


def _scan(
    pool: Executor, parts: list[Path], task: str, text: tuple[str, ...], result: FolderScores
) -> dict[Path, TaskScan]:
    """Tasks of the parts that can be read; parts that share a task fail, by name."""
    scans: dict[Path, TaskScan] = {}
    futures = [pool.submit(scan_tasks, part, task, text) for part in parts]
    for part, future in zip(parts, futures, strict=True):
        try:
            scans[part] = future.result()
        except EhrmetaError as error:
            result.failed[part.name] = _plain(error)
    if not scans:
        return scans
    owners = np.concatenate([np.full(len(s.hashes), i) for i, s in enumerate(scans.values())])
    hashes = np.concatenate([scan.hashes for scan in scans.values()])
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(np.diff(hashes[order]) == 0)
    names = list(scans)
    pairs = np.column_stack([owners[order[same]], owners[order[same + 1]]])
    counted, counts = np.unique(pairs, axis=0, return_counts=True)
    for (first, second), count in zip(counted, counts, strict=True):
        shared = f"{count:,} tasks of '{names[first].name}' are also in '{names[second].name}'"
        for part in (names[first], names[second]):
            scans.pop(part, None)
            result.failed[part.name] = f"{shared}. Write all rows of a task to one part."
    return scans


def _score_part(
    model: str, part: Path, scan: TaskScan, *, out: Path, level: float, mode: int
) -> Scored:
    """Score one part, in whichever process."""
    started, n_rows = time.monotonic(), 0
    schema = schema_of(load_once(model).unadapted().model)
    names = _names(schema)
    at = 0

    def predictions() -> Iterator[pd.DataFrame]:
        nonlocal n_rows, at
        columns = schema.columns
        for piece in read_pieces(part, columns, names["task"], text_columns(schema), scan):
            at = int(piece.index[0]) if len(piece) else 0
            n_rows += len(piece)
            scored = score_partition(piece, model, confidence_level=level)
            yield scored.rename(columns=names)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DataWarning)
        try:
            n_predictions = write_pieces(out / part.name, predictions(), mode)
        except EhrmetaError as error:
            return Scored(part.name, error=_plain(error, at))
        texts = dict.fromkeys(_plain(warning.message) for warning in caught)
    seconds = time.monotonic() - started
    return Scored(part.name, n_rows, n_predictions, seconds, warnings=tuple(texts))


def _plain(message: object, first_row: int = 0) -> str:
    """A message on one line, with rows counted in the part instead of the piece."""

    def moved(match: re.Match[str]) -> str:
        word, one, between, other = match.groups()
        text = f"{word} {int(one) + first_row}"
        return text if other is None else f"{text}{between}{int(other) + first_row}"

    return _ROW.sub(moved, " ".join(str(message).split()))


def _names(schema: Schema) -> dict[str, str]:
    """Names of the columns of a file of predictions, as `ehrmeta predict` writes them."""
    names = {"task": str(schema.task), "mean": "prediction"}
    return names | ({"time": schema.time.name} if schema.time else {})


def _result(done: Future[Scored], name: str) -> Scored:
    """The result of a part; an error that no check expected is told without its text."""
    try:
        return done.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker was ended from outside, perhaps for want of memory. Run it again to go on "
            "with the parts that are not finished, with fewer workers."
        ) from error
    except Exception as error:
        kind = type(error).__name__
        return Scored(name, error=f"it could not be scored ({kind}). Check the part's columns.")


class _InProcess(Executor):
    """Runs the work of one worker in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of a call."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def _pool(workers: int) -> Iterator[Executor]:
    """Processes of one thread each, which end with this one."""
    if workers == 1:
        yield _InProcess()
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Compute on one core, and end when the parent does, however that ends."""
    threadpool_limits(1)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
