"""Useful arithmetic of one second-order meta-gradient in low-rank form."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["meta_gradient_flops"]


def meta_gradient_flops(
    widths: Sequence[int], n_support: int, n_query: int, steps: int, n_tasks: int = 1
) -> int:
    r"""Floating-point operations of the matrix products, two per multiply-add.

    With ``m`` keys a layer ``i -> o`` costs ``i o + m (i + o)`` multiply-adds a point forward
    (``W x``, ``K x`` and ``V^T (Kx + 1)``) and as many to carry an error back. Step ``s`` of the
    inner loop runs the support forward through all layers and back through all but the first,
    with ``m = (s - 1) n`` keys; the query runs forward with ``m = S n``. The first layer sees the
    same inputs at every step, so its values add up on one block of ``n`` keys.

    The outer gradient costs two products of the same size for every product of two things that
    depend on the parameters, and one where a factor is data: the first layer's ``W x``, and its
    values times ``Kx + 1``, whose ``Kx`` itself needs none. Activations, sums and the loss are not
    counted, nor is what padding adds.

    Parameters
    ----------
    widths : sequence of int
        Features, hidden units, outputs.
    n_support, n_query : int
        Points of each task.
    steps : int
        Inner steps S.
    n_tasks : int

    Examples
    --------
    One task of one point each, through one hidden unit: 9 multiply-adds forward, 13 backward.

    >>> meta_gradient_flops((1, 1, 1), 1, 1, 1)
    44
    """
    layers = list(zip(widths[:-1], widths[1:], strict=True))
    passes = [(n_support, s * n_support, True) for s in range(steps)]
    passes.append((n_query, steps * n_support, False))
    multiply_adds = 0
    for n_points, n_keys, is_step in passes:
        for layer, (i, o) in enumerate(layers):
            if layer == 0:
                keys = min(n_keys, n_support)
                multiply_adds += n_points * (2 * i * o + keys * (i + 2 * o))
                continue
            forward = n_points * (i * o + n_keys * (i + o))
            multiply_adds += 3 * forward * (2 if is_step else 1)
    return 2 * n_tasks * multiply_adds
