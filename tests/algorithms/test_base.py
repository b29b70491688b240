"""The contract's own parts: losses, parameters by prefix, documentation of parents."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature

import pytest
import torch

from ehrmeta import MAML, MLP, MetaRegressor, Population, make_sinusoid
from ehrmeta.algorithms import ALGORITHMS, Algorithm, part, query_loss, support_loss
from ehrmeta.algorithms._base import all_rows, calibration_loss
from ehrmeta.algorithms.maml import support_error
from tests.algorithms.one_task import N_FEATURES, points, started


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_parameter_is_documented_in_order(name):
    algorithm = ALGORITHMS[name]
    names = list(signature(algorithm).parameters)
    places = [f"\n{algorithm.__doc__}".find(f"\n{name} : ") for name in names]
    assert -1 not in places
    assert places == sorted(places)


@dataclass(eq=False, repr=False)
class Warmer(MAML):
    """MAML with one parameter more.

    Parameters
    ----------
    warmth : float
        Of nothing.

    References
    ----------
    None.
    """

    warmth: float = 1.0


@dataclass(eq=False, repr=False)
class Untold(MAML):
    warmth: float = 1.0


def test_a_child_documents_its_parents_parameters_before_its_own():
    sections = Warmer.__doc__.split("\n\n")
    assert [section.partition("\n")[0] for section in sections] == [
        "MAML with one parameter more.",
        "Parameters",
        "References",
    ]
    assert sections[1].index("inner_lr : ") < sections[1].index("warmth : ")
    assert "inner_lr : " not in (Untold.__doc__ or "")


def test_part_takes_out_one_prefix():
    params = {"a.x": torch.tensor(1.0), "ab.x": torch.tensor(2.0), "a.b.y": torch.tensor(3.0)}
    assert list(part(params, "a")) == ["x", "b.y"]


def test_query_loss_is_the_weighted_mean_and_0_without_a_query():
    spec, params = started(Population())
    query = points(4)
    predictive = Population().predict(spec, params, {"n": torch.tensor(0.0)}, query)
    log_prob = spec.likelihood.log_prob(predictive, query.y)
    torch.testing.assert_close(query_loss(spec, predictive, query), -log_prob.mean())
    weight = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    weighted = query_loss(spec, predictive, query._replace(weight=weight))
    torch.testing.assert_close(weighted, -log_prob[:2].mean())
    assert float(query_loss(spec, predictive, query._replace(weight=0.0 * weight))) == 0.0


def test_calibration_loss_is_the_loss_with_a_gradient_for_the_likelihood_alone():
    algorithm = MAML()
    spec, params = started(algorithm)
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    support, query = points(3), points(4, seed=1)
    loss = calibration_loss(algorithm, spec, leaves, support, query, also=("log_pseudo_count",))
    loss.backward()
    expected = algorithm.loss(spec, params, support, query, torch.tensor(1.0))
    torch.testing.assert_close(loss, expected)
    learned = {name for name, value in leaves.items() if value.grad is not None}
    assert learned == {"likelihood.log_within", "likelihood.log_between", "log_pseudo_count"}


def test_all_rows_puts_the_query_after_the_support():
    support, query = points(3), points(2, seed=1)
    rows = all_rows(support, query)
    assert rows.y.tolist() == support.y.tolist() + query.y.tolist()
    assert float(rows.n) == 5.0


@dataclass(eq=False, repr=False)
class LevelAsFeature(Algorithm):
    """The mean outcome of the support is one more input of the user's backbone."""

    def n_inputs(self, n_features):
        return n_features + 1

    def adapt(self, spec, params, support):
        return {"n": support.n, "level": support.weight @ support.y / (1.0 + support.n)}

    def predict(self, spec, params, state, query):
        level = state["level"].expand(len(query.y), 1)
        output = spec.output(params, torch.cat([query.x, level], 1))
        return spec.predictive(params, output, query, state["n"])


def test_a_context_is_appended_to_the_features_in_the_users_backbone():
    spec, params = started(LevelAsFeature(), MLP((5,)))
    assert params["network.0.weight"].shape == (5, N_FEATURES + 1)
    assert spec.n_features == N_FEATURES
    X, y, groups = make_sinusoid(n_tasks=10, n_points=6, random_state=0)
    model = MetaRegressor(LevelAsFeature(), MLP((5,)), max_steps=3, random_state=0)
    adapted = model.fit(X, y, groups=groups).adapt(X[:3], y[:3])
    assert (adapted.predict(X[3:]) != model.predict(X[3:])).all()


@pytest.mark.parametrize("pseudo_count", [0.0, 2.0])
def test_support_error_is_the_gradient_of_the_support_loss(pseudo_count):
    spec, params = started(MAML(pseudo_count=pseudo_count))
    support = points(3)._replace(offset=torch.tensor([0.5, 0.0, -1.0], dtype=torch.float64))
    output = spec.output(params, support.x)
    gradient = torch.func.grad(lambda z: support_loss(spec, params, z, support))(output)
    torch.testing.assert_close(gradient, support_error(spec, params, support)(output))
    loss = support_loss(spec, params, output, support)
    squares = 0.5 * (output[:, 0] + support.offset - support.y).square()
    torch.testing.assert_close(loss, squares.sum() / (3.0 + pseudo_count))


def test_support_loss_of_an_empty_support_is_0():
    spec, params = started(Population())
    empty = points(2)._replace(weight=torch.zeros(2, dtype=torch.float64))
    assert float(support_loss(spec, params, spec.output(params, empty.x), empty)) == 0.0
