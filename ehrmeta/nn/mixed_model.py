"""Linear mixed model ``y = X beta + Z b + e`` by profiled REML or maximum likelihood.

The likelihood depends on each task through small cross-products (Z'Z, Z'X, Z'y), so the cost of an
evaluation does not depend on the number of rows. Rows are in task order; ``starts`` (task + 1,) are
the offsets of the tasks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrmeta.errors import DataError
from ehrmeta.nn.device import lbfgs

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_MAX_RATIO = 1e4  # largest ratio of a random effect's sd to the noise sd
_MIN_SHARE = 1e-12  # noise variance as a share of the outcome's mean square
_COLLINEAR = 1e-7  # singular values below this share of the largest count as 0 (float32 rounding)
_MIN_UNEXPLAINED = 0.02  # smallest share of a column's variance that earlier ones do not explain


@dataclass(frozen=True, eq=False)
class MixedModel:
    """Estimates of a linear mixed model.

    Attributes
    ----------
    beta : (feature,)
        Fixed effects; for collinear columns the minimum-norm solution (columns at unit scale).
    beta_cov : (feature, feature)
        Covariance of `beta`.
    G : (effect, effect)
        Covariance of the random effects b; singular where a variance was estimated as 0.
    noise_var : float
        sigma^2, the variance of e.
    log_likelihood : float
        Log-likelihood at the estimates; the restricted one if fitted with ``reml=True``.
    n_tasks : int
        Number of tasks with at least one row.
    """

    beta: Array
    beta_cov: Array
    G: Array
    noise_var: float
    log_likelihood: float
    n_tasks: int


def fit_mixed_model(
    x: Array, z: Array, y: Array, starts: Index, *, reml: bool = True, pattern: Index | None = None
) -> MixedModel:
    r"""Fit ``y = X beta + Z b + e``, ``b ~ N(0, G)``, ``e ~ N(0, sigma^2)``.

    With ``G = sigma^2 L L'`` and ``M_i = I + L' Z_i'Z_i L``, beta and sigma^2 have closed forms
    given the lower-triangular L, which minimises the profiled deviance

    .. math:: \sum_i \log|M_i| + \nu \log r^2(L) \; [+ \log|X' V(L)^{-1} X|]

    (the bracket and ``nu = n - p`` for REML, ``nu = n`` for maximum likelihood; r^2 is the
    generalised residual sum of squares). X and Z are orthonormalised first, so that the search does
    not depend on units, on the origin of time or on collinear or constant columns.

    Parameters
    ----------
    x : (row, feature)
        Fixed-effect design, the intercept included.
    z : (row, effect)
        Random-effect design, for example ``[1, time]``.
    y : (row,)
        Outcome.
    starts : (task + 1,)
        Offsets: task i has the rows ``starts[i]:starts[i + 1]``.
    reml : bool
        Restricted likelihood (unbiased variances), else maximum likelihood.
    pattern : (effect, effect), optional
        Structure of L in ``G = L L'``. At and below the diagonal, an entry is the number of a
        parameter (equal numbers share one), or -1 where L is 0. For example, 0, 1, 1 on the
        diagonal and -1 below it give independent effects, and the last two share a variance. By
        default, G is unrestricted.

    References
    ----------
    Bates, Maechler, Bolker, Walker (2015), doi:10.18637/jss.v067.i01.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> starts = np.arange(0, 2001, 10)
    >>> one = np.ones((2000, 1))
    >>> y = 5 + np.repeat(rng.normal(0, 2, 200), 10) + rng.normal(0, 1, 2000)
    >>> model = fit_mixed_model(one, one, y, starts)
    >>> bool(abs(model.G[0, 0] - 4) < 1), bool(abs(model.noise_var - 1) < 0.1)
    (True, True)
    """
    x, z, y, starts = _checked(x, z, y, starts)
    n = len(y)
    x_unit, x_back, x_logdet = orthonormal(x)
    z_unit, z_back = _effect_basis(z, pattern)
    if z_unit.shape[1] == 0 or not z_unit.any():
        raise DataError("z holds only zeros. Add a column of ones for a random intercept.")
    p, q = x_unit.shape[1], z_unit.shape[1]
    nu = n - p if reml else n
    if nu < 1:
        raise DataError(
            f"{n} rows are too few to estimate {p} fixed effects and a noise variance. "
            "Pass more rows or fewer features."
        )
    ols = x_unit.T @ y / n
    residual = y - x_unit @ ols
    xy = np.column_stack([x_unit, residual])  # (row, p + 1)
    gram = xy.T @ xy
    zz = cross_products(z_unit, z_unit, starts)  # (task, q, q)
    zxy = cross_products(z_unit, xy, starts)  # (task, q, p + 1)
    floor = max(_MIN_SHARE * float(y @ y), np.finfo(float).tiny)
    free, which, start = _free_entries(q, pattern)

    def profile(theta: Array) -> tuple[float, Array, Array, Array, float]:
        """Deviance without constants, its gradient, X'V^-1 X, the shift of beta, r^2."""
        root = np.zeros((q, q))
        root[free] = theta[which]
        shrunk, logdet = _shrinkage(zz, root)
        weighted = shrunk @ zxy  # (task, q, p + 1)
        s = gram - zxy.reshape(-1, p + 1).T @ weighted.reshape(-1, p + 1)
        information = s[:p, :p]
        factor = np.linalg.cholesky(information)
        shift: Array = np.linalg.inv(information) @ s[:p, p]
        raw = float(s[p, p] - s[:p, p] @ shift)
        r2 = max(raw, floor)
        cross = zxy - zz @ weighted  # Z' V^-1 [X, y]
        score = cross[:, :, p] - cross[:, :, :p] @ shift  # Z' V^-1 (y - X beta)
        slope = (zz - zz @ shrunk @ zz).sum(axis=0)
        if raw > floor:
            slope -= nu / r2 * score.T @ score
        deviance = float(logdet.sum() + nu * np.log(r2))
        if reml:
            half = np.linalg.solve(factor, cross[:, :, :p].reshape(-1, p).T)  # (p, task * q)
            half = half.reshape(p, -1, q).transpose(2, 0, 1).reshape(q, -1)
            slope -= half @ half.T
            deviance += 2 * float(np.log(np.diag(factor)).sum())
        gradient = np.bincount(which, 2 * (slope @ root)[free]).astype(np.float64)
        return deviance, gradient, information, shift, r2

    # No sign constraint on the diagonal: G is even in each column of L, so 0 is an ordinary
    # minimum; a bound there would be a stationary point that traps the search.
    best = lbfgs(
        lambda theta: tuple(np.divide(part, n) for part in profile(theta)[:2]),
        start,
        bounds=[(-_MAX_RATIO, _MAX_RATIO)] * len(start),
        options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-8},
    )
    deviance, _, information, shift, r2 = profile(best.x)
    root = np.zeros((q, q))
    root[free] = best.x[which]
    noise_var = r2 / nu
    effects = z_back @ root
    deviance += nu * (1 + np.log(2 * np.pi / nu)) + (x_logdet if reml else 0.0)
    return MixedModel(
        beta=x_back @ (ols + shift),
        beta_cov=noise_var * x_back @ np.linalg.inv(information) @ x_back.T,
        G=noise_var * effects @ effects.T,
        noise_var=noise_var,
        log_likelihood=-0.5 * float(deviance),
        n_tasks=int(np.count_nonzero(np.diff(starts))),
    )


