"""Which tasks are held out, and when their losses count as a gain."""

import pytest
import torch

from ehrmeta.training.held_out import HELD_OUT_SHARE, gained, hold_out
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
    [(19, False, 0), (20, False, 2), (200, False, 20), (99, True, 0), (100, True, 30)],
)
def test_small_studies_hold_out_no_task(n_tasks, keeps_start, n_held_out):
    assert held_out(n_tasks, keeps_start=keeps_start) == n_held_out


def test_a_gain_is_more_than_two_standard_errors():
    before = torch.arange(100.0)
    noise = torch.linspace(-1.0, 1.0, 100)
    standard_error = noise.std() / 10
    assert gained(before, before - noise - 2.1 * standard_error)
    assert not gained(before, before - noise - 1.9 * standard_error)
