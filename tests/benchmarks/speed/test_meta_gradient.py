from __future__ import annotations

import sys

import pytest

from benchmarks.speed.meta_gradient import (
    check_equal,
    compare_methods,
    meta_gradient_flops,
    method_table,
)
from benchmarks.speed.methods import METHODS, torch_func
from benchmarks.speed.problem import Case, draw_problem
from ehrmeta.errors import EhrmetaError, MissingExtraError


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


SMALL = Case(n_features=3, width=8, shots=4, queries=5, n_tasks=6, steps=2)


def test_the_check_catches_a_peer_that_forgets_the_second_order() -> None:
    problem = draw_problem(SMALL)
    right = torch_func(problem)()
    wrong = torch_func(draw_problem(SMALL._replace(steps=1)))()
    with pytest.raises(EhrmetaError, match=r"'one step' returns another meta-gradient .*: relat"):
        check_equal({"torch.func vmap": right, "one step": wrong}, problem.name)


def test_a_gradient_that_is_not_finite_is_caught() -> None:
    gradient = torch_func(draw_problem(SMALL))()
    broken = {name: value * float("nan") for name, value in gradient.items()}
    with pytest.raises(EhrmetaError, match="nan"):
        check_equal({"torch.func vmap": gradient, "broken": broken}, "case")


def test_a_wrong_method_is_never_timed(monkeypatch) -> None:
    low_rank = METHODS["ehrmeta, low rank"]
    monkeypatch.setitem(METHODS, "other start", lambda _: low_rank(draw_problem(SMALL, seed=1)))
    with pytest.raises(EhrmetaError, match="'other start'"):
        compare_methods(draw_problem(SMALL), ("torch.func vmap", "other start"), seconds=0.0)


def test_a_peer_that_is_not_installed_has_a_row_that_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "higher", None)
    names = ("ehrmeta, low rank", "torch.func vmap", "task loop, higher")
    records = compare_methods(draw_problem(SMALL), names, seconds=0.0, min_rounds=1)
    (row,) = (r for r in records if r.method == "task loop, higher")
    assert row.value is None
    assert "not installed" in method_table(records)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrmeta\[bench\]'"):
        compare_methods(draw_problem(SMALL), names, seconds=0.0, required=["task loop, higher"])


def test_records_hold_times_ratios_and_rates() -> None:
    methods = ("ehrmeta, low rank", "torch.func vmap")
    wide = draw_problem(SMALL._replace(width=64))  # where the low-rank form is the cheaper one
    records = compare_methods(wide, methods, seconds=0.0, min_rounds=2)
    by_key = {(r.method, r.metric): r for r in records}
    ours = by_key["ehrmeta, low rank", "ms"]
    assert ours.value is not None and ours.low is not None and ours.high is not None
    assert 0 < ours.low <= ours.value <= ours.high
    assert by_key["ehrmeta, low rank", "ratio"].value == 1.0
    assert by_key["", "padding"].value == 0.0
    assert (by_key["ehrmeta, low rank", "share_of_product"].value or 0) > 0
