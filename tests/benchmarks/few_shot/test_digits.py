"""The digits benchmark: honest tasks, and learners above the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances_argmin

from benchmarks.few_shot.digits import (
    LEARNERS,
    PIXELS,
    SPLITS,
    digits,
    digits_table,
    draw_tasks,
    nearest_centroid,
    split_classes,
)
from benchmarks.suite.cells import Run


def _images(classes: list[np.ndarray]) -> set[bytes]:
    return {image.tobytes() for images in classes for image in images}


@pytest.mark.parametrize("split", SPLITS)
def test_no_image_of_a_test_class_is_trained_on(split):
    training, unseen = split_classes(split)
    assert [len(training), len(unseen)] == [20, 5]
    upright = _images(training[::4])
    assert not upright & _images(unseen)
    assert upright | _images(unseen) == _images([load_digits().images])


def test_labels_are_unrelated_to_the_class():
    """The first images of a label come from every class about equally often."""
    classes = [np.full((20, 8, 8), float(c)) for c in range(10)]
    tasks = draw_tasks(classes, 2000, 2, random_state=0)
    drawn = tasks.X[:, 0, 0, 0].astype(int)
    np.testing.assert_allclose(np.bincount(drawn) / 2000, np.full(10, 0.1), atol=0.03)
    shown = tasks.X[:, :, 0, 0]
    assert all(len(set(task)) == 5 for task in shown)


def test_the_row_to_beat_is_the_nearest_centroid():
    tasks = draw_tasks(split_classes(0)[1], 3, 8, random_state=0)
    first = np.tile(np.arange(8) < 3, 15)
    nearest = nearest_centroid(tasks, first).reshape(3, -1)
    for task in range(3):
        of_task = tasks.groups == task
        X, y = tasks.rows[of_task], tasks.labels[of_task]
        seen = first[of_task]
        centers = [X[seen & (y == label)].mean(0) for label in range(5)]
        expected = pairwise_distances_argmin(X[~seen], np.stack(centers))
        np.testing.assert_array_equal(nearest[task], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_above_the_pixels(name, tmp_path):
    """On a split that no table shows, by more than chance; read again from the cache."""
    run = Run(quick=True, cache=tmp_path)
    records = digits(run, (name,), (100,))
    gains = {(r.method, r.k): r for r in records if r.metric == "gain"}
    for k in (1, 5):
        assert gains[PIXELS, k].value == 0.0
        assert gains[name, k].low > 0.0
    assert digits(run, (name,), (100,)) == records
    assert name in digits_table(records)
