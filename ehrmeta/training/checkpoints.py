"""Checkpoints of a training run: written atomically, verified on reading, resumed bit for bit."""

import functools
import hashlib
import os
import signal
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ehrmeta.errors import BundleError, DataWarning, warn
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.training.state import TrainingPlan, TrainingState

_PATTERN = "step-*.checkpoint"
_KEEP = 2


class Checkpoints:
    """A folder of training states: the newest two and the best.

    A file holds parameters, optimiser state and history, and a digest of the training data, but
    none of its rows.

    Parameters
    ----------
    folder : path
        Created if missing.
    belongs_to : str
        The `fingerprint` of the run.
    resume : bool
        Whether to continue from the folder's checkpoints; otherwise they are removed.

    Raises
    ------
    BundleError
        The folder cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str], belongs_to: str, *, resume: bool) -> None:
        self.folder = Path(folder)
        self.belongs_to = belongs_to
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not resume:
                for path in self._paths():
                    path.unlink()
        except OSError as error:
            raise BundleError(
                f"checkpoint_dir={os.fspath(folder)!r} cannot be used: {error.strerror or error}. "
                "Pass a folder with write permission."
            ) from error

    def newest(self, start: Mapping[str, Tensor], plan: TrainingPlan) -> TrainingState | None:
        """The newest valid state, or None if there are no files.

        Raises
        ------
        BundleError
            The newest valid file belongs to another run, or no file is valid.
        """
        paths = self._paths()
        for path in reversed(paths):
            try:
                tensors, numbers = read_bundle(path)
            except BundleError as error:
                warn(f"A checkpoint is skipped: {error}", DataWarning)
                continue
            if numbers.get("belongs_to") != self.belongs_to:
                raise BundleError(
                    f"{os.fspath(path)!r} belongs to another training run: data, settings, seed "
                    "or start values differ. Pass another checkpoint_dir, or resume=False to "
                    "restart and remove it."
                )
            return TrainingState.from_file(tensors, numbers, start, plan)
        if paths:
            raise BundleError(
                f"none of the {len(paths)} checkpoints in {os.fspath(self.folder)!r} is valid. "
                "Pass resume=False to restart and remove them."
            )
        return None

    def save(self, state: TrainingState) -> None:
        """Write a state, then remove those that are neither among the newest two nor the best.

        Raises
        ------
        BundleError
            The file cannot be written; older files are unchanged.
        """
        tensors, numbers = state.to_file()
        write_bundle(self._path(state.step), tensors, numbers | {"belongs_to": self.belongs_to})
        for path in self._paths()[:-_KEEP]:
            if path != self._path(state.best_step):
                path.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.checkpoint"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(_PATTERN))


def fingerprint(*parts: Any) -> str:
    """SHA-256 of everything that determines a run, with all attributes of every object in it."""
    digest = hashlib.sha256()
    _add(digest, parts)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    """Add a value and, of an object, its class and the values that it holds."""
    digest.update(f"{type(value).__module__}.{type(value).__qualname__}(".encode())
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        copied = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(copied.view(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape} {value.tolist()!r}".encode())
    elif isinstance(value, torch.nn.Module):
        digest.update(repr(value).encode())
        settings = [_public(module) for module in value.modules()]
        _add(digest, [value.state_dict(), *settings])
    elif isinstance(value, functools.partial):
        _add(digest, (value.func, value.args, value.keywords))
    elif isinstance(value, Mapping):
        for name in sorted(value, key=repr):
            digest.update(repr(name).encode())
            _add(digest, value[name])
    elif isinstance(value, list | tuple):
        for item in value:
            _add(digest, item)
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        digest.update(f"{value.__module__}.{value.__qualname__}".encode())
        digest.update(getattr(getattr(value, "__code__", None), "co_code", b""))
    elif is_dataclass(value):
        names = [part.name for part in fields(value) if part.compare]
        _add(digest, {name: getattr(value, name) for name in names})
    elif hasattr(value, "__dict__"):
        _add(digest, vars(value))
    else:
        digest.update(repr(value).encode())
    digest.update(b")")


def _public(module: torch.nn.Module) -> dict[str, Any]:
    """Attributes of a module that are neither private nor modules."""
    return {
        name: value
        for name, value in vars(module).items()
        if not (name.startswith("_") or isinstance(value, torch.nn.Module))
    }


@contextmanager
def on_termination(*, active: bool) -> Iterator[Callable[[], bool]]:
    """Context in which SIGTERM only sets a flag. It yields a function that reads the flag.

    Signals reach only the main thread, so in other threads, or if not `active`, SIGTERM ends the
    process as usual.
    """
    received = threading.Event()
    if not active or threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
