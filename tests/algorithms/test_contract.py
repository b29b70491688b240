"""Laws every registered algorithm keeps, each by its kind: what its class attributes say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.func import vmap

from ehrmeta import (
    MAML,
    MLP,
    DeepMixedEffects,
    MatchingNet,
    NeuralProcess,
    PrototypicalNet,
    RelationNet,
)
from ehrmeta.algorithms import ALGORITHMS, Algorithm
from ehrmeta.errors import DataError
from ehrmeta.nn import Bernoulli, Categorical, ClassLikelihood, Normal, StudentT, TaskSet

# Small enough for finite differences; the others are small at their defaults.
SMALL = {
    "anil": {"width": 6},
    "bayesian-head": {"width": 4, "newton_steps": 3},
    "carry-forward": {"n_deep": 2},
    "deep-mixed-effects": {"n_deep": 2},
    "fine-tune": {"inner_steps": 5},
    "learned-optimizer": {"inner_steps": 2, "width": 2},
    "matching-net": {"width": 4},
    "meta-networks": {"width": 4, "base_width": 5, "meta_width": 3},
    "neural-process": {"width": 6},
    "per-task": {"inner_steps": 5},
    "prototypical-net": {"width": 4},
    "relation-net": {"width": 4, "hidden": 5},
    "reptile": {"inner_steps": 3},
}
CASES: dict[str, Algorithm] = {
    **{name: algorithm(**SMALL.get(name, {})) for name, algorithm in ALGORITHMS.items()},
    "maml, textbook mean": MAML(pseudo_count=0.0, learn_inner_lr=False),
    "maml, low rank": MAML(inner_steps=1),
    "maml, first order": MAML(first_order=True),
    "maml, multi-step": MAML(multi_step_loss=True),
    "maml, annealed": MAML(first_order_share=0.4),
    "prototypical-net, mahalanobis": PrototypicalNet(4, "mahalanobis"),
    "matching-net, dot": MatchingNet(4, "dot"),
    "matching-net, cosine": MatchingNet(4, "cosine"),
    "relation-net, additive": RelationNet(4, hidden=3, additive=True),
    "neural-process, conditional": NeuralProcess(6, attentive=False),
    "deep-mixed-effects, in weight space": DeepMixedEffects(n_deep=1, ornstein_uhlenbeck=False),
    "deep-mixed-effects, heteroscedastic": DeepMixedEffects(heteroscedastic=True, correction=False),
}
LIKELIHOODS = {
    "normal": Normal(),
    "student_t": StudentT(),
    "bernoulli": Bernoulli(),
    "categorical": Categorical(3),
}
N_FEATURES, N_TASKS = 3, 5


@pytest.fixture(params=CASES, ids=str)
def algorithm(request):
    return clone(CASES[request.param])


@pytest.fixture(params=LIKELIHOODS, ids=str)
def spec(request, algorithm):
    likelihood = LIKELIHOODS[request.param]
    if likelihood.outcome not in algorithm.serves:
        with pytest.raises(DataError, match="Use "):
            algorithm.check(likelihood)
        pytest.skip("serves no such outcome")
    return algorithm.spec(MLP((8, 8), "tanh"), likelihood, N_FEATURES)


@pytest.fixture
def params(algorithm, spec):
    generator = torch.Generator().manual_seed(0)
    return {k: p.double() for k, p in algorithm.init(spec, generator).items()}


def _sets(*shape: int, seed: int = 0, n_real: int | None = None) -> TaskSet:
    """Random sets (..., point) of which the first `n_real` points are real."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, N_FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randn(*shape, generator=generator, dtype=torch.float64)
    mask = (torch.arange(shape[-1]) < (shape[-1] if n_real is None else n_real)).expand(shape)
    zeros = torch.zeros(shape, dtype=torch.float64)
    weight = mask.double()
    return TaskSet(x=x, y=y, time=zeros, mask=mask, weight=weight, offset=zeros)


def _at(batch: TaskSet, i: int) -> TaskSet:
    return TaskSet(*(tensor[i] for tensor in batch))


