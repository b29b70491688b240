"""Cells of a suite: units of work that run in one process or several, and are cached.

A cached result is valid for the same arguments and code: its key has a digest of the sources that
the cell's function imports, and the versions of the libraries.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ehrmeta
from benchmarks.suite.record import Record, machine, number
from benchmarks.suite.task_scores import Scores
from ehrmeta.errors import DataError

_ROOTS = {"benchmarks": Path(__file__).parents[1], "ehrmeta": Path(ehrmeta.__file__).parent}


@dataclass(frozen=True, eq=False)
class Fitted:
    """Scores of a fitted method.

    Parameters
    ----------
    scores : mapping of int to Scores
        By k, over the test patients of the fold.
    seconds, tuning_seconds : float
        Of the fit, and of choosing hyper-parameters.
    setting : str
        Chosen hyper-parameters.
    note : str
        Why there are no scores.
    """

    scores: Mapping[int, Scores]
    seconds: float = 0.0
    tuning_seconds: float = 0.0
    setting: str = ""
    note: str = ""

    def __str__(self) -> str:
        return self.note or f"fit {number(self.seconds)} s"


@dataclass(frozen=True)
class Cell:
    """One method on one case.

    Parameters
    ----------
    name : str
        Shown when it finishes; names its file.
    measure : callable
        A function of a module (it is pickled), which returns a list of `Record`, or a `Fitted`.
    args : tuple
        Its arguments. Their ``repr`` must determine the result.
    """

    name: str
    measure: Callable[..., Any]
    args: tuple[Any, ...] = ()

    def file(self, folder: Path) -> Path:
        """File of the cached result."""
        depends_on = [repr(self.args), source_digest(self.measure.__module__), _versions()]
        digest = hashlib.sha256(json.dumps([self.name, *depends_on]).encode()).hexdigest()[:8]
        return folder / f"{re.sub(r'[^a-zA-Z0-9]+', '-', self.name).strip('-')}-{digest}.npz"


@dataclass(frozen=True)
class Run:
    """Settings of a run of a suite.

    Parameters
    ----------
    quick : bool
        Small cases, to check that everything works.
    cache : Path, optional
        Folder of finished cells, from which an interrupted run resumes.
    workers : int
        Processes of one thread each; with 1 the cells run in this process, on its threads.
    seed : int
    echo : callable
        Prints progress, skipped methods, and tables.
    """

    quick: bool = False
    cache: Path | None = None
    workers: int = 1
    seed: int = 0
    echo: Callable[[str], object] = field(default=lambda line: None)

    def show(self, *texts: str) -> None:
        """Print tables or paragraphs, each after an empty line."""
        for text in filter(None, texts):
            self.echo(f"\n{text.rstrip()}")

    def results(self, cells: Sequence[Cell]) -> list[Any]:
        """Results of the cells, in the order of `cells`."""
        finished: dict[int, Any] = {}
        for at, result in self._finished(cells):
            finished[at] = result
            self.echo(f"[{len(finished)}/{len(cells)}] {cells[at].name}: {_summary(result)}")
        return [finished[at] for at in range(len(cells))]

    def records(self, cells: Sequence[Cell]) -> list[Record]:
        """The records of all cells."""
        return [record for records in self.results(cells) for record in records]

    def _finished(self, cells: Sequence[Cell]) -> Iterator[tuple[int, Any]]:
        """Index and result of every cell, in the order of finishing."""
        files = [None if self.cache is None else cell.file(self.cache) for cell in cells]
        if self.workers == 1:
            for at, cell in enumerate(cells):
                yield at, _measure(cell, files[at])
            return
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by new processes at their start
        context = get_context("spawn")
        with ProcessPoolExecutor(
            self.workers, context, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            running = {pool.submit(_measure, cell, files[at]): at for at, cell in enumerate(cells)}
            for future in as_completed(running):
                yield running[future], future.result()


@cache
def source_digest(module: str) -> str:
    """SHA-256 of the sources of a module and of all modules of this project that it imports.

    Imports count at any depth, also inside functions.
    """
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in sources or path is None:
            continue
        sources[name] = path.read_bytes()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                waiting += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\n".encode() + sources[name])
    return digest.hexdigest()


def _file_of(module: str) -> Path | None:
    """Source file of a module of this project."""
    root, *parts = module.split(".")
    if root not in _ROOTS or not parts:
        return None
    path = _ROOTS[root].joinpath(*parts)
    # names of a lazy package are imported in its stub
    files = (path.with_suffix(".py"), path / "__init__.pyi", path / "__init__.py")
    return next((file for file in files if file.exists()), None)


@cache
def _versions() -> dict[str, str]:
    versions: dict[str, str] = machine()["versions"]
    return versions


def _measure(cell: Cell, file: Path | None) -> Any:
    """Result of a cell, from the cache or measured now."""
    if file is not None and file.exists():
        return _read(file)
    result = cell.measure(*cell.args)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, cell, result)
    return result


def _write(file: Path, cell: Cell, result: Any) -> None:
    content: dict[str, Any] = {"cell": cell.name, "args": repr(cell.args)}
    arrays: dict[str, Any] = {}
    if isinstance(result, Fitted):
        content["fitted"] = {name: v for name, v in vars(result).items() if name != "scores"}
        for k, scores in result.scores.items():
            arrays |= {f"{k} {name}": values for name, values in scores.items()}
    else:
        content["records"] = [asdict(record) for record in result]
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, content=np.array(json.dumps(content)), **arrays)
    partial.replace(file)


def _read(file: Path) -> Any:
    try:
        with np.load(file, allow_pickle=False) as stored:
            content = json.loads(str(stored["content"]))
            if "records" in content:
                return [Record(**fields) for fields in content["records"]]
            scores: dict[int, Scores] = {}
            for key in stored.files:
                k, _, name = key.partition(" ")
                if name:
                    scores.setdefault(int(k), {})[name] = stored[key]
            return Fitted(scores, **content["fitted"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(
            f"'{file}' is not a valid cache file ({type(error).__name__}). Delete it, or pass "
            "another --cache folder."
        ) from error


def _summary(result: Any) -> str:
    """First value of a cell, and its time."""
    if isinstance(result, Fitted):
        return str(result)
    first = result[0]
    duration = "" if first.seconds is None else f" in {number(first.seconds)} s"
    return f"{first.note if first.value is None else f'{first.value:.3g}'}{duration}"