def posterior(
    model: MixedModel, x: Array, z: Array, y: Array, starts: Index
) -> tuple[Array, Array]:
    """Random effects of each task given its rows: BLUP and conditional covariance.

    ``cov = (G^-1 + Z'Z / sigma^2)^-1``, ``mean = cov Z'(y - X beta) / sigma^2``, in a form that
    also holds for singular G. The tasks need not be those of the fit; a task without rows has the
    prior, mean 0 and covariance G.

    Returns
    -------
    mean : (task, effect)
    cov : (task, effect, effect)
        Given beta and G.
    """
    x, z, y, starts = _checked(x, z, y, starts)
    values, vectors = np.linalg.eigh(model.G / model.noise_var)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    shrunk, _ = _shrinkage(cross_products(z, z, starts), root)
    residual = (y - x @ model.beta)[:, None]
    mean = (shrunk @ cross_products(z, residual, starts))[:, :, 0]
    return mean, model.noise_var * shrunk


def predict(
    model: MixedModel, x: Array, z: Array, tasks: Index, mean: Array, cov: Array
) -> tuple[Array, Array]:
    """Mean and variance of new outcomes, noise included, from the tasks' `posterior`.

    Parameters
    ----------
    x, z : (row, feature), (row, effect)
        Designs of the new rows, in any order.
    tasks : (row,)
        Task number of each row, an index into `mean` and `cov`.
    mean, cov : (task, effect), (task, effect, effect)
        From `posterior`.

    Returns
    -------
    mean, variance : (row,)
    """
    centre = x @ model.beta + np.einsum("nq,nq->n", z, mean[tasks])
    variance = np.einsum("nq,nqr,nr->n", z, cov[tasks], z) + model.noise_var
    return centre, variance


