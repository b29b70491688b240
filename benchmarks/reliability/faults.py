"""Disk errors at every step of every write: the existing file must survive unchanged."""

import errno
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from ehrmeta.data.table_file import write_frame
from ehrmeta.errors import EhrmetaError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.training.checkpoints import Checkpoints
from ehrmeta.training.state import TrainingPlan, TrainingState

Write = Callable[[Path], object]

_STEPS = ("open", "fsync", "replace")


def fail_every_write(model: MetaRegressor) -> tuple[int, int]:
    """Simulate a disk error at each step of each kind of write.

    Returns
    -------
    failures : int
        Writes that did not raise an `EhrmetaError`, changed the existing file, or left another one.
    n_faults : int
    """
    failures = n_faults = 0
    for write in _writes(model):
        for step in _STEPS:
            for code in (errno.ENOSPC, errno.EIO):
                n_faults += 1
                failures += not _survives(write, step, code)
    return failures, n_faults


def _writes(model: MetaRegressor) -> Iterator[Write]:
    """Functions that write each kind of file of the package."""
    X, y = torch.zeros(2, len(model.table_.features)).numpy(), [0.0, 1.0]
    patients = model.adapt(X, y)
    frame = pd.DataFrame({"prediction": [1.0, 2.0]})
    plan = TrainingPlan(progress_bar=False)
    state = TrainingState.at_start({"beta": torch.zeros(3)}, plan)

    def write_checkpoint(path: Path) -> None:
        checkpoints = Checkpoints(path.parent, "a training", resume=True)
        path.rename(path.parent / "step-00000000.checkpoint")
        try:
            checkpoints.save(state)
        finally:
            (path.parent / "step-00000000.checkpoint").rename(path)

    yield model.save
    yield patients.save
    yield write_checkpoint
    yield lambda path: write_frame(frame, path.rename(path.with_suffix(".csv")))


def _survives(write: Write, step: str, code: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "older.ehrmeta")
        path.write_bytes(b"the older file")
        try:
            with _failing(step, code):
                write(path)
        except EhrmetaError:
            return [file.read_bytes() for file in Path(folder).iterdir()] == [b"the older file"]
        return False


@contextmanager
def _failing(step: str, code: int) -> Iterator[None]:
    """Context in which one step of writing raises the error of a full or broken disk."""
    name = f"io.{step}" if step == "open" else f"os.{step}"
    original = getattr(io if step == "open" else os, step)

    def fail(*args: Any, **kwargs: Any) -> Any:
        mode = kwargs.get("mode", args[1] if len(args) > 1 else "r")
        if step == "open" and not set(str(mode)) & set("wxa+"):
            return original(*args, **kwargs)  # reading still works
        raise OSError(code, os.strerror(code))

    with patch(name, fail):
        yield
