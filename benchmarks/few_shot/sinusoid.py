"""Suite ``sinusoid``: few-shot regression on sinusoids with all algorithms, by common protocols.

Amplitudes in [0.1, 5], phases in [0, pi], inputs in [-5, 5], two hidden layers of 40 ReLU units.
Without noise: trained at 5 shots (Finn et al. 2017, arXiv:1703.03400). With noise of standard
deviation 0.1: trained at 10 shots and scored on noisy rows (Patacchiola et al. 2020, DKT,
arXiv:1910.05199). The score is the mean squared error on test tasks at 5, 10 and 20 shots.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sklearn.base import clone

from benchmarks.suite.arrays import Array
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.command import CACHE, SEED, WORKERS, only, suite
from benchmarks.suite.record import Record, interval, number, text_table
from ehrmeta import algorithms
from ehrmeta.data import make_sinusoid
from ehrmeta.errors import AtypicalWarning, DivergenceError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.evaluation.metrics import bootstrap_counts, percentile_limits
from ehrmeta.nn import MLP

Predict = Callable[[Array, Array, Array], Array]

SUITE = "sinusoid"
SHOTS = (5, 10, 20)
N_TRAIN, N_TEST, N_QUERIES = 40_000, 4_000, 100
TEST_SEED = 20_161_118  # settings were chosen on the test tasks of 987_654
BODY = MLP((40,), "relu")  # with a head of 40 inputs, the same 2 x 40 network
NET = MLP((40, 40), "relu")


@dataclass(frozen=True)
class Case:
    """Standard deviation of the noise, and number of support rows in training."""

    noise: float
    shots: int


@dataclass(frozen=True)
class Training:
    """An algorithm and its settings of training, which were chosen on tasks of another seed."""

    algorithm: algorithms.Algorithm
    max_steps: int
    learning_rate: float = 1e-2
    batch_size: int = 128
    backbone: MLP = field(default_factory=lambda: NET)
    validation_fraction: float = 0.0


CASES = {"noiseless": Case(0.0, 5), "noise 0.1": Case(0.1, 10)}
METHODS: dict[str, Training] = {
    "MAML, 1 step": Training(algorithms.MAML(inner_steps=1, pseudo_count=0.0), 8000),
    "Meta-SGD, 1 step": Training(
        algorithms.MetaSGD(inner_lr=0.1, inner_steps=1, max_inner_lr=4.0, pseudo_count=0.0),
        20_000,
        batch_size=256,
    ),
    "MAML, 5 steps": Training(algorithms.MAML(inner_steps=5, pseudo_count=0.0), 5000),
    "Meta-SGD, 5 steps": Training(
        algorithms.MetaSGD(inner_lr=0.05, inner_steps=5, pseudo_count=0.0), 4500
    ),
    "Meta-curvature, 5 steps": Training(
        algorithms.MetaCurvature(inner_lr=0.05, inner_steps=5, pseudo_count=0.0), 3000
    ),
    "ANIL, 5 steps": Training(
        algorithms.ANIL(inner_steps=5, pseudo_count=0.0, width=40, activation="relu"),
        15_000,
        backbone=BODY,
    ),
    "deep mixed effects": Training(
        algorithms.DeepMixedEffects(n_deep=40, correction=False),
        3000,
        5e-3,
        validation_fraction=0.02,
    ),
    "Bayesian head": Training(algorithms.BayesianHead(width=40), 5000, 5e-3),
    "neural process, attentive": Training(algorithms.NeuralProcess(width=40), 15_000, 5e-3),
    "neural process, conditional": Training(
        algorithms.NeuralProcess(width=40, attentive=False), 15_000, 5e-3
    ),
    "matching net": Training(algorithms.MatchingNet(width=40, similarity="dot"), 6000, 5e-3),
    "relation net": Training(algorithms.RelationNet(width=40, hidden=40), 8000, 5e-3),
    "Reptile, 10 steps": Training(algorithms.Reptile(), 4000),
    "learned optimiser, 5 steps": Training(
        algorithms.LearnedOptimizer(inner_steps=5, pseudo_count=0.0), 4000, 2e-2, 32
    ),
    "meta networks": Training(
        algorithms.MetaNetworks(width=40, base_width=40), 10_000, 5e-3, backbone=BODY
    ),
    "fine-tuning, 20 steps": Training(algorithms.FineTune(), 4000),
    "no adaptation": Training(algorithms.Population(), 4000),
    "from scratch, 50 steps": Training(algorithms.PerTask(), 200, 3e-3, 32),
}
# Algorithms without settings here run with their defaults; these tasks have no time to carry over.
_LISTED = {algorithms.CarryForward, *(type(training.algorithm) for training in METHODS.values())}
METHODS |= {
    name: Training(algorithm(), 4000)
    for name, algorithm in algorithms.ALGORITHMS.items()
    if "real" in algorithm.serves and algorithm not in _LISTED
}


def predict_zero(x: Array, y: Array, at: Array, noise: float) -> Array:
    """Predict 0: mean squared error 4.25."""
    return np.zeros_like(at)


def predict_mean(x: Array, y: Array, at: Array, noise: float) -> Array:
    """Best without adapting, ``E[y | x] = -E[A] (2 / pi) cos x``: mean squared error 3.01."""
    mean: Array = -2.55 * (2.0 / np.pi) * np.cos(at)
    return mean


def predict_ideal(x: Array, y: Array, at: Array, noise: float) -> Array:
    """Bayes rule for tasks ``b' (sin x, cos x)`` with known moments of b and known noise."""
    amplitude, square = 2.55, (5.0**3 - 0.1**3) / (3.0 * 4.9)  # E[A], E[A^2]
    mean = np.array([0.0, -amplitude * 2.0 / np.pi])
    prior = np.array([0.5 * square, 0.5 * square - mean[1] ** 2])
    basis = np.stack([np.sin(x), np.cos(x)], -1)  # (task, row, 2)
    variance = max(noise, 1e-4) ** 2
    precision = np.einsum("tni,tnj->tij", basis, basis) / variance + np.diag(1.0 / prior)
    evidence = np.einsum("tni,tn->ti", basis, y) / variance + mean / prior
    b = np.linalg.solve(precision, evidence[..., None])  # (task, 2, 1)
    ideal: Array = (np.stack([np.sin(at), np.cos(at)], -1) @ b)[..., 0]
    return ideal


