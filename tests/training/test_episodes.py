"""Episodes never look ahead."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch._C._functorch import get_unwrapped

from ehrmeta import MAML, MLP, DeepMixedEffects
from ehrmeta.errors import MemoryWarning
from ehrmeta.nn import Categorical, ClassLikelihood, Normal, TaskSet
from ehrmeta.training import EpisodeLoss, EpisodeSampler
from tests.algorithms.test_contract import CASES as CONTRACT_CASES
from tests.training.small import rows_of


@pytest.mark.parametrize("shots", [(0, 10), (2, 2), (0, 0)])
def test_timed_support_is_the_first_rows_and_queries_lie_strictly_later(shots):
    rows = rows_of([1, 2, 3, 7, 12])
    sampler = EpisodeSampler(rows, shots, 4, 1.0)
    tasks = torch.arange(5).repeat(20)
    support, query = sampler.draw(tasks, torch.Generator().manual_seed(0))
    sizes = support.mask.sum(1)
    assert (sizes <= torch.minimum(rows.sizes[tasks] - 1, torch.tensor(shots[1]))).all()
    assert (sizes >= torch.minimum(rows.sizes[tasks] - 1, torch.tensor(shots[0]))).all()
    for i, task in enumerate(tasks.tolist()):
        rows_of_task = torch.arange(int(rows.starts[task]), int(rows.starts[task + 1]))
        chosen = support.x[i, support.mask[i], 0].long()
        queried = query.x[i, query.mask[i], 0].long()
        expected = rows.origin[rows_of_task[: len(chosen)]]
        assert chosen.tolist() == expected.tolist()
        if len(chosen):
            time = torch.empty(rows.n_rows, dtype=torch.float64)
            time[rows.origin] = rows.time
            assert (time[queried] > time[chosen].max()).all()
        assert len(set(queried.tolist())) == len(queried) <= 4
        assert set(queried.tolist()) <= set(rows.origin[rows_of_task].tolist())


def test_untimed_support_and_query_are_disjoint_randomrows_of():
    rows = rows_of([6, 9], timed=False)
    sampler = EpisodeSampler(rows, (1, 5), 3, 1.0)
    tasks = torch.tensor([0, 1]).repeat(50)
    support, query = sampler.draw(tasks, torch.Generator().manual_seed(0))
    firsts = set()
    for i in range(len(tasks)):
        chosen = set(support.x[i, support.mask[i], 0].tolist())
        queried = set(query.x[i, query.mask[i], 0].tolist())
        assert chosen
        assert not chosen & queried
        firsts |= chosen
    assert len(firsts) == 15  # every row gets its turn


def test_supports_have_all_sizes_alike_and_queries_are_as_many_as_allowed():
    rows = rows_of([5, 9], timed=False)
    tasks = torch.tensor([0, 1]).repeat_interleave(600)
    support, query = EpisodeSampler(rows, (1, 6), 3, 1.0).draw(
        tasks, torch.Generator().manual_seed(0)
    )
    for task, largest in ((0, 4), (1, 6)):  # one row is left for the query
        sizes = support.mask[tasks == task].sum(1)
        counts = torch.bincount(sizes)[1:]
        assert len(counts) == largest
        assert (counts / 600 - 1 / largest).abs().max() < 0.06
        eligible = (5, 9)[task] - sizes
        assert query.mask[tasks == task].sum(1).tolist() == eligible.clamp(max=3).tolist()
    chosen = torch.cat([support.x[support.mask][:, 0], query.x[query.mask][:, 0]])
    counts = torch.bincount(chosen.long())
    assert counts[:5].min() > 0.8 * counts[:5].max()  # of one task, every row alike


N_TASKS, N_FEATURES = 6, 3


def _episode(likelihood, n_points: int, n_real: list[int], seed: int) -> TaskSet:
    generator = torch.Generator().manual_seed(seed)
    shape = (N_TASKS, n_points)
    mask = torch.arange(n_points) < torch.tensor(n_real)[:, None]
    y = torch.randn(shape, generator=generator)
    if isinstance(likelihood, ClassLikelihood):
        y = torch.randint(0, 3, shape, generator=generator).float()
    return TaskSet(
        x=torch.randn(*shape, N_FEATURES, generator=generator) * mask[..., None],
        y=y * mask,
        time=torch.rand(shape, generator=generator).double() * mask,
        mask=mask,
        weight=mask.float(),
        offset=torch.zeros(shape),
    )


def _problem(algorithm, likelihood):
    spec = algorithm.spec(MLP((8, 8), "tanh"), likelihood, N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    support = _episode(likelihood, 4, [0, 1, 2, 3, 4, 4], seed=1)
    query = _episode(likelihood, 5, [5, 4, 0, 2, 1, 5], seed=2)
    return spec, params, support, query


CASES = {**CONTRACT_CASES, "DeepMixedEffects": DeepMixedEffects()}


@pytest.mark.parametrize("name", CASES)
def test_recorded_equals_plain_bit_for_bit(name):
    algorithm = CASES[name]
    likelihood = Normal() if "real" in algorithm.serves else Categorical(3)
    spec, params, *episode = _problem(algorithm, likelihood)
    plain = EpisodeLoss(algorithm, spec, plain_calls=10)
    recorded = EpisodeLoss(algorithm, spec, plain_calls=0)
    for progress in (0.1, 0.9) if name == "maml, annealed" else (0.9,):
        losses, gradient = plain.gradient(params, *episode, progress)
        again, same = recorded.gradient(params, *episode, progress)
        assert losses[2] == 0.0  # a task without a query
        assert gradient.keys() == same.keys()
        torch.testing.assert_close(again, losses, rtol=0.0, atol=0.0)
        torch.testing.assert_close(same, gradient, rtol=0.0, atol=0.0)
    plain_losses, recorded_losses = (loss.losses(params, *episode) for loss in (plain, recorded))
    torch.testing.assert_close(recorded_losses, plain_losses, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_chunks_add_up_to_the_whole(chunk_size):
    spec, params, *episode = _problem(MAML(), Normal())
    whole = EpisodeLoss(MAML(), spec).gradient(params, *episode, 0.5)
    chunked = EpisodeLoss(MAML(), spec, chunk_size=chunk_size).gradient(params, *episode, 0.5)
    torch.testing.assert_close(chunked, whole)


def test_a_full_device_halves_the_chunk_and_says_so_once(monkeypatch):
    spec, params, *episode = _problem(MAML(), Normal())
    whole = EpisodeLoss(MAML(), spec).gradient(params, *episode, 0.5)
    exact = MAML.loss

    def loss_of_few(self, spec, params, support, query, progress):
        if get_unwrapped(query.y).shape[0] > 2:
            raise torch.OutOfMemoryError("no memory left")
        return exact(self, spec, params, support, query, progress)

    monkeypatch.setattr(MAML, "loss", loss_of_few)
    small = EpisodeLoss(MAML(), spec)
    with pytest.warns(MemoryWarning, match="at most 3 tasks at once") as warned:
        halved = small.gradient(params, *episode, 0.5)
        small.gradient(params, *episode, 0.5)
    assert len(warned) == 1
    torch.testing.assert_close(halved, whole)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [MAML(), MAML(inner_steps=1)], ids=["materialised", "keys"])
def test_compiled_differs_by_rounding_only(algorithm):
    spec, params, *episode = _problem(algorithm, Normal())
    plain = EpisodeLoss(algorithm, spec).gradient(params, *episode, 0.5)
    compiled = EpisodeLoss(algorithm, spec, compiled=True).gradient(params, *episode, 0.5)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("plain_calls", [0, 9])
def test_short_factors_change_the_gradient_by_their_own_rounding(plain_calls):
    spec, params, *episode = _problem(MAML(), Normal())
    exact = EpisodeLoss(MAML(), spec).gradient(params, *episode, 0.5)
    loss = EpisodeLoss(MAML(), spec, precision="bf16", plain_calls=plain_calls)
    short = loss.gradient(params, *episode, 0.5)
    torch.testing.assert_close(short, exact, rtol=0.1, atol=0.02)
    assert not torch.equal(short[0], exact[0])


@dataclass(eq=False, repr=False)
class Doubled(MAML):
    """MAML at twice the loss."""

    weights: list[float] = field(default_factory=lambda: [1.0, 2.0])

    def at(self, progress):
        return self if progress < 0.5 else Zeroed(**self.get_params(deep=False))

    def loss(self, *args):
        return self.weights[1] * super().loss(*args)


class Zeroed(Doubled):
    """The same values in another class."""

    def loss(self, *args):
        return 0.0 * super().loss(*args)


def test_stages_of_another_class_and_lists_as_parameters_have_their_own_gradient():
    spec, params, *episode = _problem(MAML(), Normal())
    losses, _ = EpisodeLoss(MAML(), spec).gradient(params, *episode, 0.1)
    staged = EpisodeLoss(Doubled(), spec, plain_calls=0)
    for _ in range(2):
        torch.testing.assert_close(staged.gradient(params, *episode, 0.1)[0], 2.0 * losses)
        assert (staged.gradient(params, *episode, 0.9)[0] == 0.0).all()


def test_a_parameter_that_the_loss_does_not_use_has_no_gradient():
    spec, params, *episode = _problem(MAML(), Normal())
    _, gradient = EpisodeLoss(MAML(), spec).gradient(
        {**params, "idle": torch.ones(2)}, *episode, 0.5
    )
    assert gradient.keys() == params.keys()
