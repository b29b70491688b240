"""What the tests of displays share: risks of a cohort, and figures that are closed afterwards."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import special


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def cohort():
    """Six hospitals of 60: X, y, risk, site."""
    rng = np.random.default_rng(0)
    X, site = rng.normal(size=(360, 2)), np.repeat(list("abcdef"), 60)
    p = special.expit(X[:, 0] - 0.5)
    return X, (rng.random(360) < p).astype(int), p, site


class Oracle:
    """A classifier that knows the risk; its classes are words."""

    classes_ = np.array(["alive", "dead"])

    def predict_proba(self, X, *, groups=None):
        p = special.expit(X[:, 0] - 0.5)
        return np.column_stack([1 - p, p])


@pytest.fixture
def oracle():
    return Oracle()
