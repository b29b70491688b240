import numpy as np
import pytest

from benchmarks.treatment.methods import BASES, MetaLearner


@pytest.mark.parametrize("kind", ["T", "X", "DR", "R"])
def test_the_learners_of_the_field_find_a_linear_effect(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3))
    t = (rng.random(1000) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
    y = X[:, 0] + t * (1 + X[:, 1]) + rng.normal(size=1000)
    effect = MetaLearner(kind, BASES["ridge"]).fit(X, y, t).effect(X)
    assert np.sqrt(np.mean((effect - 1 - X[:, 1]) ** 2)) < 0.25


def test_zero_and_constant():
    rng = np.random.default_rng(0)
    X, t = rng.normal(size=(400, 2)), rng.integers(0, 2, 400)
    y = t + rng.normal(size=400)
    assert not MetaLearner("zero", BASES["ridge"]).fit(X, y, t).effect(X).any()
    constant = MetaLearner("constant", BASES["ridge"]).fit(X, y, t).effect(X)
    assert np.ptp(constant) == 0
    assert constant[0] == pytest.approx(1, abs=0.3)
