from __future__ import annotations

import pytest

from benchmarks.speed.meta_gradient import meta_gradient_flops


def test_count_equals_a_count_by_hand() -> None:
    """One task, widths (1, 2, 1), one support and one query point, one step.

    Forward, multiply-adds: support 2 + 2 and back through the second layer 2; query
    2 + key 1 + values 2 in the first layer, 2 + 2 + 1 in the second. Backward: 2 (data times error)
    + 2 * 2 + 2 * 2 for the support, 2 + 2 and 2 * 5 for the query.
    """
    forward = (2 + 2 + 2) + (2 + 1 + 2) + (2 + 2 + 1)
    backward = (2 + 4 + 4) + (2 + 2) + 10
    assert meta_gradient_flops((1, 2, 1), 1, 1, 1) == 2 * (forward + backward)


def test_no_step_is_an_ordinary_gradient() -> None:
    widths, n_query = (3, 5, 4, 1), 7
    products = 3 * 5, 5 * 4, 4 * 1
    # forward and the weight's gradient for all, the input's gradient for all but the first
    once = 2 * sum(products) + sum(products[1:])
    assert meta_gradient_flops(widths, 6, n_query, 0) == 2 * n_query * once


@pytest.mark.parametrize("steps", [1, 3])
def test_count_is_linear_in_tasks_and_grows_with_steps(steps: int) -> None:
    one = meta_gradient_flops((20, 64, 64, 1), 5, 10, steps)
    assert meta_gradient_flops((20, 64, 64, 1), 5, 10, steps, n_tasks=9) == 9 * one
    assert meta_gradient_flops((20, 64, 64, 1), 5, 10, steps + 1) > one
