"""Trainings killed at random moments: what they end with, beside one that was left alone."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from tqdm import tqdm

from ehrmeta.algorithms import MAML
from ehrmeta.data import make_sinusoid
from ehrmeta.estimators import MetaRegressor
from ehrmeta.nn import MLP

__all__ = ["kill_trainings"]

_STEPS = 400
_MEAN_WAIT = 0.1  # seconds


def kill_trainings(n_kills: int, seed: int = 0) -> tuple[int, int]:
    """Kill checkpointed trainings with SIGKILL, and let each finish after some kills.

    Every run is killed at a random moment after it wrote a checkpoint of its own, so that the next
    one starts from there.

    Returns
    -------
    failures : int
        Trainings whose weights differ in any bit from those of an uninterrupted one.
    n_trainings : int
    """
    random = np.random.default_rng(seed)
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    failures = n_trainings = killed = 0
    uninterrupted = _weights(None)
    with tempfile.TemporaryDirectory() as parent:
        while killed < n_kills:
            folder = Path(parent, str(n_trainings))
            while killed < n_kills:
                process = context.Process(target=_train, args=(folder,))
                before = _checkpoints(folder)
                process.start()
                while process.is_alive() and _checkpoints(folder) <= before:
                    process.join(0.01)
                process.join(random.exponential(_MEAN_WAIT))
                if not process.is_alive():
                    break
                process.kill()
                process.join()
                killed += 1
            weights = _weights(folder)
            failures += any(not torch.equal(weights[name], uninterrupted[name]) for name in weights)
            n_trainings += 1
    return failures, n_trainings


def _checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.checkpoint")}


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(RLock())  # the usual one is a semaphore of the system, lost with each kill
    _fitted(folder)


def _weights(folder: Path | None) -> Mapping[str, torch.Tensor]:
    """What a training ends with, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fitted(folder).learner_.params
    finally:
        torch.set_num_threads(threads)


def _fitted(folder: Path | None) -> MetaRegressor:
    X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
    model = MetaRegressor(
        MAML(), MLP((16,)), max_steps=_STEPS, batch_size=16, verbose=False, random_state=1
    )
    return model.fit(X, y, groups=groups, checkpoint_dir=folder)
