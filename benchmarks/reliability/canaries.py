"""Canary table with unique cells, and a search for its cells in all output of the package."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ehrmeta.data import Table, check_table
from ehrmeta.errors import EhrmetaError
from ehrmeta.estimators import MetaRegressor

_N_PATIENTS, _N_VISITS = 60, 6


def marked_table(seed: int = 0) -> pd.DataFrame:
    """Table of patients in which every id, number and rare category is unique."""
    random = np.random.default_rng(seed)
    n = _N_PATIENTS * _N_VISITS
    return pd.DataFrame(
        {
            "patient": np.repeat([f"canary-id-{i}" for i in range(_N_PATIENTS)], _N_VISITS),
            "day": np.sort(random.uniform(0, 900, (_N_PATIENTS, _N_VISITS)), axis=1).ravel(),
            "age": np.repeat(random.normal(55, 9, _N_PATIENTS), _N_VISITS),
            "creatinine": random.lognormal(0, 0.4, n),
            "village": np.repeat(
                [f"canary-village-{i // 2}" for i in range(_N_PATIENTS)], _N_VISITS
            ),
            "hdl": random.normal(50, 10, n),
        }
    )


def count_leaked_cells(
    fit: Callable[[Table, Path], MetaRegressor], seed: int = 0
) -> tuple[int, int]:
    """Count cells of a marked table in model files, checkpoints, output, warnings and errors.

    Parameters
    ----------
    fit : callable
        Fits a model to a table, with checkpoints in a folder.

    Returns
    -------
    leaked : int
        Cells that occur as text or as the bytes of a 32 or 64-bit number.
    n_cells : int
        Cells searched for.
    """
    frame = marked_table(seed)
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        with (
            warnings.catch_warnings(record=True) as warned,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("always")
            table = Table.from_frame(
                frame, task="patient", time="day", outcome="hdl", measured=("creatinine",)
            )
            model = fit(table, Path(folder))
            model.save(Path(folder, "model.ehrmeta"))
            errors = list(_errors(model, table))
        written = b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())
    texts = [printed.getvalue(), repr(table), repr(model), str(model.history_), *errors]
    texts += [str(warning.message) for warning in warned]
    output = written + "\n".join(texts).encode()
    cells = {cell for name in frame for cell in frame[name].tolist()}
    return sum(_occurs(cell, output) for cell in cells), len(cells)


def _errors(model: MetaRegressor, table: Table) -> Iterator[str]:
    """Messages of errors on unusable rows."""
    X, y, time = table.X, table.y, table.time
    attempts: list[Callable[[], object]] = [
        lambda: model.fit(X, np.where(y == y[3], np.nan, y), groups=table.groups, time=time),
        lambda: model.adapt(X.assign(age=np.inf), y, groups=table.groups, time=time),
        lambda: model.adapt(X.drop(columns="age"), y, groups=table.groups, time=time),
        lambda: model.adapt(X, y, groups=table.groups),
        lambda: model.adapt(X, table.groups, groups=table.groups, time=time),
        lambda: model.adapt(X[:5], y[:5], groups=table.groups[:5], time=time[:5]).predict(  # type: ignore[index]
            X, groups=table.groups, time=time
        ),
        lambda: Table.from_frame(marked_table().assign(day=0.0), table.schema),
        lambda: Table.from_frame(marked_table().assign(age="canary-age"), table.schema),
        lambda: check_table(marked_table().assign(day=0.0), table.schema, strict=True),
    ]
    for attempt in attempts:
        try:
            attempt()
        except EhrmetaError as error:
            yield str(error)


def _occurs(cell: str | float, output: bytes) -> bool:
    if isinstance(cell, str):
        return cell.encode() in output
    forms = (repr(cell).encode(), np.float64(cell).tobytes(), np.float32(cell).tobytes())
    return any(form in output for form in forms)
