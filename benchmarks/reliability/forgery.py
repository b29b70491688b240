"""Forged model files with valid digests: refused, or used with finite predictions.

Whoever writes such a file knows the format: settings, weights, trees, names and lengths are those
of a valid file but for one, and the digests fit.
"""

import json
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch import Tensor

from benchmarks.reliability.canaries import marked_table
from benchmarks.reliability.damage import forge_settings
from benchmarks.suite.timing import resident
from ehrmeta.algorithms import MAML, MetaSGD
from ehrmeta.data import Table
from ehrmeta.errors import BundleError, EhrmetaError
from ehrmeta.estimators import Adapted, ConformalRegressor, MetaClassifier, MetaRegressor
from ehrmeta.loading import load
from ehrmeta.nn import MLP, Normal, TaskRows
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.training import TrainingPlan, train
from ehrmeta.training.checkpoints import Checkpoints
from ehrmeta.treatment import TreatmentResponse

Random = np.random.Generator
Tensors = dict[str, Tensor]
_LONGEST = 10.0  # seconds, after which a file counts as hanging
_NUMBERS = (1e30, -1e30, 1e12, 3e38, 0.0, -1.0, 1e-40)
_COUNTS = (-1, 0, 1, 2**31, 2**62, -(2**63))


@dataclass(frozen=True)
class Subject:
    """A valid file, and what is computed with the object that it holds."""

    tensors: Tensors
    metadata: dict[str, Any]
    use: Callable[[Any], Mapping[str, Any]]
    load: Callable[[Path], Any] = partial(load, device="cpu")


@dataclass
class Outcomes:
    """How forged files ended."""

    refused: int = 0
    used: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds of the CPU
    growth: float = 0.0  # of memory, in GiB


def _forge_settings(tensors: Tensors, metadata: dict[str, Any], random: Random) -> None:
    forge_settings(metadata, random)


def _forge_weights(tensors: Tensors, metadata: dict[str, Any], random: Random) -> None:
    """Other numbers in one tensor, at one place or everywhere."""
    name = _some(tensors, random)
    value = tensors[name].clone()
    numbers = _NUMBERS if value.is_floating_point() else _COUNTS
    new = numbers[random.integers(len(numbers))]
    limits = torch.finfo(value.dtype) if value.is_floating_point() else None
    if limits is not None:
        new = min(max(new, limits.min), limits.max)
    elif value.dtype != torch.int64:
        new = abs(int(new)) % 2
    if value.numel() and random.random() < 0.5:
        value.view(-1)[random.integers(value.numel())] = new
    else:
        value.fill_(new)
    tensors[name] = value


def _shuffle_numbers(tensors: Tensors, metadata: dict[str, Any], random: Random) -> None:
    """The numbers of one tensor in another order: cycles in trees, unsorted limits."""
    name = _some(tensors, random)
    value = tensors[name].reshape(-1)
    order = torch.from_numpy(random.permutation(value.numel()))
    tensors[name] = value[order].reshape(tensors[name].shape).clone()


def _forge_length(tensors: Tensors, metadata: dict[str, Any], random: Random) -> None:
    """One tensor longer, shorter, empty or of another rank."""
    name = _some(tensors, random)
    value = tensors[name]
    forms = [value[None], value.reshape(-1)[:0], value.reshape(-1)]
    if value.ndim:
        forms += [value[:-1], torch.cat([value, value[:1]])]
    tensors[name] = forms[random.integers(len(forms))].clone()


def _forge_type(tensors: Tensors, metadata: dict[str, Any], random: Random) -> None:
    name = _some(tensors, random)
    types = [torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8]
    tensors[name] = tensors[name].to(types[random.integers(len(types))])
    if tensors[name].is_floating_point():
        tensors[name] = tensors[name].nan_to_num()


def _forge_name(tensors: Tensors, metadata: dict[str, Any], random: Random) -> None:
    """One tensor under another name, or missing."""
    name = _some(tensors, random)
    value = tensors.pop(name)
    if random.random() < 0.7:
        names = ["x", name + ".", "params." + name, "../" + name, name.upper(), "labels"]
        tensors[names[random.integers(len(names))]] = value


FORGERIES: dict[str, Callable[[Tensors, dict[str, Any], Random], None]] = {
    "settings": _forge_settings,
    "more settings": _forge_settings,
    "weights": _forge_weights,
    "order": _shuffle_numbers,
    "length": _forge_length,
    "type": _forge_type,
    "name": _forge_name,
}


