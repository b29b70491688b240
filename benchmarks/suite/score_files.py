"""Scores of finished cells on disk, so that a long benchmark goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ehrmeta
from benchmarks.suite.task_scores import Scores
from ehrmeta.errors import DataError

__all__ = ["Fitted", "code_digest", "kept"]

_ROOMS = ("algorithms", "baselines", "data", "estimators", "evaluation", "nn", "training")


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a cell found.

    Parameters
    ----------
    scores : mapping of int to Scores
        By k, over the test patients of the fold.
    seconds, tuning_seconds : float
        Of the fit, and of choosing the settings.
    setting : str
        Chosen.
    note : str
        Why there are no scores.
    """

    scores: Mapping[int, Scores]
    seconds: float = 0.0
    tuning_seconds: float = 0.0
    setting: str = ""
    note: str = ""


def code_digest(*patterns: str) -> str:
    """SHA-256 of the code that fits and scores, so that no score outlives a change of it.

    Parameters
    ----------
    patterns : str
        Of the benchmark's own files, ``"patients/*.py"`` for instance.
    """
    here = Path(__file__).parents[1]
    package = Path(ehrmeta.__file__).parent
    files = {path for room in _ROOMS for path in (package / room).rglob("*.py")}
    for pattern in (*patterns, "suite/task_scores.py"):
        files |= set(here.glob(pattern))
    digest = hashlib.sha256()
    for path in sorted(files):
        root = here if path.is_relative_to(here) else package
        digest.update(f"{root.name}/{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept(folder: Path | None, name: str, settings: Any, measure: Callable[[], Fitted]) -> Fitted:
    """Measure a cell, or read it where the folder has it under exactly these settings.

    Parameters
    ----------
    folder : Path, optional
        Without one nothing is kept.
    name : str
        Of the cell: what its file is called.
    settings : JSON's types
        Everything that the scores depend on.
    """
    if folder is None:
        return measure()
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    path = folder / f"{re.sub(r'[^a-zA-Z0-9]+', '-', name)}-{digest}.npz"
    if path.exists():
        return _read(path)
    found = measure()
    folder.mkdir(parents=True, exist_ok=True)
    _write(path, found)
    return found


def _write(path: Path, found: Fitted) -> None:
    arrays: dict[str, Any] = {
        f"{k} {name}": array for k, scores in found.scores.items() for name, array in scores.items()
    }
    about = {name: value for name, value in vars(found).items() if name != "scores"}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
    partial.replace(path)


def _read(path: Path) -> Fitted:
    try:
        with np.load(path, allow_pickle=False) as stored:
            scores: dict[int, Scores] = {}
            for key in stored.files:
                k, _, name = key.partition(" ")
                if name:
                    scores.setdefault(int(k), {})[name] = stored[key]
            about = json.loads(str(stored["about"])) | {"scores": scores}
            return Fitted(**about)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(
            f"'{path}' holds no benchmark scores ({type(error).__name__}). Delete it, or pass "
            "another --cache folder."
        ) from error
