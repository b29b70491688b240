"""Which tasks are held out, and when their losses count as a gain."""

import pytest
import torch

from ehrmeta import MAML, MLP
from ehrmeta.nn import Normal
from ehrmeta.training import EpisodeLoss, EpisodeSampler
from ehrmeta.training.held_out import HELD_OUT_SHARE, HeldOut, gained, hold_out
from tests.training.small import rows_of


def held_out(n_tasks: int, *, keeps_start: bool) -> int:
    rows = rows_of([3] * n_tasks)
    generator = torch.Generator().manual_seed(0)
    learned, others = hold_out(rows, HELD_OUT_SHARE, generator, keeps_start=keeps_start)
    n_others = 0 if others is None else others.n_tasks
    assert learned.n_tasks + n_others == n_tasks
    return n_others


@pytest.mark.parametrize(
    ("n_tasks", "keeps_start", "n_held_out"),
    [
        (19, False, 0),
        (20, False, 2),
        (200, False, 20),
        (30_000, False, 1_500),
        (99, True, 0),
        (100, True, 30),
    ],
)
def test_small_studies_hold_out_no_task_and_large_ones_a_few(n_tasks, keeps_start, n_held_out):
    assert held_out(n_tasks, keeps_start=keeps_start) == n_held_out


def test_a_gain_is_more_than_two_standard_errors():
    before = torch.arange(100.0)
    noise = torch.linspace(-1.0, 1.0, 100)
    standard_error = noise.std() / 10
    assert gained(before, before - noise - 2.1 * standard_error)
    assert not gained(before, before - noise - 1.9 * standard_error)


def test_the_share_says_how_many_are_held_out_at_random():
    rows = rows_of([3] * 40)
    drawn = set()
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        learned, others = hold_out(rows, 0.26, generator, keeps_start=False)
        assert (learned.n_tasks, others.n_tasks) == (30, 10)
        assert sorted(torch.cat([learned.origin, others.origin]).tolist()) == list(range(120))
        drawn.add(tuple(others.origin.tolist()))
    assert len(drawn) == 5
    _, half = hold_out(rows_of([3] * 100), 0.5, generator, keeps_start=True)
    assert half.n_tasks == 50
    _, one = hold_out(rows, 0.026, generator, keeps_start=False)
    assert one.n_tasks == 1
    for share in (0.0, 0.02):
        assert hold_out(rows, share, generator, keeps_start=False)[1] is None


def test_held_out_losses_are_means_over_fixed_episodes_that_have_a_query():
    rows = rows_of([6, 1, 4])  # one task has no query after its support
    algorithm = MAML(inner_steps=1)
    spec = algorithm.spec(MLP((4,)), Normal(), 2)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    loss = EpisodeLoss(algorithm, spec)
    held_out = HeldOut(EpisodeSampler(rows, (1, 3), 4, 1.0), loss, seed=5)
    losses = torch.stack([loss.losses(params, *episode) for episode in held_out.episodes])
    counts = torch.stack([query.mask.any(1) for _, query in held_out.episodes]).sum(0)
    assert len(held_out.episodes) == 4
    torch.testing.assert_close(held_out.losses(params), losses.sum(0) / counts.clamp(min=1))
    again = HeldOut(EpisodeSampler(rows, (1, 3), 4, 1.0), loss, seed=5)
    assert torch.equal(held_out.losses(params), again.losses(params))
    other = HeldOut(EpisodeSampler(rows, (1, 3), 4, 1.0), loss, seed=6)
    assert not torch.equal(held_out.losses(params), other.losses(params))