def use_forged_files(subjects: Sequence[Subject], n_files: int, seed: int = 0) -> Outcomes:
    """Load and use forged files of all kinds.

    Parameters
    ----------
    subjects : sequence of Subject
    n_files : int
    seed : int

    Returns
    -------
    Outcomes
        A failure is another error than a BundleError on loading or than an EhrmetaError in use, or
        a prediction that is not finite; they are counted by place.
    """
    outcomes = Outcomes()
    kinds, random = list(FORGERIES.values()), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, before = Path(folder, "forged.ehrmeta"), resident(peak=True)
        for i in range(n_files):
            subject = subjects[i % len(subjects)]
            tensors, metadata = dict(subject.tensors), json.loads(json.dumps(subject.metadata))
            kinds[i // len(subjects) % len(kinds)](tensors, metadata, random)
            try:
                write_bundle(path, tensors, metadata)
            except BundleError:  # it could not be written by hand either
                outcomes.refused += 1
                continue
            started = time.process_time()
            with _at_most(_LONGEST):
                _try(path, subject, outcomes)
            outcomes.slowest = max(outcomes.slowest, time.process_time() - started)
        outcomes.growth = max(0.0, resident(peak=True) - before)
    return outcomes


def _try(path: Path, subject: Subject, outcomes: Outcomes) -> None:
    step: str
    allowed: type[Exception]
    step, allowed = "load", BundleError
    try:
        loaded = subject.load(path)
        step, allowed = "use", EhrmetaError
        used = subject.use(loaded)
    except Exception as error:  # all but the allowed ones are what this counts
        if isinstance(error, allowed):
            outcomes.refused += 1
        else:
            outcomes.failures[f"{step}: {_place(error)}"] += 1
        return
    infinite = [
        name
        for name, values in used.items()
        if np.asarray(values).dtype.kind == "f" and not np.isfinite(np.asarray(values)).all()
    ]
    if infinite:
        outcomes.failures[f"not finite: {type(loaded).__name__} {infinite[0]}"] += 1
    else:
        outcomes.used += 1


def _place(error: BaseException) -> str:
    own = [f for f in traceback.extract_tb(error.__traceback__) if "ehrmeta" in f.filename]
    last = own[-1]
    return f"{type(error).__name__} {str(error)[:60]!r} at {Path(last.filename).name}:{last.lineno}"


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise a `TimeoutError` in the main thread after some time; C code goes on."""

    def end(*_: object) -> None:
        raise TimeoutError("a forged file hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _some(tensors: Tensors, random: Random) -> str:
    return sorted(tensors)[random.integers(len(tensors))]


def subjects() -> list[Subject]:
    """Valid files of every kind, by small models of a marked table."""
    table = Table.from_frame(
        marked_table().drop(columns="village"),
        task="patient",
        time="day",
        outcome="hdl",
        measured=("creatinine",),
    )
    X, y, groups, time = table.X, table.y, np.asarray(table.groups), np.asarray(table.time)
    context: dict[str, Any] = {"groups": groups, "time": time}
    given: dict[str, Any] = {"max_steps": 2, "verbose": False, "random_state": 0}
    few: dict[str, Any] = {"X": X[:12], "groups": groups[:12], "time": time[:12]}

    def predict(model: Any) -> Mapping[str, Any]:
        patients = model if isinstance(model, Adapted) else model.adapt(few["X"], model_y, **seen)
        later = {**few, "time": few["time"] + 1000.0}
        frame = patients.predict_frame(**later, new_groups="population")
        return {name: frame[name].to_numpy() for name in frame}

    seen = {"groups": few["groups"], "time": few["time"]}
    model_y: Any = y[:12]
    boosted = HistGradientBoostingRegressor(max_iter=3)
    maml = MetaRegressor(MAML(), MLP((8,)), population=boosted, **given).fit(X, y, **context)
    mixed = MetaRegressor(**given).fit(X, y, **context)
    calibrated = ConformalRegressor(maml, shots=(1, 2))
    calibrated.calibrate(X, y, **context, allow_training_table=True)
    high = (y > np.median(y)).astype(int)
    trees = HistGradientBoostingClassifier(max_iter=3)
    classes = MetaClassifier(MetaSGD(), MLP((8,)), population=trees, **given)
    classes.fit(X, high, **context)

    def of_classes(model: Any) -> Mapping[str, Any]:
        patients = model.adapt(few["X"], high[:12], **seen)
        return {"risk": patients.predict_proba(**{**few, "time": few["time"] + 1000.0})}

    arm = np.arange(len(y)) % 2
    tables = X.drop(columns="creatinine")
    response = TreatmentResponse(random_state=0)
    response.fit(tables, y, treatment=arm, groups=groups, propensity=np.full(len(y), 0.5))

    def effects(model: Any) -> Mapping[str, Any]:
        return {"effect": model.unadapted().effect(tables[:12])}

    patients = calibrated.adapt(X[:60], y[:60], groups=groups[:60], time=time[:60])
    made: list[tuple[Any, Callable[[Any], Mapping[str, Any]]]] = [
        (maml, predict),
        (mixed, predict),
        (classes, of_classes),
        (calibrated, predict),
        (mixed.adapt(X, y, **context), predict),
        (patients, predict),
        (response, effects),
    ]
    saved = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (model, use) in enumerate(made):
            path = Path(folder, f"{number}.ehrmeta")
            model.save(path)
            saved.append(Subject(*read_bundle(path), use))
    return [*saved, _checkpoint()]


def _checkpoint() -> Subject:
    """The checkpoint of a training at half of its steps; it is used by ending the training."""
    random = torch.Generator().manual_seed(0)
    codes = torch.arange(12).repeat_interleave(5)
    rows = TaskRows.from_codes(
        codes,
        12,
        timed=False,
        x=torch.randn(60, 2, generator=random),
        measured=torch.empty(60, 0),
        time=torch.zeros(60).double(),
        y=torch.randn(12, generator=random)[codes],
        origin=torch.arange(60),
    )
    algorithm = MAML(inner_steps=1)
    spec = algorithm.spec(MLP((4,)), Normal(), 2)
    start = algorithm.init(spec, random)
    plan = TrainingPlan(max_steps=4, check_every=2, batch_size=8, progress_bar=False)

    def resume(folder: str | Path) -> Mapping[str, Any]:
        params, history = train(
            algorithm, spec, start, rows, rows, plan, seed=0, checkpoint_dir=folder
        )
        values = torch.cat([value.reshape(-1) for value in params.values()])
        return {"weights": values.numpy(), "steps": np.array([of["step"] for of in history])}

    with tempfile.TemporaryDirectory() as folder:
        resume(folder)
        tensors, metadata = read_bundle(Path(folder, "step-00000002.checkpoint"))

    def newest(path: Path) -> Path:
        folder = path.parent / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(path, folder / "step-00000002.checkpoint")
        Checkpoints(folder, metadata["belongs_to"], resume=True).newest(start, plan)
        return folder

    return Subject(tensors, metadata, resume, newest)
