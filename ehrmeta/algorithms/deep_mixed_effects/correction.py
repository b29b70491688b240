"""Linear and neural corrections of the process's predictive mean and scale.

The shift of the mean is a multiple of the posterior sd, so it vanishes as the support grows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Episodes, Params, Spec, part, prefixed
from ehrmeta.algorithms.deep_mixed_effects.course import FEW_TASKS
from ehrmeta.algorithms.deep_mixed_effects.start import query_columns
from ehrmeta.nn import MLP, Network, TaskSet

_NETWORK = MLP((32, 32))
_N_LAST = 10  # inputs after the features: mean, posterior mean, posterior sd and `summary`
_EMPTY = 1  # index in `summary`
# Pairs of the last inputs that are multiplied. An outlying level, few rows and a variable support
# all affect the reliability of the posterior mean.
_MEAN, _SHIFT, _SD, _COUNT, _LATEST, _LEVEL, _SPREAD = 0, 1, 2, 3, 5, 6, 7
_ONE = (_MEAN, _SHIFT, _SHIFT, _SHIFT, _SHIFT, _SD, _SD)
_TWO = (_MEAN, _SHIFT, _SD, _COUNT, _SPREAD, _LATEST, _LEVEL)
_CLIP = 5.0  # standard deviations
_MIN_SCALE = 0.1  # in sds of the outcome: nearly constant inputs may vary after training
_PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # relative to the mean diagonal
_N_FOLDS = 10
MAX_LOG_FACTOR = 1.0  # bound of the log factor of the scale
_MAX_RATIO = 25.0  # squared standardised errors are clipped to this
_SPREAD_PENALTIES = (0.01, 0.1, 1.0)  # relative to the mean diagonal
_SPREAD_FOLDS, _N_ROUNDS = 5, 8


def correction_params(spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
    """Initial parameters, which make no correction."""
    n = _n_inputs(spec)
    return {
        **prefixed("correction", _network(spec).init(generator)),
        "correction_gain": torch.zeros(2),
        "correction_linear": torch.zeros(_n_terms(spec)),
        "correction_spread": torch.zeros(_n_terms(spec)),
        "correction_center": torch.zeros(n),
        "correction_scale": torch.ones(n),
    }


def summary(residual: Tensor, support: TaskSet) -> Tensor:
    """Features (7,) of a support: its size, and level and spread of its residuals and outcomes."""
    weight, y = support.weight.double(), support.y.double() - support.offset.double()
    total = weight.sum()
    last = weight * (support.time >= 0.0)

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / weight.sum().clamp(min=1e-12)

    def spread(values: Tensor) -> Tensor:
        center = mean(values, weight)
        return torch.sqrt(mean((values - center).square(), weight) + 1e-6)

    return torch.stack(
        [
            torch.log1p(total),
            torch.where(total > 0, 0.0, 1.0),
            mean(residual, last),
            mean(residual, weight),
            spread(residual),
            mean(y, last),
            spread(y),
        ]
    )


def correction(
    spec: Spec,
    params: Params,
    support_summary: Tensor,
    query: TaskSet,
    mean: Tensor,
    shift: Tensor,
    sd: Tensor,
) -> tuple[Tensor, Tensor]:
    """Shift of the mean and factor of the scale, (point,) each.

    Parameters
    ----------
    mean, shift, sd : (point,)
        Population mean, posterior mean and posterior sd.
    """
    inputs = _inputs(support_summary, query, mean, shift, sd)
    inputs = _standard(inputs, params["correction_center"], params["correction_scale"])
    terms = _terms(inputs, support_summary)
    linear = terms @ params["correction_linear"].double()
    spread = (terms @ params["correction_spread"].double()).clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR)
    output = _network(spec).forward(part(params, "correction"), {}, inputs.to(query.x.dtype))
    output = (output * params["correction_gain"]).double()
    return sd * (linear + output[:, 0]), torch.exp(spread + output[:, 1])


def fit_linear_correction(
    parts: Callable[[TaskSet, TaskSet], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]],
    episodes: Episodes,
    n_tasks: int,
    *,
    spread: bool,
    certain: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """Ridge regression of the process's residuals, with the same weight for every task.

    Cross-validation over tasks chooses the penalty. With fewer than 50 tasks, there is no
    correction unless it gains more than one standard error over the folds, or any gain if
    `certain`. The correction of the scale is fitted to residuals from held-out folds.

    Parameters
    ----------
    parts : callable
        Function of support and query of one task. It returns summary, mean, posterior mean,
        posterior sd and predictive variance.
    episodes : iterable
        Episodes of the training tasks.
    n_tasks : int
        Number of training tasks.
    spread : bool
        Whether to correct the scale too; this needs 50 tasks.
    certain : bool
        See above.

    Returns
    -------
    params : dict
    losses : Tensor, (fold,)
        Squared errors of the corrected mean in held-out folds.
    """

    def one_task(support: TaskSet, query: TaskSet) -> tuple[Tensor, ...]:
        support_summary, mean, shift, sd, variance = parts(support, query)
        inputs = _inputs(support_summary, query, mean, shift, sd)
        residual = query.y.double() - mean - shift
        summaries = support_summary.expand(len(sd), -1)
        return inputs, sd, residual, variance, query.weight.double(), summaries

    columns = query_columns(one_task, episodes)
    inputs, sd, residual, variance, weight, summaries, task = columns
    weight = weight / torch.bincount(task, weight, minlength=n_tasks)[task]
    center = (weight[:, None] * inputs).sum(0) / weight.sum()
    scale = torch.sqrt((weight[:, None] * (inputs - center).square()).sum(0) / weight.sum())
    scale = torch.where(scale > 1e-6 * (1.0 + center.abs()), scale, 1.0)
    scale[-_N_LAST:].clamp_(min=_MIN_SCALE)
    terms = _terms(_standard(inputs, center, scale)[:, None], summaries)[:, 0]
    design = sd[:, None] * terms
    both = torch.cat([design, residual[:, None]], 1) * weight.sqrt()[:, None]
    folds = [both[task % _N_FOLDS == i] for i in range(min(_N_FOLDS, n_tasks))]
    grams = torch.stack([fold.mT @ fold for fold in folds])
    few = n_tasks < FEW_TASKS
    unit = float((weight * sd.square()).sum())
    linear, by_fold, losses = _ridge(grams, unit, few and not certain)
    log_factor = torch.zeros_like(linear)
    if spread and not few:
        held_out_residual = residual - (design * by_fold[task % _N_FOLDS]).sum(1)
        log_factor = fit_spread(terms, held_out_residual.square() / variance, weight, task)
    params = {
        "correction_linear": linear,
        "correction_spread": log_factor,
        "correction_center": center,
        "correction_scale": scale,
    }
    return params, losses


def fit_spread(terms: Tensor, ratio: Tensor, weight: Tensor, task: Tensor) -> Tensor:
    r"""Coefficients w of the log factor of the scale, :math:`\log f = t'w`.

    Gamma regression of squared standardised errors :math:`r^2` with a log link and a ridge
    penalty: w minimises :math:`\sum \log f + r^2 / (2 f^2)`, the normal likelihood, by Fisher
    scoring with constant curvature. Cross-validation over tasks chooses the penalty. If the gain is
    at most one standard error over the folds, w is 0.

    Parameters
    ----------
    terms : (row, term)
    ratio : (row,)
        Squared errors over their predicted variances.
    weight : (row,)
    task : (row,)
        Task numbers.

    References
    ----------
    Aitkin (1987), doi:10.2307/2347792.
    """
    ratio = ratio.clamp(max=_MAX_RATIO)
    folds = [task % _SPREAD_FOLDS == fold for fold in range(_SPREAD_FOLDS)]

    def gain(held_out: Tensor, penalty: float) -> Tensor:
        w = _fit(terms[~held_out], ratio[~held_out], weight[~held_out], penalty)
        return _gain(terms[held_out] @ w, ratio[held_out], weight[held_out])

    gains = torch.stack([torch.stack([gain(fold, p) for fold in folds]) for p in _SPREAD_PENALTIES])
    best = int(gains.sum(1).argmax())
    if float(gains[best].mean()) <= float(gains[best].std()) / _SPREAD_FOLDS**0.5:
        return torch.zeros_like(terms[0])
    return _fit(terms, ratio, weight, _SPREAD_PENALTIES[best])


def _n_inputs(spec: Spec) -> int:
    return spec.n_features + _N_LAST


def _n_terms(spec: Spec) -> int:
    return 1 + _n_inputs(spec) + len(_ONE) + spec.n_features


def _network(spec: Spec) -> Network:
    """Two outputs: shift of the mean in posterior sds, and log factor of the scale."""
    return _NETWORK.network(_n_inputs(spec), 2)


def _inputs(
    support_summary: Tensor, query: TaskSet, mean: Tensor, shift: Tensor, sd: Tensor
) -> Tensor:
    """Features, moments of the process and summary of the support, (point, input)."""
    process = torch.stack([mean - query.offset, shift, sd], -1)
    return torch.cat([query.x.double(), process, support_summary.expand(len(sd), -1)], -1)


def _standard(inputs: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Standardised inputs, clipped so that products of outliers stay bounded."""
    return ((inputs - center.detach()) / scale.detach()).clamp(-_CLIP, _CLIP)


