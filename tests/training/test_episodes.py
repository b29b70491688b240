"""Episodes never look ahead."""

from __future__ import annotations

import pytest
import torch

from ehrmeta.training import EpisodeSampler
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