REFERENCES = {
    "predicting 0": predict_zero,
    "best without adapting": predict_mean,
    "floor: sin and cos known": predict_ideal,
}


@suite(CACHE, SEED, WORKERS, only("--method", "methods", METHODS, "learner"))
def sinusoid(run: Run, methods: Sequence[str]) -> list[Record]:
    """Compare all algorithms in few-shot regression on sinusoids.

    The common protocol: 5, 10 and 20 shots, 2 x 40 ReLU units, with and without noise. --quick
    trains a tenth of the steps, so errors are higher.

    \b
    Example:
        python -m benchmarks sinusoid --quick --workers 2
    """
    if run.quick:
        run.echo("--quick: a tenth of the training steps")
    records = run_sinusoid(run, methods=methods or tuple(METHODS))
    run.show(sinusoid_table(records))
    return records


def run_sinusoid(
    run: Run, cases: Sequence[str] = tuple(CASES), methods: Sequence[str] = tuple(METHODS)
) -> list[Record]:
    """Train algorithms on cases and score them on new tasks, by method and support size.

    Records are ``mse`` with a 95 % bootstrap interval over test tasks, and ``median_mse``. The seed
    is that of initial weights and training tasks; test tasks are fixed.
    """
    n_train, n_test = (10_000, 1_000) if run.quick else (N_TRAIN, N_TEST)
    cells = []
    for case in cases:
        for name in REFERENCES:
            cells.append(Cell(f"{SUITE} {case}: {name}", score_reference, (case, name, n_test)))
        for name in methods:
            steps = METHODS[name].max_steps
            steps = max(1, steps // 10) if run.quick else steps
            args = (case, name, steps, n_train, n_test, run.seed)
            cells.append(Cell(f"{SUITE} {case}: {name}", train_and_score, args))
    return run.records(cells)


def sinusoid_table(records: Sequence[Record]) -> str:
    """Table of each case: mean squared error and its interval at every support size."""
    tables = []
    for case in dict.fromkeys(record.case for record in records):
        by_key = {(r.method, r.metric, r.k): r for r in records if r.case == case}
        rows = []
        for method in dict.fromkeys(method for method, _, _ in by_key):
            cells = [by_key.get((method, "mse", k)) for k in SHOTS]
            median = by_key.get((method, "median_mse", SHOTS[0]))
            seconds = next((cell.seconds for cell in cells if cell is not None), None)
            means = [interval(cell, _short) for cell in cells]
            middle = "" if median is None else _short(median.value)
            rows.append([method, *means, middle, number(seconds)])
        heading = ["", *(f"mse at {k} shots" for k in SHOTS), f"median at {SHOTS[0]}", "training s"]
        tables.append(f"sinusoid, {case}\n{text_table(heading, rows)}")
    return "\n\n".join(tables)


def score_reference(case: str, name: str, n_test: int) -> list[Record]:
    """Records of a reference without training."""
    return _scores(case, name, partial(REFERENCES[name], noise=CASES[case].noise), n_test)


def train_and_score(
    case_name: str, name: str, steps: int, n_train: int, n_test: int, seed: int
) -> list[Record]:
    """Train one algorithm and score it; if it diverges, records have a note."""
    case, training = CASES[case_name], METHODS[name]
    X, y, groups = make_sinusoid(n_train, case.shots + 10, noise=case.noise, random_state=1 + seed)
    model = MetaRegressor(
        clone(training.algorithm),
        clone(training.backbone),
        shots=(case.shots, case.shots),
        max_steps=steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        validation_fraction=training.validation_fraction,
        patience=steps,  # no early stopping
        verbose=False,
        random_state=seed,
    )
    started = time.perf_counter()
    try:
        model.fit(X, y, groups=groups)
    except DivergenceError:
        return [Record(SUITE, case_name, name, "mse", None, k=k, note="diverged") for k in SHOTS]
    seconds = time.perf_counter() - started

    def predict(x: Array, y: Array, at: Array) -> Array:
        tasks = np.arange(len(x))
        with warnings.catch_warnings(action="ignore", category=AtypicalWarning):
            adapted = model.adapt(x.reshape(-1, 1), y.ravel(), groups=np.repeat(tasks, x.shape[1]))
            predicted = adapted.predict(at.reshape(-1, 1), groups=np.repeat(tasks, at.shape[1]))
        return predicted.reshape(at.shape)

    return _scores(case_name, name, predict, n_test, seconds=seconds, seed=seed)


def _scores(
    case: str,
    name: str,
    predict: Predict,
    n_test: int,
    *,
    seconds: float | None = None,
    seed: int = 0,
) -> list[Record]:
    """Mean and median over test tasks of the squared error on query rows."""
    most = max(SHOTS)
    X, y, _ = make_sinusoid(
        n_test, most + N_QUERIES, noise=CASES[case].noise, random_state=TEST_SEED
    )
    x, y = X.reshape(n_test, -1), y.reshape(n_test, -1)
    counts = bootstrap_counts(n_test, 1000, 0)
    records = []
    for k in SHOTS:
        error = np.square(predict(x[:, :k], y[:, :k], x[:, most:]) - y[:, most:]).mean(1)  # (task,)
        low, high = percentile_limits(counts @ error / n_test, 0.95)
        record = partial(Record, SUITE, case, name, k=k, n_tasks=n_test, seconds=seconds, seed=seed)
        records.append(record(metric="mse", value=float(error.mean()), low=low, high=high))
        records.append(record(metric="median_mse", value=float(np.median(error))))
    return records


def _short(value: float | None) -> str:
    return "0.0000" if value is not None and value < 5e-5 else number(value)
