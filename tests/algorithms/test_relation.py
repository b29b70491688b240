"""`RelationNet` sees a support only through relations of embeddings."""

from __future__ import annotations

import pytest
import torch

from ehrmeta import PrototypicalNet, RelationNet
from ehrmeta.algorithms import Spec, part
from ehrmeta.errors import DataError
from ehrmeta.nn import MLP, Categorical
from tests.algorithms.one_task import N_FEATURES, points, started


def test_a_zero_initialised_relation_network_weights_all_rows_equally():
    algorithm = RelationNet(4)
    spec, params = started(algorithm)
    params |= {k: torch.zeros_like(v) for k, v in params.items() if k.startswith("relation.1")}
    support, query = points(7), points(3, seed=1)
    state = algorithm.adapt(spec, params, support)
    attention = algorithm.attention(spec, params, state, query)
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / 8))
    prior = spec.network.forward(part(params, "network"), {}, query.x)[:, 4]
    found = algorithm.predict(spec, params, state, query)["loc"]
    torch.testing.assert_close(found, (support.y.sum() + prior) / 8)


def test_scores_of_classes_are_relations_with_their_prototypes():
    algorithm, likelihood = RelationNet(4), Categorical(3)
    spec = Spec(MLP((6,)).network(N_FEATURES, 4), likelihood, N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    params = {name: value.double() for name, value in params.items()}
    support, query = points(9), points(3, seed=1)
    support = support._replace(y=(torch.arange(9) % 3).double())
    state = algorithm.adapt(spec, params, support)
    logits = algorithm.predict(spec, params, state, query)["logits"]
    embedded = spec.network.forward(part(params, "network"), {}, query.x)
    relation = MLP((32,)).network(12, 1)
    for k in range(3):
        reference = state["embedding"][k].expand(3, -1)
        pairs = torch.cat([embedded, reference, (embedded - reference).square()], -1)
        score = relation.forward(part(params, "relation"), {}, pairs)[:, 0]
        torch.testing.assert_close(logits[:, k], score + state["log_frequency"][k])
    with pytest.raises(DataError, match="RelationNet has no support weights"):
        algorithm.attention(spec, params, state, query)


def test_an_additive_relation_starts_at_the_nearest_prototype():
    """Silent g: a prototypical network, whose embedding and scale are the same."""
    likelihood = Categorical(3)
    relation = RelationNet(4, additive=True)
    prototypical = PrototypicalNet(4)
    spec = Spec(MLP((6,)).network(N_FEATURES, 4), likelihood, N_FEATURES)
    params = relation.init(spec, torch.Generator().manual_seed(0))
    params = {name: value.double() for name, value in params.items()}
    support, query = points(9), points(3, seed=1)
    support = support._replace(y=(torch.arange(9) % 3).double())
    found, expected = (
        algorithm.predict(spec, params, algorithm.adapt(spec, params, support), query)["logits"]
        for algorithm in (relation, prototypical)
    )
    torch.testing.assert_close(found, expected)


def test_an_additive_relation_treats_all_coordinates_alike():
    relation = RelationNet(4, hidden=5, additive=True)
    spec, params = started(relation)
    params["relation.1.weight"] = torch.randn(1, 5, dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1, 4])  # the last output is the prior row's prediction
    turned = dict(params)
    last = max(name for name in params if name.startswith("network.") and "weight" in name)
    for name in (last, last.replace("weight", "bias")):
        turned[name] = params[name][order]
    support, query = points(7), points(3, seed=1)
    found, expected = (
        relation.predict(spec, p, relation.adapt(spec, p, support), query)["loc"]
        for p in (turned, params)
    )
    torch.testing.assert_close(found, expected)
