from __future__ import annotations

import sys

import pytest

from benchmarks.speed.meta_gradient import check_equal, compare_methods, method_table
from benchmarks.speed.methods import METHODS, torch_func
from benchmarks.speed.problem import Case, draw_problem, ragged_problem
from ehrmeta.errors import EhrmetaError, MissingExtraError

SMALL = Case(n_features=3, width=8, shots=4, queries=5, n_tasks=6, steps=2)
OPTIONAL = {"JAX, jitted vmap": "jax", "task loop, higher": "higher"}


@pytest.mark.parametrize("method", [name for name in METHODS if name != "torch.func vmap"])
@pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:higher", "ignore::UserWarning:higher")
def test_every_method_computes_the_meta_gradient_of_torch_func(method: str, ragged: bool) -> None:
    if method in OPTIONAL:
        pytest.importorskip(OPTIONAL[method], reason="the bench extra is not installed")
    if ragged and method == "ehrmeta, compiled":
        pytest.skip("compiling once is enough: the mask is data")
    problem = ragged_problem(8, width=8) if ragged else draw_problem(SMALL)
    gradients = {name: METHODS[name](problem)() for name in ("torch.func vmap", method)}
    errors = check_equal(gradients, problem.name)
    assert errors[method] < 1e-5


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
    found = {(r.method, r.metric): r for r in records}
    ours = found["ehrmeta, low rank", "ms"]
    assert ours.value is not None and ours.low is not None and ours.high is not None
    assert 0 < ours.low <= ours.value <= ours.high
    assert found["ehrmeta, low rank", "ratio"].value == 1.0
    assert found["", "padding"].value == 0.0
    assert (found["ehrmeta, low rank", "share_of_product"].value or 0) > 0


def test_a_ragged_batch_is_padded_and_says_how_much() -> None:
    problem = ragged_problem(16)
    assert 0.0 < problem.padding < 0.9
    assert problem.n_tasks == 16