def _terms(inputs: Tensor, support_summary: Tensor) -> Tensor:
    """Terms: 1, inputs, products of the last inputs, and the features where support is empty."""
    x, last = inputs[..., :-_N_LAST], inputs[..., -_N_LAST:]
    empty = support_summary[..., _EMPTY, None, None]
    ones = torch.ones_like(last[..., :1])
    return torch.cat([ones, inputs, last[..., _ONE] * last[..., _TWO], empty * x], -1)


def _ridge(grams: Tensor, unit: float, gated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge coefficients from cross-products (fold, column, column) of design and outcome.

    Returns the coefficients from all folds, (column,), those without each fold, (fold, column), and
    the squared error in each held-out fold.
    """
    total = grams.sum(0)
    size = total.shape[0] - 1
    eye = torch.eye(size, dtype=total.dtype)

    def solve(gram: Tensor, penalty: float) -> Tensor:
        beta: Tensor = torch.linalg.solve(gram[:size, :size] + penalty * eye, gram[:size, size])
        return beta

    penalties = [share * unit for share in _PENALTIES]
    without = [torch.stack([solve(total - gram, p) for gram in grams]) for p in penalties]
    losses = torch.stack([torch.stack(list(map(_loss, grams, fits))) for fits in without])
    best = int(losses.sum(1).argmin())
    gain = grams[:, size, size] - losses[best]
    least = float(gain.std()) / len(grams) ** 0.5 if gated else 0.0
    if float(gain.mean()) <= least:
        none = torch.zeros_like(without[best])
        return none[0], none, grams[:, size, size]
    return solve(total, penalties[best]), without[best], losses[best]


def _loss(gram: Tensor, solution: Tensor) -> Tensor:
    size = len(solution)
    cross = gram[:size, size] @ solution
    return gram[size, size] - 2.0 * cross + solution @ gram[:size, :size] @ solution


def _fit(terms: Tensor, ratio: Tensor, weight: Tensor, penalty: float) -> Tensor:
    gram = 2.0 * terms.mT @ (weight[:, None] * terms)
    ridge = penalty * torch.diagonal(gram).mean()
    root = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    w = torch.zeros_like(terms[0])
    for _ in range(_N_ROUNDS):
        score = terms.mT @ (weight * (ratio / _squared_factor(terms @ w) - 1.0)) - ridge * w
        w = w + torch.cholesky_solve(score[:, None], root)[:, 0]
    return w


def _gain(log_factor: Tensor, ratio: Tensor, weight: Tensor) -> Tensor:
    """Gain in mean log-likelihood over a factor of 1."""
    squared = _squared_factor(log_factor)
    log_ratio = 0.5 * (ratio - ratio / squared - torch.log(squared))
    return (weight * log_ratio).sum() / weight.sum()


def _squared_factor(log_factor: Tensor) -> Tensor:
    return torch.exp(2.0 * log_factor.clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR))