def _classed(spec, rows: TaskSet) -> TaskSet:
    """Outcomes as class numbers where the likelihood asks for them."""
    if not isinstance(spec.likelihood, ClassLikelihood):
        return rows
    top = spec.likelihood.n_classes - 1
    return rows._replace(y=(rows.y + 0.5 * top).round().clamp(0, top))


def _predict(algorithm, spec, params, support, query):
    support = _classed(spec, support)
    return algorithm.predict(spec, params, algorithm.adapt(spec, params, support), query)


def test_garbage_in_padded_rows_changes_nothing(algorithm, spec, params):
    query, support = _sets(4, seed=1), _sets(6, n_real=4)
    garbage = torch.where(support.mask, 1.0, 1e6)
    dirty = support._replace(x=support.x * garbage[:, None], y=support.y * garbage)
    short = TaskSet(*(tensor[:4] for tensor in support))
    clean = _predict(algorithm, spec, params, short, query)
    for padded in (support, dirty):
        torch.testing.assert_close(_predict(algorithm, spec, params, padded, query), clean)


def test_order_of_the_support_changes_nothing(algorithm, spec, params):
    query, support = _sets(4, seed=1), _sets(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = TaskSet(*(tensor[order] for tensor in support))
    torch.testing.assert_close(
        _predict(algorithm, spec, params, permuted, query),
        _predict(algorithm, spec, params, support, query),
    )


def test_vmapped_equals_looped(algorithm, spec, params):
    support, query = _sets(N_TASKS, 6, n_real=5), _sets(N_TASKS, 4, seed=1)
    batched = vmap(lambda s, q: _predict(algorithm, spec, params, s, q))(support, query)
    for i in range(N_TASKS):
        one = _predict(algorithm, spec, params, _at(support, i), _at(query, i))
        torch.testing.assert_close({k: v[i] for k, v in batched.items()}, one)


def test_an_empty_support_is_the_population(algorithm, spec, params):
    query = _sets(4, seed=1)
    empty = _predict(algorithm, spec, params, _sets(0), query)
    masked = _predict(algorithm, spec, params, _sets(3, n_real=0), query)
    torch.testing.assert_close(masked, empty)
    embeds = algorithm.n_outputs(spec.likelihood) != spec.likelihood.n_outputs
    appends = algorithm.n_inputs(N_FEATURES) != N_FEATURES
    starts = algorithm.keeps_start  # at a model of its own
    if starts or embeds or appends or isinstance(spec.likelihood, ClassLikelihood):
        return
    if not algorithm.pools:  # knows no other task: the mean of the training rows
        assert not empty["loc"].any()
        return
    torch.testing.assert_close(empty["loc"], spec.output(params, query.x)[:, 0])


def test_uncertainty_shrinks_as_rows_come_in(algorithm, spec, params):
    if isinstance(spec.likelihood, ClassLikelihood):
        pytest.skip("classes have no scale")
    if not algorithm.adapts:
        pytest.skip("no adaptation, no own rows to be surer by")
    query = _sets(1, seed=1)
    scales = [
        float(_predict(algorithm, spec, params, _sets(k), query)["scale"]) for k in (0, 1, 5, 50)
    ]
    assert scales == sorted(scales, reverse=True)
    within = math.exp(float(params["likelihood.log_within"]))
    assert within < scales[-1] < scales[0]


def test_offset_shifts_the_prediction_and_not_the_adaptation(algorithm, spec, params):
    """A population model's offset on both sides is the same as subtracting it from y."""
    if isinstance(spec.likelihood, ClassLikelihood):
        pytest.skip("an offset of log-odds is no shift of y")
    support, query = _sets(6), _sets(4, seed=1)
    shifted = _predict(
        algorithm,
        spec,
        params,
        support._replace(y=support.y + 2.0, offset=support.offset + 2.0),
        query._replace(offset=query.offset + 2.0),
    )
    plain = _predict(algorithm, spec, params, support, query)
    torch.testing.assert_close(shifted["loc"], plain["loc"] + 2.0)


def test_offset_adds_to_the_log_odds_of_the_second_class(algorithm, spec, params):
    if not isinstance(spec.likelihood, Bernoulli):
        pytest.skip("one offset is one log-odds")
    support, query = _sets(6), _sets(4, seed=1)
    odds = []
    for offset in (-2.0, 0.0, 2.0):
        shifted = query._replace(offset=query.offset + offset)
        logits = _predict(algorithm, spec, params, support, shifted)["logits"]
        odds.append(logits[:, 1] - logits[:, 0])
    for lower, higher in itertools.pairwise(odds):
        assert bool((higher - lower > 0.5).all())
        assert bool((higher - lower < 2.0 + 1e-9).all())


def test_weight_counts_a_row_as_often(algorithm, spec, params):
    support, query = _sets(3), _sets(4, seed=1)
    doubled = TaskSet(*(torch.cat([tensor, tensor[:1]]) for tensor in support))
    weighted = support._replace(weight=torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(
        _predict(algorithm, spec, params, weighted, query),
        _predict(algorithm, spec, params, doubled, query),
    )


def test_meta_gradient_equals_finite_differences(algorithm, spec, params):
    if getattr(algorithm, "first_order", False):
        pytest.skip("FOMAML's gradient is not the loss's own, by definition")
    if algorithm.surrogate_loss:
        pytest.skip("trained along a direction of its own, by definition")
    if type(algorithm) is DeepMixedEffects:
        # The correction's factor of the scale has a loss of its own, in which the rest is fixed.
        algorithm.set_params(correction=False)
    support, query = _classed(spec, _sets(3)), _classed(spec, _sets(2, seed=1))
    learned = {k: p for k, p in params.items() if not (k.startswith("rate") and _fixed(algorithm))}
    fixed = {k: p for k, p in params.items() if k not in learned}

    def loss(*leaves):
        trial = fixed | dict(zip(learned, leaves, strict=True))
        return algorithm.loss(spec, trial, support, query, 0.5)

    leaves = [p.clone().requires_grad_() for p in learned.values()]
    assert torch.autograd.gradcheck(loss, leaves, atol=1e-6)


def test_a_posterior_gives_own_rows_more_weight_as_they_come_in(algorithm, spec, params):
    query = _sets(4, seed=1)
    states = [
        algorithm.adapt(spec, params, _classed(spec, _sets(40, n_real=k))) for k in (0, 3, 40)
    ]
    weights = [algorithm.own_weight(spec, params, state, query) for state in states]
    if not algorithm.has_posterior:
        assert all(weight.isnan().all() for weight in weights)
        return
    none, few, many = weights
    torch.testing.assert_close(none, torch.zeros_like(none), atol=1e-6, rtol=0.0)
    assert bool(((none < few) & (few < many) & (many < 1.0)).all())


def test_a_consistent_fit_reaches_the_level_of_a_large_task(algorithm, spec, params):
    if not algorithm.consistent or isinstance(spec.likelihood, ClassLikelihood):
        pytest.skip("promises nothing for large supports, or has no level")
    support = _sets(400)
    support = support._replace(y=3.0 + 0.1 * support.y)
    loc = _predict(algorithm, spec, params, support, _sets(20, seed=1))["loc"]
    assert float((loc - 3.0).abs().mean()) < 0.1


def test_predictions_depend_on_the_support_where_it_adapts(algorithm, spec, params):
    query = _sets(4, seed=1)
    one, other = (_predict(algorithm, spec, params, _sets(6, seed=i), query) for i in (2, 3))
    changed = any(not torch.equal(one[name], other[name]) for name in one)
    assert changed == algorithm.adapts


def test_hyper_parameters_are_never_changed(algorithm, spec, params):
    before = algorithm.get_params()
    support, query = _classed(spec, _sets(3)), _classed(spec, _sets(2, seed=1))
    algorithm.loss(spec, params, support, query, 0.5)
    assert algorithm.get_params() == before
    assert np.all([not name.startswith("_") for name in vars(algorithm)])


def _fixed(algorithm) -> bool:
    return not getattr(algorithm, "learn_inner_lr", True)
