r"""Models as plausible as the estimate: what is not known of variances and of carry-over.

Intervals at the estimated variances are too narrow where patients are few. The logarithms of the
standard deviations, the process's time and the half-life, and the correlations, are taken as normal
around their estimates, with the inverse curvature of the restricted likelihood as covariance C, and
stood for by the :math:`2d` points :math:`v \pm \sqrt{d}\, C^{1/2}_j` of equal weight.

References
----------
Arasaratnam, Haykin (2009), doi:10.1109/TAC.2009.2019800 (the points); Kackar, Harville (1984),
doi:10.2307/2288715 (why).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ehrmeta.treatment.arrays import Array
from ehrmeta.treatment.dosing.dose_model import DoseModel, dose_model_at
from ehrmeta.treatment.dosing.half_life import Designs

_STEP = 0.1  # of a logarithm or a correlation, for the likelihood's curvature
_LARGEST_SD = 0.25  # of the same: what the rows say nothing of stays within bounds
_JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class PlausibleModel:
    """A model, the half-life that it is for, and its weight."""

    model: DoseModel
    half_life: float
    weight: float


def plausible_models(
    best: DoseModel, half_life: float, designs: Callable[[float], Designs], *, estimated: bool
) -> tuple[list[PlausibleModel], float]:
    """Models whose weights sum to 1, and the standard error of the log half-life.

    Parameters
    ----------
    best : DoseModel
    half_life : float
        Of earlier doses; 0 for none.
    designs : callable
        As in `estimate_half_life`.
    estimated : bool
        Whether the half-life is; else it is taken as known.
    """
    q = len(best.G)
    below = np.tril_indices(q, -1)
    sd, root = _parts(best.G)
    cuts = np.cumsum([q, len(below[0]), 1, 1, 1])
    moved = np.ones(cuts[-1] + 1, bool)
    moved[cuts[1] : cuts[3]] = best.process_var > 0
    moved[-1] = estimated and half_life > 0
    known = designs(half_life)

    def at(step: Array) -> tuple[DoseModel, float]:
        every = np.zeros(len(moved))
        every[moved] = step
        sds, correlations, process, tau, noise, log_half_life = np.split(every, cuts)
        turned = root.copy()
        turned[below] += correlations
        turned *= (sd * np.exp(sds) / np.sqrt((turned**2).sum(1)))[:, None]
        own = half_life * float(np.exp(log_half_life[0]))
        model = dose_model_at(
            *(known if own == half_life else designs(own)),
            G=turned @ turned.T,
            process_var=best.process_var * float(np.exp(2 * process[0])),
            tau=best.tau * float(np.exp(tau[0])),
            noise_var=best.noise_var * float(np.exp(2 * noise[0])),
        )
        return model, own

    def likelihood(step: Array) -> float:
        return at(step)[0].log_likelihood

    d = int(moved.sum())
    values, vectors = np.linalg.eigh(-_curvature(likelihood, d))
    spread = vectors / np.sqrt(np.maximum(values, 1.0 / _LARGEST_SD**2))
    points = np.sqrt(d) * np.concatenate([spread.T, -spread.T])
    found = [at(point) for point in points]
    models = [PlausibleModel(model, own, 1.0 / len(found)) for model, own in found]
    return models, float(np.sqrt((spread[-1] ** 2).sum())) if moved[-1] else 0.0


def _parts(G: Array) -> tuple[Array, Array]:
    """Standard deviations, and the Cholesky root of the correlations."""
    sd = np.sqrt(np.diag(G))
    scale = np.where(sd > 0, sd, 1.0)
    correlation = G / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0 + _JITTER)
    return sd, np.asarray(np.linalg.cholesky(correlation))


def _curvature(f: Callable[[Array], float], d: int) -> Array:
    """Second derivatives at 0, (d, d), by differences."""
    steps = _STEP * np.eye(d)
    centre = f(np.zeros(d))
    up, down = ([f(sign * step) for step in steps] for sign in (1.0, -1.0))
    found = np.diag([(up[i] - 2 * centre + down[i]) / _STEP**2 for i in range(d)])
    for i, j in combinations(range(d), 2):
        cross = f(steps[i] + steps[j]) - up[i] - up[j] + centre
        found[i, j] = found[j, i] = cross / _STEP**2
    return found
