"""Trainings killed at random times, and one model used in many threads and calls."""

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.suite.timing import resident
from ehrmeta.algorithms import MAML
from ehrmeta.data import make_sinusoid
from ehrmeta.estimators import MetaRegressor
from ehrmeta.nn import MLP

_TRAINING_STEPS = 400
_MEAN_WAIT = 0.1  # seconds
SHOTS = 5


def kill_trainings(n_kills: int, seed: int = 0) -> tuple[int, int]:
    """Kill checkpointed trainings with SIGKILL, and let each finish after several kills.

    Every run is killed at a random time after it wrote a new checkpoint, from which the next one
    resumes.

    Returns
    -------
    failures : int
        Trainings whose weights are not bit-identical to those of an uninterrupted one.
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
    tqdm.set_lock(RLock())  # the default is a semaphore of the system, leaked by each kill
    _fitted(folder)


def _weights(folder: Path | None) -> Mapping[str, torch.Tensor]:
    """Final weights of a training on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fitted(folder).model_.learner.params
    finally:
        torch.set_num_threads(threads)


def _fitted(folder: Path | None) -> MetaRegressor:
    X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
    model = MetaRegressor(
        MAML(), MLP((16,)), max_steps=_TRAINING_STEPS, batch_size=16, verbose=False, random_state=1
    )
    return model.fit(X, y, groups=groups, checkpoint_dir=folder)


def adapt_in_threads(model: MetaRegressor, n_calls: int, n_threads: int = 8) -> int:
    """Number of calls of adapt and predict in threads with another result than in serial."""
    random = np.random.default_rng(0)
    n_features = len(model.table_.features)
    supports = random.normal(size=(n_calls, SHOTS, n_features))
    outcomes = random.normal(size=(n_calls, SHOTS))
    queries = random.normal(size=(n_calls, 3, n_features))

    def call(i: int) -> bytes:
        return model.adapt(supports[i], outcomes[i]).predict(queries[i]).tobytes()

    serial = [call(i) for i in range(n_calls)]
    with ThreadPoolExecutor(n_threads) as pool:
        parallel = list(pool.map(call, range(n_calls)))
    return sum(one != other for one, other in zip(serial, parallel, strict=True))


def grow_by_adapting(model: MetaRegressor, n_calls: int) -> float:
    """Growth of memory in MiB over calls of adapt and predict, after a warm-up of a tenth."""
    x = np.zeros((SHOTS, len(model.table_.features)))
    y = np.linspace(-1.0, 1.0, SHOTS)
    before = resident()
    for i in range(n_calls + n_calls // 10):
        if i == n_calls // 10:
            before = resident()
        model.adapt(x, y).predict(x)
    return 1024 * (resident() - before)
