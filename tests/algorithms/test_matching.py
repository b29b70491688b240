"""`MatchingNet` is Nadaraya-Watson on its embedding, and says which rows it used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel

from ehrmeta import MAML, MatchingNet, MetaClassifier, MetaRegressor, TorchModule, make_sinusoid
from ehrmeta.baselines import LastValue
from ehrmeta.errors import DataError
from ehrmeta.nn import Categorical, Normal
from tests.algorithms.one_task import N_FEATURES, points

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


class _Padded(torch.nn.Module):
    """The features themselves, and zeros as the prior row's prediction."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.extra = n_outputs - n_features

    def forward(self, x):
        return torch.nn.functional.pad(x, (0, self.extra))


def _net(likelihood, similarity, prior_score=-1e9):
    algorithm = MatchingNet(N_FEATURES, similarity)
    spec = algorithm.spec(TorchModule(_Padded), likelihood, N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    params |= {"log_scale": torch.zeros(()), "prior_score": torch.tensor(prior_score)}
    return algorithm, spec, {name: value.double() for name, value in params.items()}


def _kernel(similarity, left, right):
    if similarity == "rbf":
        return rbf_kernel(left, right, gamma=0.5)
    return np.exp(linear_kernel(left, right))


@pytest.mark.parametrize("similarity", ["rbf", "dot"])
def test_identity_embedding_equals_nadaraya_watson(similarity):
    support, query = points(9), points(5, seed=1)
    kernel = _kernel(similarity, query.x.numpy(), support.x.numpy())
    weights = kernel / kernel.sum(1, keepdims=True)
    algorithm, spec, params = _net(Normal(), similarity)
    state = algorithm.adapt(spec, params, support)
    found = algorithm.predict(spec, params, state, query)["loc"]
    np.testing.assert_allclose(found.numpy(), weights @ support.y.numpy(), rtol=1e-10)
    attention = algorithm.attention(spec, params, state, query).numpy()
    np.testing.assert_allclose(attention[:, :-1], weights, rtol=1e-10)

    algorithm, spec, params = _net(Categorical(3), similarity)
    labelled = support._replace(y=(torch.arange(9) % 3).double())
    state = algorithm.adapt(spec, params, labelled)
    logits = algorithm.predict(spec, params, state, query)["logits"].numpy()
    shares = weights @ np.eye(3)[np.arange(9) % 3]
    np.testing.assert_allclose(softmax(logits, 1), shares, atol=1e-5)


def test_the_prior_row_fades_as_rows_come_in():
    algorithm, spec, params = _net(Normal(), "rbf", prior_score=0.0)
    query, left = points(5, seed=1), []
    for n in (0, 1, 10, 1000):
        state = algorithm.adapt(spec, params, points(n))
        left.append(float(algorithm.attention(spec, params, state, query)[:, -1].mean()))
    assert left[0] == 1.0
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1


@pytest.fixture(scope="module")
def sinusoids():
    return make_sinusoid(n_tasks=40, n_points=10, random_state=0)


def test_support_weights_name_the_rows(sinusoids):
    X, y, groups = sinusoids
    keywords = {"max_steps": 30, "random_state": 0, "verbose": False}
    model = MetaRegressor(MatchingNet(8), **keywords).fit(X, y, groups=groups)
    support = np.flatnonzero((np.arange(len(y)) % 10 < 4) & (groups < 3))[:-1]  # 4, 4 and 3 rows
    query = np.flatnonzero((np.arange(len(y)) % 10 >= 8) & (groups < 3))[::-1]
    adapted = model.adapt(X[support], y[support], groups=groups[support])
    table = adapted.support_weights(X[query], groups=groups[query])
    assert len(table) == 2 * (4 + 4 + 3) + len(query)
    np.testing.assert_allclose(table.groupby("row").weight.sum(), 1.0, rtol=1e-5)
    own = table[table.support_row >= 0]
    queried, used = groups[query][own.row], groups[support][own.support_row]
    np.testing.assert_array_equal(queried, used)
    assert own.groupby("row").weight.is_monotonic_decreasing.all()

    early, late = support[::2], support[1::2]
    begun = model.adapt(X[early], y[early], groups=groups[early])
    updated = begun.update(X[late], y[late], groups=groups[late])
    both = updated.support_weights(X[query], groups=groups[query])
    order = np.r_[support[::2], support[1::2]]
    renamed = both.assign(origin=np.r_[order, -1][both.support_row])
    expected = table.assign(origin=np.r_[support, -1][table.support_row])
    columns = ["row", "origin"]
    np.testing.assert_allclose(
        renamed.sort_values(columns).weight, expected.sort_values(columns).weight, rtol=1e-5
    )


def test_the_population_rests_on_nobody(sinusoids):
    X, y, groups = sinusoids
    model = MetaClassifier(MatchingNet(8), max_steps=5, random_state=0, verbose=False)
    table = model.fit(X, y > 0, groups=groups).unadapted().support_weights(X[:3])
    assert table.support_row.tolist() == [-1, -1, -1]
    assert table.weight.tolist() == [1.0, 1.0, 1.0]


def test_learners_without_support_weights_raise(sinusoids):
    X, y, groups = sinusoids
    model = MetaRegressor(MAML(inner_steps=1), max_steps=2, random_state=0, verbose=False)
    with pytest.raises(DataError, match=r"MAML has no support weights.*MatchingNet"):
        model.fit(X, y, groups=groups).adapt(X[:3], y[:3]).support_weights(X[3:5])
    with pytest.raises(DataError, match=r"LastValue has no support weights"):
        LastValue().fit(X, y, groups=groups).adapt(X[:3], y[:3]).support_weights(X[3:5])
    with pytest.raises(DataError, match="similarity must be one of"):
        MetaRegressor(MatchingNet(similarity="l1")).fit(X, y, groups=groups)
