"""Suite ``digits``: few-shot classification of digits not used in training, with a small CNN.

A split draws five of the ten classes of scikit-learn's 8 x 8 digits for training. Rotated by 0, 90,
180 and 270 degrees they make twenty classes (Santoro et al. 2016, arXiv:1605.06065). The other five
are for testing, without rotation. The baseline is the nearest centroid on pixels.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import Tensor

from benchmarks.suite.arrays import Array, Index, Mask
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.command import CACHE, SEED, WORKERS, only, suite
from benchmarks.suite.record import Record, interval, number, text_table
from ehrmeta import algorithms
from ehrmeta.data import Feature, Schema
from ehrmeta.estimators import MetaClassifier
from ehrmeta.evaluation.metrics import bootstrap_counts, percentile_limits
from ehrmeta.nn import TorchModule

Predict = Callable[["Tasks", Mask], Index]

SUITE, CASE, PIXELS = "digits", "5-way", "nearest centroid on pixels"
N_WAY, SIDE, SHOTS, N_QUERIES = 5, 8, (1, 5), 10
WIDTH = 256  # of the feature map, which is the embedding
MAX_STEPS, BATCH_SIZE = 400, 8
N_TRAIN, N_TEST = 1000, 400  # tasks of every split
SPLITS = (0, 1, 2, 3, 4)  # settings were chosen on the splits 100 to 102


class SmallCNN(torch.nn.Module):
    """Two convolutions; the first `WIDTH` outputs are the feature map, others linear in it.

    `n_outputs` is the size of an embedding (`WIDTH`), of log-odds, or of both.
    """

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.side = round(n_features**0.5)
        self.maps = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 16, 3, stride=2, padding=1),
            torch.nn.Flatten(),
            torch.nn.LayerNorm(WIDTH, elementwise_affine=False),
        )
        self.embeds = n_outputs >= WIDTH
        n_linear = n_outputs - WIDTH * self.embeds
        self.linear = torch.nn.Linear(WIDTH, n_linear) if n_linear else None
        if self.linear is not None:  # zero-initialised: equal probabilities without support
            torch.nn.init.zeros_(self.linear.weight)
            torch.nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (image, output) of pixels (image, pixel)."""
        maps: Tensor = self.maps(x.reshape(-1, 1, self.side, self.side))
        if self.linear is None:
            return maps
        linear: Tensor = self.linear(maps)
        return torch.cat([maps, linear], -1) if self.embeds else linear


LEARNERS: dict[str, algorithms.Algorithm] = {
    "PrototypicalNet": algorithms.PrototypicalNet(WIDTH, prior_count=0.0, class_frequencies=False),
    "MatchingNet": algorithms.MatchingNet(WIDTH, "cosine"),
    "RelationNet": algorithms.RelationNet(WIDTH, hidden=16, prior_count=0.0, additive=True),
    "MAML, 5 steps": algorithms.MAML(
        inner_lr=0.03, inner_steps=5, max_inner_lr=2.0, pseudo_count=0.0
    ),
    "ANIL, 5 steps": algorithms.ANIL(
        inner_lr=0.2, inner_steps=5, max_inner_lr=2.0, pseudo_count=0.0, width=WIDTH
    ),
}


@dataclass(frozen=True)
class Tasks:
    """Images of tasks of five classes each, with labels 0 to 4."""

    X: Array  # (task, class, image, pixel)

    @property
    def labels(self) -> Index:
        """Labels of all images, (row,)."""
        n_tasks, n_classes, n_images, _ = self.X.shape
        return np.tile(np.repeat(np.arange(n_classes), n_images), n_tasks)

    @property
    def groups(self) -> Index:
        """Tasks of all images, (row,)."""
        n_tasks, n_classes, n_images, _ = self.X.shape
        return np.repeat(np.arange(n_tasks), n_classes * n_images)

    @property
    def rows(self) -> Array:
        """All images, (row, pixel)."""
        return self.X.reshape(-1, self.X.shape[-1])


@suite(CACHE, SEED, WORKERS, only("--method", "methods", LEARNERS, "learner"))
def digits(run: Run, methods: Sequence[str] = (), splits: Sequence[int] = SPLITS) -> list[Record]:
    """Compare classification algorithms on images of digits not used in training.

    Five-way tasks with 1 and 5 images of each class and a small convolutional network, beside the
    nearest centroid on pixels. --quick uses two of the five splits.

    \b
    Example:
        python -m benchmarks digits --quick
    """
    if run.quick:
        run.echo("--quick: two of the five splits, a quarter of the test tasks")
    n_test = N_TEST // 4 if run.quick else N_TEST
    chosen = tuple(splits[:2] if run.quick else splits)
    cells = [
        Cell(f"{SUITE} {name}", measure_accuracy, (name, chosen, n_test, run.seed))
        for name in (PIXELS, *(methods or LEARNERS))
    ]
    records = run.records(cells)
    run.show(digits_table(records))
    return records


