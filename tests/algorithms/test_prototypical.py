"""`PrototypicalNet` is the nearest centroid of its embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import empirical_covariance
from sklearn.neighbors import NearestCentroid

from ehrmeta import MetaClassifier, MetaRegressor, PrototypicalNet, TorchModule, make_sinusoid
from ehrmeta.algorithms import Spec
from ehrmeta.errors import DataError
from ehrmeta.nn import Bernoulli, Categorical
from tests.algorithms.one_task import N_FEATURES, points

IDENTITY = TorchModule(lambda n_features, n_outputs: torch.nn.Identity())


def _net(likelihood, **parameters):
    algorithm = PrototypicalNet(N_FEATURES, prior_count=0.0, class_frequencies=False, **parameters)
    spec = Spec(IDENTITY.network(N_FEATURES, N_FEATURES), likelihood, N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    return algorithm, spec, {name: value.double() for name, value in params.items()}


def _labelled(n: int, n_classes: int, seed: int = 0):
    rows = points(n, seed)
    y = (torch.arange(n) % n_classes).double()
    return rows._replace(y=y, x=rows.x + y[:, None])


@pytest.mark.parametrize("likelihood", [Bernoulli(), Categorical(4)], ids=["2", "4"])
def test_identity_embedding_equals_nearest_centroid(likelihood):
    algorithm, spec, params = _net(likelihood)
    support, query = _labelled(13, likelihood.n_classes), _labelled(200, likelihood.n_classes, 1)
    state = algorithm.adapt(spec, params, support)
    logits = algorithm.predict(spec, params, state, query)["logits"]
    oracle = NearestCentroid().fit(support.x.numpy(), support.y.numpy())
    np.testing.assert_allclose(state["prototypes"].numpy(), oracle.centroids_, atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(-1).numpy(), oracle.predict(query.x.numpy()))


def test_mahalanobis_divides_by_the_covariance_within_classes():
    algorithm, spec, params = _net(Bernoulli(), distance="mahalanobis")
    params["log_cov_count"] = torch.tensor(-30.0).double()
    params["log_scale"] = torch.zeros(()).double()
    support, query = _labelled(40, 2), _labelled(6, 2, 1)
    state = algorithm.adapt(spec, params, support)
    logits = algorithm.predict(spec, params, state, query)["logits"]
    x, y = support.x.numpy(), support.y.numpy()
    centers = np.stack([x[y == k].mean(0) for k in (0, 1)])
    precision = np.linalg.inv(
        empirical_covariance(x - centers[y.astype(int)], assume_centered=True)
    )
    gap = query.x.numpy()[:, None] - centers
    expected = -0.5 * np.einsum("pki,ij,pkj->pk", gap, precision, gap)
    contrast = (logits[:, 1] - logits[:, 0]).numpy()
    np.testing.assert_allclose(contrast, expected[:, 1] - expected[:, 0], rtol=1e-4)


@pytest.mark.parametrize("distance", ["euclidean", "mahalanobis"])
def test_a_class_missing_from_the_support_keeps_its_prior_prototype(distance):
    algorithm, spec, params = _net(Categorical(3), distance=distance)
    support = _labelled(8, 2)
    state = algorithm.adapt(spec, params, support)
    torch.testing.assert_close(state["prototypes"][2], params["prior"][2])
    logits = algorithm.predict(spec, params, state, points(4, seed=1))["logits"]
    assert logits.isfinite().all()


def test_class_frequencies_follow_the_support():
    algorithm = PrototypicalNet(N_FEATURES)
    spec = Spec(IDENTITY.network(N_FEATURES, N_FEATURES), Bernoulli(), N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    params = {name: value.double() for name, value in params.items()}
    support = points(30)
    rare = algorithm.adapt(spec, params, support._replace(y=(support.y > 1.5).double()))
    even = algorithm.adapt(spec, params, points(0))
    assert rare["log_frequency"][1] < even["log_frequency"][1] == pytest.approx(np.log(0.5))


def test_regression_is_refused_with_what_to_use_instead():
    X, y, groups = make_sinusoid(n_tasks=8, n_points=5, random_state=0)
    with pytest.raises(DataError, match=r"needs classes.*Use MatchingNet.*MetaClassifier"):
        MetaRegressor(PrototypicalNet(), verbose=False).fit(X, y, groups=groups)
    with pytest.raises(DataError, match="distance must be"):
        MetaClassifier(PrototypicalNet(distance="cosine")).fit(X, y > 0, groups=groups)
