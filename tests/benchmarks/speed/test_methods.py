from __future__ import annotations

import pytest

from benchmarks.speed.meta_gradient import check_equal
from benchmarks.speed.methods import METHODS
from benchmarks.speed.problem import Case, draw_problem, ragged_problem

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
