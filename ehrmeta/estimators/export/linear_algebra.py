"""Operators of small matrices written in elementary ones, which every runtime has.

Sizes are fixed in a graph, so that loops over columns are unrolled: a column of a Cholesky factor
takes few operators, where one element at a time would take hundreds.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Lower Cholesky factor, (..., n, n), column by column, and 1 where there is none, (...).

    Examples
    --------
    >>> matrix = torch.tensor([[4.0, 2.0], [2.0, 5.0]])
    >>> cholesky(matrix)
    (tensor([[2., 0.],
            [1., 2.]]), tensor(0, dtype=torch.int32))
    """
    n = matrix.shape[-1]
    rows, rest, columns, pivots = torch.arange(n), matrix, [], []
    for j in range(n):
        pivot = rest[..., j, j]
        column = rest[..., :, j] / torch.sqrt(pivot)[..., None]
        column = torch.where(rows >= j, column, torch.zeros_like(column))
        rest = rest - column[..., :, None] * column[..., None, :]
        columns.append(column)
        pivots.append(pivot)
    failed = (~(torch.stack(pivots, -1) > 0)).any(-1)
    return torch.stack(columns, -1), failed.to(torch.int32)


def solve_triangular(factor: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    """``factor^-1 right`` for a triangular factor, (..., n, n), by substitution.

    Examples
    --------
    >>> factor = torch.tensor([[2.0, 0.0], [1.0, 4.0]])
    >>> solve_triangular(factor, torch.tensor([[2.0], [9.0]]), upper=False)
    tensor([[1.],
            [2.]])
    """
    n = factor.shape[-1]
    solved: list[Tensor] = [right[..., :1, :]] * n
    for j in reversed(range(n)) if upper else range(n):
        row = right[..., j, :] / factor[..., j, j][..., None]
        right = right - factor[..., :, j][..., None] * row[..., None, :]
        solved[j] = row
    return torch.stack(solved, -2)


def _cholesky_ex(
    matrix: Tensor, *, upper: bool = False, check_errors: bool = False
) -> tuple[Tensor, Tensor]:
    factor, failed = cholesky(matrix)
    return (factor.mT if upper else factor), failed


def _solve_triangular(
    factor: Tensor, right: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    if left:
        return solve_triangular(factor, right, upper=upper)
    return solve_triangular(factor.mT, right.mT, upper=not upper).mT


def _cholesky_solve(right: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    lower = factor.mT if upper else factor
    half = solve_triangular(lower, right, upper=False)
    return solve_triangular(lower.mT, half, upper=True)


def _asinh(x: Tensor) -> Tensor:
    """In double precision some runtimes have no such operator."""
    size = x.abs()
    return torch.sign(x) * torch.log1p(size + size * size / (1.0 + torch.sqrt(size * size + 1.0)))


def _cummax(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Running maximum and its position, over all pairs of positions."""
    x = x.movedim(dim, -1)
    position = torch.arange(x.shape[-1])
    smallest = torch.iinfo(x.dtype).min if not x.is_floating_point() else -torch.inf
    earlier = torch.where(position[:, None] >= position, x[..., None, :], smallest)
    return earlier.amax(-1).movedim(-1, dim), earlier.argmax(-1).movedim(-1, dim)


_ATEN = torch.ops.aten
ELEMENTARY: dict[Any, Callable[..., Any]] = {
    _ATEN.linalg_cholesky_ex.default: _cholesky_ex,
    _ATEN.linalg_solve_triangular.default: _solve_triangular,
    _ATEN.cholesky_solve.default: _cholesky_solve,
    _ATEN.asinh.default: _asinh,
    _ATEN.cummax.default: _cummax,
}
"""Functions that take the place of operators, by operator."""