def _shrinkage(zz: Array, root: Array) -> tuple[Array, Array]:
    """``L (I + L' Z'Z L)^-1 L'`` (task, q, q) and ``log|I + L' Z'Z L|`` (task,)."""
    m = np.eye(root.shape[1]) + root.T @ zz @ root
    shrunk = root @ np.linalg.inv(m) @ root.T
    return shrunk, np.linalg.slogdet(m)[1]


def _effect_basis(z: Array, pattern: Index | None) -> tuple[Array, Array]:
    """Orthonormal basis of the effects; with a pattern, the effects at one common scale."""
    if pattern is None:
        unit, back, _ = orthonormal(z)
        return unit, back
    if pattern.shape != (z.shape[1], z.shape[1]):
        raise DataError(
            f"pattern has shape {pattern.shape}, but z has {z.shape[1]} columns. Pass a pattern "
            "with one row and one column for each."
        )
    scale = np.sqrt(np.mean(z * z)) or 1.0
    return z / scale, np.eye(z.shape[1]) / scale


def _free_entries(
    q: int, pattern: Index | None
) -> tuple[tuple[NDArray[Any], NDArray[Any]], Index, Array]:
    """Indices of the free entries of L, the parameter of each, and start values that give L = I."""
    if pattern is None:
        rows, columns = np.tril_indices(q)
        which = np.arange(len(rows))
    else:
        rows, columns = np.nonzero(np.tril(pattern + 1))
        which = np.asarray(pattern[rows, columns], dtype=np.int64)
    start = np.zeros(int(which.max()) + 1)
    start[which] = np.eye(q)[rows, columns]
    return (rows, columns), which, start


def orthonormal(a: Array) -> tuple[Array, Array, float]:
    """Basis ``U = a @ back`` of the columns of `a` with ``U'U = n I``, and log|a'a| - log|U'U|."""
    scale = np.sqrt(np.mean(a * a, axis=0))
    scale[scale == 0] = 1.0
    u, s, vt = np.linalg.svd(a / scale, full_matrices=False)
    rank = int(np.count_nonzero(s > _COLLINEAR * s[:1].sum()))
    s = s[:rank] / np.sqrt(len(a))
    back = vt[:rank].T / s / scale[:, None]
    return u[:, :rank] * np.sqrt(len(a)), back, 2 * float(np.log(s).sum() + np.log(scale).sum())


def cross_products(a: Array, b: Array, starts: Index) -> Array:
    """``a_i' b_i`` of every task: (row, q), (row, p) -> (task, q, p)."""
    out = np.zeros((len(starts) - 1, a.shape[1], b.shape[1]))
    filled = starts[:-1] < starts[1:]  # reduceat would give empty tasks the next task's row
    if filled.any():
        for j in range(a.shape[1]):
            out[filled, j] = np.add.reduceat(a[:, j, None] * b, starts[:-1][filled], axis=0)
    return out


def _checked(x: Any, z: Any, y: Any, starts: Any) -> tuple[Array, Array, Array, Index]:
    x, z, y = (np.asarray(part, dtype=np.float64) for part in (x, z, y))
    starts = np.asarray(starts, dtype=np.int64)
    n = len(y)
    if x.ndim != 2 or z.ndim != 2 or y.ndim != 1 or len(x) != n or len(z) != n:
        raise DataError(
            f"x {x.shape}, z {z.shape} and y {y.shape} do not fit together: "
            "expected (row, feature), (row, effect) and (row,)."
        )
    if starts.ndim != 1 or len(starts) < 1 or starts[0] != 0 or starts[-1] != n:
        raise DataError(f"starts must run from 0 to the number of rows, {n}.")
    if np.any(np.diff(starts) < 0):
        raise DataError("starts must not decrease: sort the rows by task.")
    for name, part in (("x", x), ("z", z), ("y", y)):
        if not np.isfinite(part).all():
            bad = int(np.count_nonzero(~np.isfinite(part)))
            raise DataError(f"{name} holds {bad} NaN or infinite values. Impute or drop them.")
    return x, z, y, starts


def not_collinear(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which columns are not a linear combination of earlier ones; the first column is all ones.

    Near copies are excluded too: they would get huge slopes of opposite sign, which give wrong
    predictions for new rows in which the copies differ.

    Examples
    --------
    >>> hour = np.arange(10.0)
    >>> not_collinear(np.column_stack([np.ones(10), hour, hour + 1e-3 * (hour > 8), hour % 2]))
    array([ True,  True, False,  True])
    """
    residual = np.abs(np.diag(np.linalg.qr(columns, mode="r"))) ** 2 / len(columns)
    variance = columns.var(axis=0)
    distinct: NDArray[np.bool_] = (residual > _MIN_UNEXPLAINED * variance) & (variance > 0.0)
    distinct[0] = True
    return distinct