def digits_table(records: Sequence[Record]) -> str:
    """Accuracy and gain over the nearest centroid, with intervals, by shots."""
    by_key = {(r.method, r.metric, r.k): r for r in records}
    rows = []
    for method in dict.fromkeys(record.method for record in records):
        cells = [by_key.get((method, m, k)) for k in SHOTS for m in ("accuracy", "gain")]
        seconds = next((cell.seconds for cell in cells if cell is not None), None)
        rows.append([method, *map(interval, cells), number(seconds)])
    heading = [f"{what} {k}-shot" for k in SHOTS for what in ("accuracy", "gain")]
    return f"digits, {CASE}\n{text_table(['', *heading, 'training s'], rows)}"


def measure_accuracy(name: str, splits: Sequence[int], n_test: int, seed: int) -> list[Record]:
    """``accuracy``, and ``gain`` over the nearest centroid, by shots.

    Bootstrap intervals (95 %) are over the test tasks of all splits. The seed is that of initial
    weights and training tasks; splits and test tasks are fixed.
    """
    algorithm = LEARNERS.get(name)
    right: dict[int, list[Array]] = {k: [] for k in SHOTS}
    pixels: dict[int, list[Array]] = {k: [] for k in SHOTS}
    seconds = []
    for split in splits:
        training, unseen = split_classes(split)
        started = time.perf_counter()
        predict = nearest_centroid if algorithm is None else _fit(algorithm, training, seed)
        seconds.append(time.perf_counter() - started)
        for k in SHOTS:
            tasks = draw_tasks(unseen, n_test, k + N_QUERIES, random_state=10_000 + split)
            right[k].append(_accuracy(tasks, k, predict))
            pixels[k].append(_accuracy(tasks, k, nearest_centroid))
    mean_seconds = None if algorithm is None else float(np.mean(seconds))
    records = []
    for k in SHOTS:
        accuracy = np.concatenate(right[k])  # (task,)
        counts = bootstrap_counts(len(accuracy), 1000, 0) / len(accuracy)
        gain = accuracy - np.concatenate(pixels[k])
        record = partial(
            Record, SUITE, CASE, name, k=k, n_tasks=len(gain), seconds=mean_seconds, seed=seed
        )
        for metric, values in {"accuracy": accuracy, "gain": gain}.items():
            low, high = percentile_limits(counts @ values, 0.95)
            records.append(record(metric=metric, value=float(values.mean()), low=low, high=high))
    return records


def split_classes(split: int) -> tuple[list[Array], list[Array]]:
    """Images by class: five digits in four rotations for training, the other five for testing."""
    digits = load_digits()
    order = np.random.default_rng(split).permutation(10)
    by_class = [digits.images[digits.target == digit] for digit in order]
    turned = [np.rot90(images, turn, (1, 2)) for images in by_class[:5] for turn in range(4)]
    return turned, by_class[5:]


def draw_tasks(
    classes: Sequence[Array], n_tasks: int, n_images: int, *, random_state: int
) -> Tasks:
    """Tasks of five classes in random order, so that labels are not informative."""
    rng = np.random.default_rng(random_state)

    def draw() -> list[Array]:
        chosen = rng.permutation(len(classes))[:N_WAY]
        return [rng.choice(classes[c], n_images, replace=False) for c in chosen]

    images = np.asarray([draw() for _ in range(n_tasks)])
    return Tasks(images.reshape(n_tasks, N_WAY, n_images, SIDE * SIDE))


def nearest_centroid(tasks: Tasks, first: Mask) -> Index:
    """Predict the class whose mean image is nearest."""
    n_tasks, n_classes, n_images, n_pixels = tasks.X.shape
    k = int(first[:n_images].sum())
    centers = tasks.X[:, None, :, :k].mean(3)  # (task, 1, class, pixel)
    queries = tasks.X[:, :, k:].reshape(n_tasks, -1, 1, n_pixels)
    nearest: Index = np.square(queries - centers).sum(-1).argmin(-1).ravel()
    return nearest


def _fit(algorithm: algorithms.Algorithm, classes: Sequence[Array], seed: int) -> Predict:
    """Meta-train on tasks of these classes."""
    tasks = draw_tasks(classes, N_TRAIN, 12, random_state=1 + seed)
    pixels = tuple(Feature(f"x{i}", block="image") for i in range(SIDE * SIDE))
    model = MetaClassifier(
        clone(algorithm),
        TorchModule(SmallCNN),
        schema=Schema(pixels),
        shots=(2 * N_WAY, 5 * N_WAY),
        max_queries=25,
        max_steps=MAX_STEPS,
        batch_size=BATCH_SIZE,
        validation_fraction=0.0,
        verbose=False,
        random_state=seed,
    ).fit(tasks.rows, tasks.labels, groups=tasks.groups)

    def predict(tasks: Tasks, first: Mask) -> Index:
        X, y, groups = tasks.rows, tasks.labels, tasks.groups
        adapted = model.adapt(X[first], y[first], groups=groups[first])
        labels: Index = adapted.predict(X[~first], groups=groups[~first])
        return labels

    return predict


def _accuracy(tasks: Tasks, k: int, predict: Predict) -> Array:
    """Share of correct predictions in each task, (task,)."""
    n_tasks, n_classes, n_images, _ = tasks.X.shape
    first = np.tile(np.arange(n_images) < k, n_tasks * n_classes)
    right = predict(tasks, first) == tasks.labels[~first]
    share: Array = right.reshape(n_tasks, -1).mean(1)
    return share
