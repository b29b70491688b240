"""Pharmacometric comparator: one-compartment model with MAP estimates of individual parameters.

Population parameters are estimated by iterated two-stage: posterior mode and curvature of every
patient given the population, then the population given these, in turn.

References
----------
Steimer, Mallet, Golmard, Boisvieux (1984), doi:10.3109/03602538409015066.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from ehrmeta.data import DosedPatients

_INTERVAL, _REPEATS = 12.0, 4  # hours between doses, number of equal doses
_N_ROUNDS, _N_STEPS = 40, 12
_LARGEST_STEP = 1.0


@dataclass(frozen=True)
class Rows:
    """Measurements and dose histories, the same number for every patient."""

    covariates: Tensor  # (patient, parameter, coefficient)
    doses: Tensor  # (patient, level)
    time: Tensor  # (patient, row)
    y: Tensor  # (patient, row)


@dataclass(frozen=True)
class Population:
    """Normal distribution of log clearance, volume and absorption around ``covariates @ beta``."""

    beta: Tensor  # (coefficient,)
    precision: Tensor  # (parameter, parameter)
    proportional: Tensor
    additive: Tensor
    oral: bool


def rows_of(patients: DosedPatients, chosen: Tensor, n_rows: int) -> Rows:
    """First rows of some patients, with covariates log weight and log creatinine clearance."""
    n_patients, n_levels = patients.doses.shape
    x = torch.as_tensor(patients.X).reshape(n_patients, n_levels, -1)[chosen, 0]
    size, renal, one = torch.log(x[:, 0] / 70.0), torch.log(x[:, 1] / 80.0), torch.ones(len(x))
    zero = torch.zeros(len(x))
    clearance = torch.stack([one, size, renal, *[zero] * 3], dim=1)
    volume = torch.stack([*[zero] * 3, one, size, zero], dim=1)
    absorption = torch.stack([*[zero] * 5, one], dim=1)
    shape = (n_patients, n_levels)
    return Rows(
        covariates=torch.stack([clearance, volume, absorption], dim=1).double(),
        doses=torch.as_tensor(patients.doses)[chosen],
        time=torch.as_tensor(patients.time).reshape(shape)[chosen, :n_rows],
        y=torch.as_tensor(patients.y).reshape(shape)[chosen, :n_rows],
    )


def steady(log_parameters: Tensor, oral: bool) -> Tensor:
    """Steady-state trough concentration per mg of dose, (patient,)."""
    clearance, volume, absorption = torch.exp(log_parameters).unbind(-1)
    rate = clearance / volume

    def remaining(by: Tensor) -> Tensor:
        return torch.exp(-by * _INTERVAL) / (1 - torch.exp(-by * _INTERVAL))

    if not oral:
        return remaining(rate) / volume
    return absorption / (volume * (absorption - rate)) * (remaining(rate) - remaining(absorption))


def modes(population: Population, rows: Rows) -> tuple[Tensor, Tensor]:
    """Posterior modes of the patients' log parameters, and the curvature there.

    Returns
    -------
    modes : (patient, parameter)
    curvature : (patient, parameter, parameter)
    """
    centre = rows.covariates @ population.beta

    def loss(
        log_parameters: Tensor, centre: Tensor, doses: Tensor, time: Tensor, y: Tensor
    ) -> Tensor:
        mean = _concentration(log_parameters, doses, time, population.oral)
        variance = (population.proportional * mean) ** 2 + population.additive**2
        deviation = log_parameters - centre
        misfit = torch.sum((y - mean) ** 2 / variance + torch.log(variance))
        return 0.5 * (misfit + deviation @ population.precision @ deviation)

    data = (centre, rows.doses, rows.time, rows.y)
    slope, bend, value = (
        vmap(part(loss)) for part in (grad, lambda f: jacrev(grad(f)), lambda f: f)
    )
    log_parameters, damping = centre.clone(), torch.full((len(centre),), 1e-3, dtype=torch.float64)
    eye = torch.eye(centre.shape[1], dtype=torch.float64)
    for _ in range(_N_STEPS):
        curvature = _positive(bend(log_parameters, *data)) + damping[:, None, None] * eye
        step = torch.linalg.solve(curvature, slope(log_parameters, *data))
        tried = log_parameters - step.clamp(-_LARGEST_STEP, _LARGEST_STEP)
        better = value(tried, *data) <= value(log_parameters, *data)
        log_parameters = torch.where(better[:, None], tried, log_parameters)
        damping = torch.where(better, 0.3 * damping, 30.0 * damping)
    return log_parameters, _positive(bend(log_parameters, *data))


def only(population: Population, n_free: int) -> Population:
    """Population without a prior on the first parameters, and with the others fixed.

    Its modes are the individual least-squares estimates.
    """
    free = torch.arange(3) < n_free
    precision = torch.where(free, 1e-4, 1e6).double()
    return replace(population, precision=torch.diag(precision))


def fit_population(rows: Rows, oral: bool) -> Population:
    """Population parameters by iterated two-stage, from a rough guess."""
    one = torch.tensor(1.0, dtype=torch.float64)
    population = Population(
        beta=torch.tensor([1.0, 0.0, 0.0, 3.0, 0.0, 0.0], dtype=torch.float64),
        precision=4.0 * torch.eye(3, dtype=torch.float64),
        proportional=0.3 * one,
        additive=0.3 * one,
        oral=oral,
    )
    a = rows.covariates.flatten(0, 1)
    for _ in range(_N_ROUNDS):
        log_parameters, curvature = modes(population, rows)
        spread = torch.linalg.inv(curvature)
        beta = torch.linalg.lstsq(
            _weighted(a, population), _weighted(log_parameters.flatten()[:, None], population)
        ).solution[:, 0]
        deviation = log_parameters - rows.covariates @ beta
        variance = (deviation**2 + torch.diagonal(spread, dim1=1, dim2=2)).mean(0)
        population = replace(population, beta=beta, precision=torch.diag(1.0 / variance))
        proportional, additive = _errors(population, rows, log_parameters, spread)
        population = replace(population, proportional=proportional, additive=additive)
    return population


def _weighted(values: Tensor, population: Population) -> Tensor:
    root = torch.sqrt(torch.diagonal(population.precision))
    return values * root.repeat(len(values) // len(root))[:, None]


def _errors(
    population: Population, rows: Rows, log_parameters: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """Proportional and additive error by weighted least squares on squared residuals."""

    def concentration(log_parameters: Tensor, doses: Tensor, time: Tensor) -> Tensor:
        return _concentration(log_parameters, doses, time, population.oral)

    mean = vmap(concentration)(log_parameters, rows.doses, rows.time)
    slope = vmap(jacrev(concentration))(log_parameters, rows.doses, rows.time)
    square = (rows.y - mean) ** 2 + torch.einsum("ntp,npq,ntq->nt", slope, spread, slope)
    design = torch.stack([mean.flatten() ** 2, torch.ones(mean.numel())], dim=1).double()
    squares = torch.stack([population.proportional**2, population.additive**2]).double()
    for _ in range(5):
        weight = 1.0 / (design @ squares)
        weighted = design * weight[:, None]
        squares = torch.linalg.solve(
            weighted.T @ weighted, weighted.T @ (square.flatten() * weight)
        )
        squares = squares.clamp(min=1e-4)
    root = torch.sqrt(squares)
    return root[0], root[1]


def _concentration(log_parameters: Tensor, doses: Tensor, time: Tensor, oral: bool) -> Tensor:
    """Concentrations of one patient under a dose history, (row,)."""
    clearance, volume, absorption = torch.exp(log_parameters).unbind(-1)
    rate = clearance / volume
    amount = doses.repeat_interleave(_REPEATS)
    elapsed = time[:, None] - _INTERVAL * torch.arange(len(amount))
    amount = torch.where(elapsed >= 0, amount, 0.0)

    def remaining(by: Tensor) -> Tensor:
        return torch.sum(amount * torch.exp(-elapsed.clamp(min=0) * by), dim=1)

    if not oral:
        return remaining(rate) / volume
    return absorption / (volume * (absorption - rate)) * (remaining(rate) - remaining(absorption))


def _positive(curvature: Tensor) -> Tensor:
    """The matrix with eigenvalues of at least 1e-3."""
    values, vectors = torch.linalg.eigh(curvature)
    positive: Tensor = (vectors * values.clamp(min=1e-3)[:, None, :]) @ vectors.mT
    return positive
