"""Operators in elementary ones: the numbers of torch's own."""

import pytest
import torch

from ehrmeta.estimators.export.linear_algebra import ELEMENTARY, cholesky

ATEN = torch.ops.aten


@pytest.fixture(scope="module", params=[1, 5])
def matrix(request):
    root = torch.randn(2, request.param, request.param, generator=torch.Generator().manual_seed(0))
    return (root @ root.mT + torch.eye(request.param)).double()


def test_cholesky_and_solutions_equal_torch(matrix):
    factor = torch.linalg.cholesky(matrix)
    found, failed = ELEMENTARY[ATEN.linalg_cholesky_ex.default](matrix)
    torch.testing.assert_close(found, factor)
    assert not failed.any()
    right = torch.arange(2.0 * matrix.shape[-1] * 3).reshape(2, -1, 3).double()
    torch.testing.assert_close(
        ELEMENTARY[ATEN.cholesky_solve.default](right, factor), torch.cholesky_solve(right, factor)
    )
    solve = ELEMENTARY[ATEN.linalg_solve_triangular.default]
    for upper in (False, True):
        triangle = factor.mT if upper else factor
        for left in (False, True):
            sides = right if left else right.mT
            expected = torch.linalg.solve_triangular(triangle, sides, upper=upper, left=left)
            torch.testing.assert_close(solve(triangle, sides, upper=upper, left=left), expected)


def test_a_matrix_without_a_factor_is_marked():
    both = torch.stack([torch.eye(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])])
    assert cholesky(both)[1].tolist() == [0, 1]


def test_asinh_and_running_maximum_equal_torch():
    x = torch.tensor([-1e6, -2.0, -1e-9, 0.0, 1e-9, 0.5, 1e6], dtype=torch.float64)
    torch.testing.assert_close(
        ELEMENTARY[ATEN.asinh.default](x), torch.asinh(x), rtol=1e-14, atol=0.0
    )
    positions = torch.tensor([[2, -1, 3, 0], [-1, -1, 0, 4]])
    for dim in (0, 1):
        values, _ = ELEMENTARY[ATEN.cummax.default](positions, dim)
        assert values.equal(positions.cummax(dim).values)
